/**
 * Where the time of each verb goes, from samples that `perf` takes: `npm run bench:profile`.
 * Samples count processor time; what is left of the cores' time until the end is waiting.
 *
 *   npm run bench:profile -- [--image FILE] [--json]
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { about, versionOf } from './about.ts'
import { droverCases } from './cases.ts'
import { benchImage } from './image.ts'
import { measure, spreadOf } from './measure.ts'
import { table } from './table.ts'

const { values } = parseArgs({
  options: { image: { type: 'string' }, json: { type: 'boolean', default: false } },
})
const VERBS = [
  'first backup',
  'backup under a new name',
  'restore',
  'restore --verify blocks',
  'verify --level full',
]
const HERTZ = 1999
const RUNS = 3

/** The first that matches a stack, from the innermost frame outwards, tells what it is for. */
const KINDS: ReadonlyArray<readonly [string, RegExp]> = [
  ['SHA-512', /sha512_block/],
  ['decompression', /decompress/],
  ['compression', /lz4_flex/],
  ['frame checksum', /xxhash|twox_hash/],
  ['seal', /gcm|ghash/],
  ['reading', /sys_pread|sys_read$|ksys_read/],
  ['writing', /sys_pwrite|ksys_write|vfs_write/],
  ['flushing', /sys_fsync|sys_fdatasync|do_fsync/],
  ['names', /sys_(mkdir|link|unlink|rename|open|stat|lstat|newfstat|statx|chmod|rmdir|close)/],
  ['garbage collection', /Scaveng|MinorGC|MarkCompact|CollectGarbage|GarbageCollect/],
  [
    'start of Node and its threads',
    /LoadEnvironment|CreateEnvironment|InitializeOncePer|BuiltinLoader|ld-linux|ModuleWrap|Snapshot|execve/,
  ],
  ['page faults', /page_fault|sys_(madvise|munmap|mmap|brk|mprotect)/],
  ['threads waking each other', /sys_futex|sys_epoll|uv__async|schedule/],
]
const OTHER = 'everything else'
const FILE_HASH = 'hash of the file'
const BLOCK_HASH = 'hashes of blocks'
const WAITING = 'idle cores'

interface Profile {
  readonly name: string
  readonly wallSeconds: number
  readonly seconds: Readonly<Record<string, number>>
}

if (versionOf('perf') === undefined) throw new Error('perf is needed: package linux-perf')
const work = mkdtempSync(join(tmpdir(), 'drover-bench-'))
process.on('exit', () => rmSync(work, { recursive: true, force: true }))
process.on('SIGINT', () => process.exit(130))

const image = values.image ?? benchImage(join(tmpdir(), 'drover-bench-image'))
const cases = droverCases({ image, sparse: image, work }).filter(({ name }) => VERBS.includes(name))
const profiles: Profile[] = []
for (const { name, prepare, command } of cases) {
  // taking samples takes time, too: the wall time is that of runs without
  const walls: number[] = []
  for (let run = 0; run < RUNS; run++) {
    prepare()
    execFileSync('sync')
    walls.push((await measure(command)).wallSeconds)
  }
  prepare()
  execFileSync('sync')
  profiles.push(profile(name, command.argv, spreadOf(walls).median))
}
process.stdout.write(
  values.json ? `${JSON.stringify({ about: about(), profiles })}\n` : describe(profiles),
)

function profile(name: string, argv: readonly string[], wallSeconds: number): Profile {
  const data = join(work, 'perf.data')
  execFileSync('perf', ['record', '-q', '-F', String(HERTZ), '-g', '-o', data, '--', ...argv], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const text = execFileSync('perf', ['script', '-i', data, '-F', 'tid,ip,sym,dso'], {
    maxBuffer: 2 ** 30,
    stdio: ['ignore', 'pipe', 'ignore'],
  }).toString()
  const counts = new Map<string, number>()
  const hashes = new Map<string, number>()
  for (const sample of text.split('\n\n')) {
    const [tid = '', ...frames] = sample.trim().split('\n')
    if (tid === '') continue
    const kind = kindOf(frames)
    if (kind === 'SHA-512') hashes.set(tid, (hashes.get(tid) ?? 0) + 1)
    else counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  // each block is hashed once and the file as a whole: its thread has the most to do
  const [ofFile = 0, ...ofBlocks] = [...hashes.values()].toSorted((a, b) => b - a)
  const hashesFile = !argv.includes('blocks')
  counts.set(FILE_HASH, hashesFile ? ofFile : 0)
  counts.set(
    BLOCK_HASH,
    [hashesFile ? 0 : ofFile, ...ofBlocks].reduce((sum, count) => sum + count, 0),
  )
  const seconds = Object.fromEntries([...counts].map(([kind, count]) => [kind, count / HERTZ]))
  const busy = Object.values(seconds).reduce((sum, each) => sum + each, 0)
  const idle = Math.max(0, availableParallelism() * wallSeconds - busy)
  return { name, wallSeconds, seconds: { ...seconds, [WAITING]: idle } }
}

function kindOf(frames: readonly string[]): string {
  for (const frame of frames) {
    const found = KINDS.find(([, pattern]) => pattern.test(frame))
    if (found) return found[0]
  }
  return OTHER
}

function describe(profiles: readonly Profile[]): string {
  const kinds = [
    FILE_HASH,
    BLOCK_HASH,
    ...KINDS.map(([kind]) => kind).filter((kind) => kind !== 'SHA-512'),
    OTHER,
    WAITING,
  ]
  const rows = kinds.map((kind) => [
    kind,
    ...profiles.map(({ seconds }) => (seconds[kind] ? `${seconds[kind].toFixed(2)} s` : '')),
  ])
  const wall = ['wall time', ...profiles.map(({ wallSeconds }) => `${wallSeconds.toFixed(2)} s`)]
  return table(['', ...profiles.map(({ name }) => name)], [...rows, wall])
}

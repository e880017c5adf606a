/**
 * What large stores cost: time and memory against the number of blocks, `npm run bench:scale`. The
 * blocks are real files but tiny, since only their number counts here.
 *
 *   npm run bench:scale -- [--sizes 1000,10000,100000,1000000] [--only TEXT] [--json]
 */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { about } from './about.ts'
import { measure } from './measure.ts'
import { table } from './table.ts'

const { values } = parseArgs({
  options: {
    sizes: { type: 'string', default: '1000,10000,100000,1000000' },
    only: { type: 'string', default: '' },
    json: { type: 'boolean', default: false },
  },
})
const sizes = values.sizes.split(',').map(Number)
if (!sizes.every((size) => Number.isInteger(size) && size > 0)) {
  throw new Error('--sizes expects numbers of blocks, as in 1000,10000')
}

const BLOCK_BYTES = 2 * 1024 * 1024
const DROVER = fileURLToPath(new URL('../bin/drover', import.meta.url))
const WRITE_CONFIG = fileURLToPath(new URL('./write-config.ts', import.meta.url))

interface Row {
  readonly name: string
  readonly blocks: number
  readonly seconds: number
  readonly microsecondsPerBlock: number
  readonly peakMiB: number
}

const work = mkdtempSync(join(tmpdir(), 'drover-bench-'))
process.on('exit', () => rmSync(work, { recursive: true, force: true }))
process.on('SIGINT', () => process.exit(130))
const say = (text: string) => void process.stderr.write(`${text}\n`)

/** Beyond this a whole backup takes too long: what counts then is the hash of the file. */
const LARGEST_BACKUP = 10_000

const image = join(work, 'small.raw')
writeFileSync(image, randomBytes(2 * BLOCK_BYTES))
const rows: Row[] = []
for (const size of sizes) {
  const folder = join(work, String(size))
  await runAll(folder, size)
  rmSync(folder, { recursive: true })
}
process.stdout.write(
  values.json
    ? `${JSON.stringify({ about: about(), rows })}\n`
    : table(
        ['', 'blocks', 'time', 'a block', 'peak memory'],
        rows.map(({ name, blocks, seconds, microsecondsPerBlock, peakMiB }) => [
          name,
          blocks.toLocaleString('en'),
          `${seconds.toFixed(2)} s`,
          `${microsecondsPerBlock.toFixed(1)} µs`,
          `${peakMiB.toFixed(0)} MiB`,
        ]),
      ),
)

async function runAll(folder: string, size: number): Promise<void> {
  const target = `vfs://${folder}`
  const url = `${target}?backingImage=large`
  const drover = (...args: string[]) => [DROVER, ...args, '--quiet', '--json']
  const run = async (name: string, argv: readonly string[], expectCode = 0) => {
    if (!name.includes(values.only)) return
    const { wallSeconds, peakMiB } = await measure({ argv, expectCode })
    rows.push({
      name,
      blocks: size,
      seconds: wallSeconds,
      microsecondsPerBlock: (wallSeconds / size) * 1e6,
      peakMiB,
    })
    say(`${size} blocks, ${name}: ${wallSeconds.toFixed(2)} s, ${peakMiB.toFixed(0)} MiB`)
  }

  say(`making a store of ${size} blocks`)
  const ids = Array.from({ length: size }, () => randomBytes(32))
  for (const id of ids) writeBlock(folder, id.toString('hex'))
  writeConfig(folder, 'large', ids)
  await run('write a config', [
    process.execPath,
    WRITE_CONFIG,
    join(folder, 'config'),
    String(size),
  ])
  await run('list', drover('list', '--target', target))
  await run('inspect (reads the config)', drover('inspect', url))
  await run('verify --level exists', drover('verify', url, '--level', 'exists'))
  await run(
    'backup of 2 other blocks',
    drover('backup', image, '--target', target, '--name', 'other'),
  )
  await run('gc --dry-run', drover('gc', '--target', target, '--dry-run', '--min-age', '0s'))
  writeConfig(
    folder,
    'lost',
    Array.from({ length: size }, () => randomBytes(32)),
  )
  const lost = `${target}?backingImage=lost`
  await run('verify, all missing', drover('verify', lost, '--level', 'exists'), 3)
  await run('delete', drover('delete', url))
  if (size > LARGEST_BACKUP) return
  const distinct = sparseImage(join(folder, 'distinct.raw'), ids)
  const fresh = join(folder, 'fresh')
  mkdirSync(fresh)
  await run('backup', drover('backup', distinct, '--target', `vfs://${fresh}`))
}

/** A file of distinct blocks that takes hardly any room: one id in each, and holes. */
function sparseImage(path: string, ids: readonly Buffer[]): string {
  const file = openSync(path, 'wx')
  for (const [at, id] of ids.entries()) writeSync(file, id, 0, id.length, at * BLOCK_BYTES)
  ftruncateSync(file, ids.length * BLOCK_BYTES)
  closeSync(file)
  return path
}

function writeBlock(folder: string, id: string): void {
  const path = join(folder, 'backupstore/backing-images/blocks', id.slice(0, 2), id.slice(2, 4))
  mkdirSync(path, { recursive: true })
  writeFileSync(join(path, `${id}.blk`), 'could be a frame, by its length')
}

function writeConfig(folder: string, name: string, ids: readonly Buffer[]): void {
  const path = join(folder, 'backupstore/backing-images/backing-images', name, 'backing-image.cfg')
  mkdirSync(dirname(path), { recursive: true })
  const file = openSync(path, 'wx')
  const facts = JSON.stringify({
    Name: name,
    Size: String(ids.length * BLOCK_BYTES),
    BlockCount: String(ids.length),
    Checksum: '',
    Labels: {},
    CompressionMethod: 'lz4',
    CreatedTime: '2026-01-01T00:00:00Z',
    CompleteTime: '2026-01-01T00:01:00Z',
    Secret: '',
    SecretNamespace: '',
    ProcessingBlocks: null,
  })
  writeSync(file, `${facts.slice(0, -1)},"Blocks":[`)
  for (const [at, id] of ids.entries()) {
    const entry = `{"Offset":${at * BLOCK_BYTES},"BlockChecksum":"${id.toString('hex')}"}`
    writeSync(file, at === 0 ? entry : `,${entry}`)
  }
  writeSync(file, ']}')
  closeSync(file)
}

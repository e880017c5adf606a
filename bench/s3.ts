/**
 * Speed on an S3 server, beside restic on the same one: `npm run bench:s3`. The server is Ceph on
 * loopback, in memory, on the processors that the clients need, too; drover and restic take turns.
 *
 *   npm run bench:s3 -- [--runs N] [--json] [--image FILE] [--levels 1,2,4]
 *                       [--no-delay] [--no-delay-server]
 *
 * With --no-delay-server the server sends small answers at once (tcp_nodelay), which it does not do
 * as it is packaged. A second table, left out by --no-delay, puts 20 ms between client and server,
 * on each way: there, what counts is how many requests go side by side.
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { KEYS, startCeph } from '../test/helpers/s3/ceph.ts'
import { startTcpProxy } from '../test/helpers/s3/tcp-proxy.ts'
import { about, versionOf } from './about.ts'
import { benchImage } from './image.ts'
import type { CommandLine, Figures } from './measure.ts'
import { measure, spreadOf } from './measure.ts'
import { table } from './table.ts'

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    json: { type: 'boolean', default: false },
    image: { type: 'string' },
    'no-delay': { type: 'boolean', default: false },
    'no-delay-server': { type: 'boolean', default: false },
    levels: { type: 'string', default: '1,2,4,8,16' },
  },
})
const runs = Number(values.runs)
if (!Number.isInteger(runs) || runs < 1) throw new Error('--runs expects a number from 1')
const levels = values.levels.split(',').map(Number)

const DROVER = fileURLToPath(new URL('../bin/drover', import.meta.url))
const DELAY_MS = 20
const work = mkdtempSync(join(tmpdir(), 'drover-bench-'))
const out = join(work, 'out.raw')
const say = (text: string) => void process.stderr.write(`${text}\n`)

interface Row {
  readonly name: string
  readonly figures: Figures[]
  /** Of restic's time for the same, run by run. */
  readonly toRestic: number[]
}

const image = values.image ?? benchImage(join(tmpdir(), 'drover-bench-image'))
const sizeMiB = statSync(image).size / 1024 ** 2
execFileSync('cat', [image], { stdio: ['ignore', 'ignore', 'inherit'] }) // into the page cache

const ceph = await startCeph({ noDelay: values['no-delay-server'] })
try {
  const bucket = await ceph.admin.makeBucket()
  const near = await compare(bucket, ceph.url, levels)
  const far = values['no-delay'] ? [] : await behindDelay(bucket)
  const facts = {
    ...about(),
    server: `Ceph radosgw on loopback (${values['no-delay-server'] ? 'tcp_nodelay=1' : 'as packaged'}, memstore), on the same processors`,
    restic: versionOf('restic', 'version'),
    runs,
  }
  if (values.json) process.stdout.write(`${JSON.stringify({ about: facts, near, far })}\n`)
  else {
    const lines = Object.entries(facts).map(([key, value]) => `${key}: ${String(value)}`)
    process.stdout.write(`${lines.join('\n')}\n\n${describe(near)}`)
    if (far.length > 0) process.stdout.write(`\n${DELAY_MS} ms on each way:\n\n${describe(far)}`)
  }
} finally {
  ceph.admin.close()
  await ceph.stop()
  rmSync(work, { recursive: true, force: true })
}

async function behindDelay(bucket: string): Promise<Row[]> {
  const plan = { requestMs: DELAY_MS, responseMs: DELAY_MS }
  const proxy = await startTcpProxy(ceph.port, () => plan)
  try {
    // what is compared there is Drover with itself
    return await compare(bucket, proxy.url, [1, 8], false)
  } finally {
    await proxy.stop()
  }
}

/** Each level's backup and restore, and restic's, in turn. */
async function compare(
  bucket: string,
  endpoint: string,
  at: readonly number[],
  withRestic = true,
): Promise<Row[]> {
  const rows = new Map<string, Row>()
  const rowOf = (name: string): Row => {
    const row = rows.get(name) ?? { name, figures: [], toRestic: [] }
    rows.set(name, row)
    return row
  }
  for (let run = 0; run < runs; run++) {
    const theirs = withRestic ? await restic(bucket, endpoint) : undefined
    if (theirs) {
      rowOf('restic backup').figures.push(theirs.backup)
      rowOf('restic restore --verify').figures.push(theirs.restore)
    }
    for (const level of at) {
      const ours = await droverAt(level, bucket, endpoint)
      for (const verb of ['backup', 'restore'] as const) {
        const row = rowOf(`${verb}, concurrency ${level}`)
        row.figures.push(ours[verb])
        if (theirs) row.toRestic.push(theirs[verb].wallSeconds / ours[verb].wallSeconds)
        say(`${row.name}: ${ours[verb].wallSeconds.toFixed(2)} s`)
      }
    }
  }
  return [...rows.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1))
}

async function droverAt(level: number, bucket: string, endpoint: string) {
  const target = `s3://${bucket}@us-east-1/${randomBytes(4).toString('hex')}/`
  const url = `${target}?backingImage=real`
  const env = environment(endpoint)
  const drover = (...args: string[]): CommandLine => ({
    argv: [DROVER, ...args, '--quiet', '--json'],
    env,
  })
  const [c, named] = [String(level), ['--target', target, '--name', 'real']]
  const backup = await measure(drover('backup', image, ...named, '--concurrency', c))
  rmSync(out, { force: true })
  const restore = await measure(drover('restore', url, out, '--concurrent-limit', c))
  // not in one go: the proxy is in this process
  await measure(drover('delete', url, '--min-age', '0'))
  return { backup, restore }
}

async function restic(bucket: string, endpoint: string) {
  const env = {
    RESTIC_REPOSITORY: `s3:${endpoint}/${bucket}/restic-${randomBytes(4).toString('hex')}`,
    RESTIC_PASSWORD: 'bench',
    RESTIC_CACHE_DIR: join(work, 'restic-cache'),
    AWS_ACCESS_KEY_ID: KEYS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: KEYS.secretAccessKey,
  }
  const folder = join(work, 'restic-out')
  await measure({ argv: ['restic', 'init', '-q'], env })
  const backup = await measure({ argv: ['restic', 'backup', '-q', image], env })
  const argv = ['restic', 'restore', '-q', '--verify', 'latest', '--target', folder]
  const restore = await measure({ argv, env })
  for (const made of [folder, env.RESTIC_CACHE_DIR]) rmSync(made, { recursive: true, force: true })
  return { backup, restore }
}

function environment(endpoint: string) {
  return {
    AWS_ENDPOINTS: endpoint,
    AWS_ACCESS_KEY_ID: KEYS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: KEYS.secretAccessKey,
  }
}

function describe(rows: readonly Row[]): string {
  const cells = rows.map(({ name, figures, toRestic }) => {
    const wall = spreadOf(figures.map(({ wallSeconds }) => wallSeconds))
    const cpu = spreadOf(
      figures.map(({ userSeconds, systemSeconds }) => userSeconds + systemSeconds),
    )
    return [
      name,
      `${wall.median.toFixed(2)} s`,
      `${wall.min.toFixed(2)}–${wall.max.toFixed(2)}`,
      `${(sizeMiB / wall.median).toFixed(0)} MiB/s`,
      `${cpu.median.toFixed(2)} s`,
      `${Math.max(...figures.map(({ peakMiB }) => peakMiB)).toFixed(0)} MiB`,
      requestsIn(figures[0]?.stdout ?? ''),
      toRestic.length > 0 ? `${spreadOf(toRestic).median.toFixed(2)}×` : '',
    ]
  })
  return table(
    ['', 'wall', 'spread', 'rate', 'cpu', 'peak memory', 'requests', 'faster than restic'],
    cells,
  )
}

function requestsIn(stdout: string): string {
  return stdout.startsWith('{') ? String(JSON.parse(stdout).requests?.total ?? '') : ''
}

/**
 * NFS: `npm run bench:nfs`. Two things are measured.
 *
 * What the helper process costs: the same work on a folder of this machine, in the process itself
 * and through a helper, in turn. And whole commands on an NFS share at several levels of concurrency:
 * a real server, and the kernel's own client in user-mode Linux, which has one slow processor. Its
 * numbers say how concurrency matters there, not how fast a machine is.
 *
 *   npm run bench:nfs -- [--runs N] [--levels 1,2,4] [--image-mib N]
 */
import { randomBytes } from 'node:crypto'
import { createReadStream, createWriteStream, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { BlockId } from '../src/backupstore/block.ts'
import type { RunId } from '../src/backupstore/layout.ts'
import { blockKey } from '../src/backupstore/layout.ts'
import type { ObjectStore } from '../src/backupstore/object-store.ts'
import { openFsStore } from '../src/storage/fs/fs-store.ts'
import { GRANT_MS, openRemoteStore } from '../src/storage/nfs/remote-store.ts'
import { startGanesha } from '../test/helpers/nfs/ganesha.ts'
import { HOST, runInUml } from '../test/helpers/nfs/uml.ts'
import { about } from './about.ts'
import { benchImage } from './image.ts'
import { spreadOf } from './measure.ts'
import { table } from './table.ts'

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    levels: { type: 'string', default: '1,2,4,8,16' },
    'image-mib': { type: 'string', default: '256' },
  },
})
const runs = Number(values.runs)
const BLOCKS = 300
const BLOCK_BYTES = 1_500_000
const LANES = 8
const work = mkdtempSync(join(tmpdir(), 'drover-bench-'))
/** In this order, as tests do it. */
const after: Array<() => unknown> = []

try {
  for (const [key, value] of Object.entries(about())) process.stdout.write(`${key}: ${value}\n`)
  process.stdout.write(`\n${await helperCost()}\n${await share()}`)
} finally {
  for (const release of after) await release()
  rmSync(work, { recursive: true, force: true })
}

/** Stages and publishes blocks, and reads them back. */
async function useStore(store: ObjectStore): Promise<{ writeMs: number; readMs: number }> {
  const bytes = randomBytes(BLOCK_BYTES)
  const keys = Array.from({ length: BLOCKS }, () =>
    blockKey(randomBytes(32).toString('hex') as BlockId),
  )
  const inLanes = async (use: (key: string) => Promise<unknown>) => {
    const rest = keys.values()
    const lane = async () => {
      for (const key of rest) await use(key)
    }
    await Promise.all(Array.from({ length: LANES }, lane))
  }
  const startMs = performance.now()
  const area = await store.openStaging?.()
  if (!area) throw new Error('no staging')
  await inLanes((key) => area.add(key, bytes))
  await area.publish(() => undefined)
  const wroteMs = performance.now()
  await inLanes((key) => store.readInto(key, Buffer.alloc(2 * 1024 * 1024)))
  return { writeMs: wroteMs - startMs, readMs: performance.now() - wroteMs }
}

async function helperCost(): Promise<string> {
  const run = () => randomBytes(8).toString('hex') as RunId
  const openers = {
    'in the process': (folder: string) => openFsStore(folder, run()),
    'through a helper': (folder: string) =>
      openRemoteStore({
        label: folder,
        place: { kind: 'folder', path: folder },
        run: run(),
        callTimeoutMs: 60_000,
        concurrency: LANES,
        grantMs: GRANT_MS,
      }),
  }
  const times = new Map<string, Array<{ writeMs: number; readMs: number; cpuMs: number }>>()
  for (let at = -1; at < runs; at++) {
    for (const [name, open] of Object.entries(openers)) {
      const folder = join(work, 'folder')
      rmSync(folder, { recursive: true, force: true })
      mkdirSync(folder)
      const store = await open(folder)
      const before = process.cpuUsage()
      const took = await useStore(store)
      const { user, system } = process.cpuUsage(before)
      await store.close()
      if (at < 0) continue // warms up
      times.set(name, [...(times.get(name) ?? []), { ...took, cpuMs: (user + system) / 1000 }])
    }
  }
  const rows = [...times].map(([name, took]) => {
    const of = (pick: (each: (typeof took)[number]) => number) => spreadOf(took.map(pick)).median
    const rate = (ms: number) =>
      `${((BLOCKS * BLOCK_BYTES) / 1024 ** 2 / (ms / 1000)).toFixed(0)} MiB/s`
    return [
      name,
      rate(of(({ writeMs }) => writeMs)),
      rate(of(({ readMs }) => readMs)),
      `${of(({ cpuMs }) => cpuMs).toFixed(0)} ms`,
    ]
  })
  const head = [`${BLOCKS} blocks of 1.5 MB`, 'stage and publish', 'read', 'cpu of the process']
  return table(head, rows)
}

async function share(): Promise<string> {
  const t = { after: (release: () => unknown) => void after.push(release) }
  const server = await startGanesha(t)
  const image = join(work, 'image.raw')
  const end = Number(values['image-mib']) * 1024 ** 2 - 1
  const whole = benchImage(join(tmpdir(), 'drover-bench-image'))
  await pipeline(createReadStream(whole, { end }), createWriteStream(image))
  const target = `nfs://${HOST}:/export?nfsOptions=port=${server.port},soft,timeo=300,actimeo=1`
  const guest = fileURLToPath(new URL('nfs-guest.mjs', import.meta.url))
  const { code, stdout, stderr } = await runInUml(
    [process.execPath, guest, target, image, values.levels],
    { timeoutMs: 1_200_000, env: { DROVER_MOUNT_DIR: '/run/drover/mounts' } },
  )
  if (code !== 0) throw new Error(`the guest ended with ${code}: ${stderr}`)
  const rows = stdout
    .trim()
    .split('\n')
    .map((line): [string, number] => JSON.parse(line))
    .map(([name, seconds]) => [
      name,
      `${seconds.toFixed(1)} s`,
      `${(Number(values['image-mib']) / seconds).toFixed(1)} MiB/s`,
    ])
  return table(['NFS, in user-mode Linux', 'wall', 'rate'], rows)
}

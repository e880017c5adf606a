/** A store in memory with a clock of its own, for tests of what removes things. */
import { createHash } from 'node:crypto'
import { BLOCK_BYTES } from '../../../src/backupstore/block.ts'
import type { BlockId } from '../../../src/backupstore/block.ts'
import { BlockMap } from '../../../src/backupstore/block-map.ts'
import { serializeConfig } from '../../../src/backupstore/config.ts'
import type { RunId } from '../../../src/backupstore/layout.ts'
import { blockKey, configKey } from '../../../src/backupstore/layout.ts'
import { readableName } from '../../../src/backupstore/names.ts'
import type { PruneStore } from '../../../src/backupstore/object-store.ts'
import { silentObserver } from '../../../src/backupstore/observer.ts'
import { parseBackupUrl } from '../../../src/backupstore/target-url.ts'
import { deleteBackup } from '../../../src/prune/delete.ts'
import { collectGarbage } from '../../../src/prune/gc.ts'
import type { GcRequest } from '../../../src/prune/gc.ts'
import type { StoreCall } from '../../../src/storage/memory/memory-store.ts'
import { openMemoryStore } from '../../../src/storage/memory/memory-store.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'

export const RUN = '00000000000000aa' as RunId
const HOUR_MS = 3_600_000
const STEP_MS = 100

export const blockId = (n: number): BlockId =>
  createHash('sha256').update(String(n)).digest('hex') as BlockId

/** A config as it is stored, of an image whose blocks are these. */
export function configBytes(name: string, blocks: readonly number[], completed = true): Buffer {
  const map = new BlockMap()
  for (const [index, n] of blocks.entries()) map.push(index, blockId(n))
  const body = serializeConfig({
    name: readableName(name),
    sizeBytes: Math.max(1, blocks.length) * BLOCK_BYTES,
    checksum: undefined,
    labels: {},
    compression: 'lz4',
    createdAt: '2026-01-01T00:00:00Z',
    completedAt: completed ? '2026-01-01T00:00:01Z' : '',
    secret: '',
    secretNamespace: '',
    unknown: {},
    blocks: map,
  })
  return Buffer.concat([...body.chunks()])
}

type Fault = (call: StoreCall, key: string) => Promise<void> | void

export function world() {
  const clock = new FakeClock()
  const faults: { now: Fault } = { now: () => undefined }
  const store = openMemoryStore({ clock, faults: (call, key) => faults.now(call, key) })
  const stop = new AbortController()
  let generation = -1
  const put = (key: string, bytes: Uint8Array, ageMs = HOUR_MS * 2) =>
    store.objects.set(key, {
      bytes: Buffer.from(bytes),
      modifiedAtMs: clock.wallMs() - ageMs,
      generation: generation--,
    })
  const addBlocks = (...blocks: number[]) => {
    for (const n of blocks) put(blockKey(blockId(n)), Buffer.from(`block ${n}`))
  }
  return {
    clock,
    faults,
    store,
    stop,
    put,
    addBlocks,
    addBackup(name: string, ...blocks: number[]) {
      addBlocks(...blocks)
      put(configKey(readableName(name)), configBytes(name, blocks))
    },
    /** The remains of a dead run. */
    addPlaceholder(name: string, ...blocks: number[]) {
      addBlocks(...blocks)
      put(configKey(readableName(name)), configBytes(name, blocks, false))
    },
    /** Numbers of the blocks that are there, below 100. */
    blocks: () =>
      Array.from({ length: 100 }, (_, n) => n).filter((n) =>
        store.objects.has(blockKey(blockId(n))),
      ),
    has: (name: string) => store.objects.has(configKey(readableName(name))),
    gc: (request: Partial<GcRequest> = {}, over: PruneStore = store) =>
      settled(clock, collectGarbage({ ...GC, ...request }, toolsOf(over, clock, stop.signal))),
    delete: (name: string, over: PruneStore = store) =>
      settled(
        clock,
        deleteBackup(
          {
            backup: parseBackupUrl(`vfs:///store?backingImage=${name}`),
            minAgeMs: 0,
            lockTimeoutMs: 0,
          },
          toolsOf(over, clock, stop.signal),
        ),
      ),
  }
}

const GC: GcRequest = {
  target: 'vfs:///store',
  dryRun: false,
  minAgeMs: HOUR_MS,
  lockTimeoutMs: 0,
  allowEmpty: false,
}

const toolsOf = (store: PruneStore, clock: FakeClock, signal: AbortSignal) => ({
  store,
  clock,
  run: RUN,
  signal,
  observer: silentObserver,
})

/** Lets time pass until it has settled, slowly enough for a store on a real disk. */
async function settled<T>(clock: FakeClock, work: Promise<T>): Promise<T> {
  const state = { over: false }
  const end = () => (state.over = true)
  work.then(end, end)
  while (!state.over) await clock.advance(STEP_MS)
  return work
}

/** Bad blocks: what looked bad, and what is bad after a second look under the lock. */
import type { Clock } from '../lib/clock.ts'
import { DroverError } from '../lib/errors.ts'
import { runLanes } from '../lib/lanes.ts'
import type { BlockId } from '../backupstore/block.ts'
import { BLOCK_BYTES, blockLength } from '../backupstore/block.ts'
import type { BlockMap } from '../backupstore/block-map.ts'
import { BlockTable } from '../backupstore/block-table.ts'
import type { StoredBackup } from '../backupstore/catalog.ts'
import type { BlockCompute } from '../backupstore/compute.ts'
import { configKey } from '../backupstore/layout.ts'
import type { Lock } from '../backupstore/lock.ts'
import type { ReadStore } from '../backupstore/object-store.ts'
import type { Observer } from '../backupstore/observer.ts'
import type { BlockReader, BlockState } from '../backupstore/read-block.ts'
import { readBlock, underLock } from '../backupstore/read-block.ts'

export interface VerifyTools {
  readonly store: ReadStore
  readonly compute: BlockCompute
  readonly clock: Clock
  readonly lock: Lock | undefined
  readonly signal: AbortSignal
  readonly observer: Observer
}

export interface BadBlock {
  readonly id: BlockId
  /** Where the block stands in the image. */
  readonly offsets: readonly number[]
}

export interface Bad {
  readonly missing: BadBlock[]
  readonly corrupt: Array<BadBlock & { reason: string }>
}

export const none = (): Bad => ({ missing: [], corrupt: [] })

/** Bad blocks are few; a store with nothing but bad ones still fits. */
export type Suspects = Map<BlockId, Exclude<BlockState, { state: 'good' }>>

/**
 * The second look: each suspect is read again under the lock, and the config must still be the
 * one that was verified.
 */
export async function confirm(
  found: StoredBackup,
  suspects: Suspects,
  tools: VerifyTools,
): Promise<Bad> {
  const { store, compute, lock, signal, observer } = tools
  const { blocks, sizeBytes, name } = found.backup
  observer.phase('looking again under the lock')
  await underLock(lock)
  const info = await store.stat(configKey(name), { signal })
  if (info?.version !== found.info.version) {
    throw new DroverError('STORE_CHANGED', `${name} was changed or deleted while it was verified`, {
      details: { name },
      retryable: true,
    })
  }
  const offsets = offsetsOf(blocks, suspects)
  const bad = none()
  const reader: BlockReader = { store, compute, strictness: 'frame', lock }
  await runLanes(compute.slots, suspects.keys(), signal, async (id, slot, laneSignal) => {
    const at = offsets.get(id) ?? []
    const length = blockLength(sizeBytes, (at[0] ?? 0) / BLOCK_BYTES)
    const state = await readBlock(reader, id, length, slot, laneSignal)
    if (state.state === 'missing') bad.missing.push({ id, offsets: at })
    if (state.state === 'corrupt') bad.corrupt.push({ id, offsets: at, reason: state.reason })
  })
  const byOffset = (a: BadBlock, b: BadBlock) => (a.offsets[0] ?? 0) - (b.offsets[0] ?? 0)
  bad.missing.sort(byOffset)
  bad.corrupt.sort(byOffset)
  return bad
}

function offsetsOf(blocks: BlockMap, suspects: Suspects): Map<BlockId, number[]> {
  const wanted = new BlockTable(suspects.size)
  for (const id of suspects.keys()) wanted.set(id, 0)
  const offsets = new Map<BlockId, number[]>()
  for (let entry = 0; entry < blocks.length; entry++) {
    if (!wanted.hasEntry(blocks, entry)) continue
    const id = blocks.idAt(entry)
    const at = offsets.get(id)
    if (at) at.push(blocks.offsetAt(entry))
    else offsets.set(id, [blocks.offsetAt(entry)])
  }
  return offsets
}

/** Bad blocks: what looked bad, and what is bad after a second look under the lock. */
import type { Clock } from '../lib/clock.ts'
import { DroverError } from '../lib/errors.ts'
import { runLanes } from '../lib/lanes.ts'
import type { BlockId } from '../backupstore/block.ts'
import { blockLength } from '../backupstore/block.ts'
import type { BlockMap } from '../backupstore/block-map.ts'
import type { BlockTable } from '../backupstore/block-table.ts'
import type { StoredBackup } from '../backupstore/catalog.ts'
import type { BlockCompute } from '../backupstore/compute.ts'
import { configKey } from '../backupstore/layout.ts'
import type { Lock } from '../backupstore/lock.ts'
import type { ReadStore } from '../backupstore/object-store.ts'
import type { Observer } from '../backupstore/observer.ts'
import type { BlockReader } from '../backupstore/read-block.ts'
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

/**
 * Blocks that looked bad, each with the value `UNSEEN`. In a store with nothing but bad ones they
 * are as many as the blocks of the image, so there is no object for each until the answer is made.
 */
export type Suspects = BlockTable

/** The values of suspects while they are looked at again. */
export const UNSEEN = 0
const GOOD = 1
const MISSING = 2
/** Plus the place of the reason among all reasons. */
const CORRUPT = 3

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
  const reasons = new Map<string, number>()
  const reader: BlockReader = { store, compute, strictness: 'frame', provenBy: 'id', lock }
  const again = entriesToSee(blocks, suspects)
  await runLanes(compute.slots, again, signal, async (entry, slot, laneSignal) => {
    const length = blockLength(sizeBytes, blocks.indexAt(entry))
    const state = await readBlock(reader, blocks.idAt(entry), length, slot, laneSignal)
    if (state.state === 'missing') suspects.setEntry(blocks, entry, MISSING)
    if (state.state === 'corrupt') {
      const place = reasons.get(state.reason) ?? reasons.size
      reasons.set(state.reason, place)
      suspects.setEntry(blocks, entry, CORRUPT + place)
    }
  })
  return answerOf(blocks, suspects, [...reasons.keys()])
}

/** One entry of each suspect, taken for good unless something else is found. */
function* entriesToSee(blocks: BlockMap, suspects: Suspects): Generator<number, void, undefined> {
  for (let entry = 0; entry < blocks.length; entry++) {
    if (suspects.getEntry(blocks, entry) !== UNSEEN) continue
    suspects.setEntry(blocks, entry, GOOD)
    yield entry
  }
}

/** What is bad, in the order in which it first stands in the image. */
function answerOf(blocks: BlockMap, suspects: Suspects, reasons: readonly string[]): Bad {
  const bad = none()
  // from here on the value of a bad block tells where its offsets are gathered
  const gathered: number[][] = []
  const firstGathered = CORRUPT + reasons.length
  for (let entry = 0; entry < blocks.length; entry++) {
    const verdict = suspects.getEntry(blocks, entry) ?? GOOD
    const offset = blocks.offsetAt(entry)
    if (verdict < MISSING) continue
    if (verdict >= firstGathered) {
      gathered[verdict - firstGathered]?.push(offset)
      continue
    }
    const found = { id: blocks.idAt(entry), offsets: [offset] }
    suspects.setEntry(blocks, entry, firstGathered + gathered.push(found.offsets) - 1)
    if (verdict === MISSING) bad.missing.push(found)
    else bad.corrupt.push({ ...found, reason: reasons[verdict - CORRUPT] ?? '' })
  }
  return bad
}

/** Reading one block of a store, proven by its id or later; and what is said when it cannot be. */
import { DroverError, isDroverError } from '../lib/errors.ts'
import type { BlockId } from './block.ts'
import type { ProvenBy, Strictness } from './compression.ts'
import type { BlockCompute, Slot } from './compute.ts'
import { blockKey } from './layout.ts'
import type { Lock } from './lock.ts'
import type { ReadStore } from './object-store.ts'

export type BlockState =
  | { readonly state: 'good' }
  | { readonly state: 'missing' }
  | { readonly state: 'corrupt'; readonly reason: string }

export interface BlockReader {
  readonly store: Pick<ReadStore, 'readInto'>
  readonly compute: Pick<BlockCompute, 'decode'>
  readonly strictness: Strictness
  readonly provenBy: ProvenBy
  /** Absent when the store may not be written to. */
  readonly lock: Lock | undefined
}

/** Reads a block to `slot.raw`. */
export async function readBlock(
  { store, compute, strictness, provenBy }: BlockReader,
  id: BlockId,
  length: number,
  slot: Slot,
  signal: AbortSignal,
): Promise<BlockState> {
  const stored = await readStored(store, id, slot, signal)
  if (typeof stored === 'string') return { state: 'corrupt', reason: stored }
  if (stored === undefined) return { state: 'missing' }
  if (stored > slot.stored.length) {
    return { state: 'corrupt', reason: `is ${stored} bytes, more than any block` }
  }
  const decoded = await compute.decode(slot, stored, { id, length, strictness, provenBy })
  return decoded.ok ? { state: 'good' } : { state: 'corrupt', reason: decoded.reason }
}

/** @returns the length, or why this one object cannot be read although the target can */
async function readStored(
  store: BlockReader['store'],
  id: BlockId,
  slot: Slot,
  signal: AbortSignal,
): Promise<number | string | undefined> {
  try {
    return await store.readInto(blockKey(id), slot.stored, { signal })
  } catch (error) {
    if (isDroverError(error, 'UNSAFE_PATH', 'TARGET_FORBIDDEN', 'OBJECT_UNREADABLE')) {
      return `cannot be read: ${error.message}`
    }
    throw error
  }
}

/**
 * As `readBlock`, but a bad answer is given only after a second look under the lock: what is
 * missing or half gone may be a deletion at work.
 */
export async function readBlockSurely(
  reader: BlockReader,
  id: BlockId,
  length: number,
  slot: Slot,
  signal: AbortSignal,
): Promise<BlockState> {
  const first = await readBlock(reader, id, length, slot, signal)
  if (first.state === 'good') return first
  await underLock(reader.lock)
  return readBlock(reader, id, length, slot, signal)
}

/**
 * Settles when the lock is held; at once without one, and where none can be written: on a store
 * that is read-only for us a second look is all there is.
 */
export async function underLock(lock: Lock | undefined): Promise<void> {
  try {
    await lock?.acquired
  } catch (error) {
    if (isDroverError(error, ...CANNOT_LOCK)) return
    throw error
  }
  lock?.assertHeld()
}

/** What says that a store may be read but not locked. */
export const CANNOT_LOCK = ['TARGET_READ_ONLY', 'TARGET_FORBIDDEN'] as const

/** @throws always: DroverError BLOCK_MISSING or BLOCK_CORRUPT */
export function throwBadBlock(
  state: Exclude<BlockState, { state: 'good' }>,
  id: BlockId,
  offset: number,
): never {
  const where = `block ${id} at offset ${offset}`
  const more = 'verify tells whether others are bad, too'
  const details = { id, offset, ...(state.state === 'corrupt' ? { reason: state.reason } : {}) }
  if (state.state === 'missing') {
    throw new DroverError('BLOCK_MISSING', `${where} is missing; ${more}`, { details })
  }
  throw new DroverError('BLOCK_CORRUPT', `${where} ${state.reason}; ${more}`, { details })
}

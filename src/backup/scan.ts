/**
 * One pass over an image: every block is read, its id found, and the whole file hashed on the way.
 * What becomes of each block is the business of `onBlock`, while its bytes are at hand.
 *
 * The hash of the file is serial, so a run can never end before one core has hashed every byte.
 * While all threads for blocks are busy, blocks are therefore only hashed, and put off; they are
 * read once more, from the page cache, when a thread is free: often beside the zeros that an image
 * ends with. A seal proves that both readings saw the same bytes. Where the threads keep up with
 * the hash, nothing is put off.
 *
 * The same is done with what cannot be written yet, because the lock is not held: by then its id is
 * known, and the hash of the file is far ahead.
 */
import { DroverError } from '../lib/errors.ts'
import { orAborted, runLanes } from '../lib/lanes.ts'
import type { BlockId, Checksum } from '../backupstore/block.ts'
import { BLOCK_BYTES, blockCount, blockLength } from '../backupstore/block.ts'
import { BlockMap } from '../backupstore/block-map.ts'
import type { BlockCompute, Slot } from '../backupstore/compute.ts'
import { isZero } from '../backupstore/zero-blocks.ts'
import type { ImageSource } from '../image/source.ts'
import { changed } from '../image/source.ts'
import type { LateBlock } from './put-off.ts'
import { PutOff } from './put-off.ts'

export interface Scan {
  readonly checksum: Checksum
  readonly blocks: BlockMap
  /** All blocks, zero ones included. */
  readonly total: number
}

export interface FoundBlock {
  readonly id: BlockId
  readonly index: number
  readonly length: number
  /** `raw` holds the block. */
  readonly slot: Slot
}

export interface ScanOptions {
  readonly source: ImageSource
  readonly compute: BlockCompute
  readonly signal: AbortSignal
  /** Blocks that may be put off: as many as the page cache surely still holds then. */
  readonly mostPutOff: number
  readonly onBlock: (block: FoundBlock, signal: AbortSignal) => Promise<void>
  /** Where `onBlock` may have to wait for more than a thread. */
  readonly early?: Early
  readonly onProgress: (bytes: number) => void
}

/** What cannot be written yet. */
export interface Early {
  /** Whether it is still too early for some. */
  isEarly(): boolean
  /** Whether `onBlock` would have to wait with this block. */
  mustWait(id: BlockId, length: number): Promise<boolean>
}

/** A block to be read: for the first time, or again with the seal of the first. */
type Visit =
  LateBlock | { readonly index: number; readonly seal?: undefined; readonly id?: undefined }

/** So many times more blocks may be put off while the lock is waited for. */
const WAITING_FOR_LOCK = 4

export async function scanImage(options: ScanOptions): Promise<Scan> {
  const { source, compute, onBlock, onProgress, early } = options
  const total = blockCount(source.sizeBytes)
  const hash = compute.openFileHash(options.signal)
  const found = new InOrder()
  // what waits for the lock waits for seconds; what waits for a thread may wait for the whole run
  const isEarly = () => early?.isEarly() ?? false
  const putOff = new PutOff(() => options.mostPutOff * (isEarly() ? WAITING_FOR_LOCK : 1))

  function* visits(): Generator<Visit, void, undefined> {
    for (let index = 0; index < total; index++) {
      for (let late; !compute.isBusy() && !isEarly() && (late = putOff.take());) yield late
      const { isBehind } = putOff
      yield { index }
      const late = isBehind ? putOff.take() : undefined
      if (late) yield late
    }
  }
  const visit = async ({ index, seal, id: known }: Visit, slot: Slot, signal: AbortSignal) => {
    const length = blockLength(source.sizeBytes, index)
    const bytes = slot.raw.subarray(0, length)
    await source.read(bytes, index * BLOCK_BYTES, signal)
    if (seal) {
      const id = known ?? (await compute.identifySealed(slot, length, seal))
      if (id === undefined || (known && !(await compute.isSealed(slot, length, seal)))) {
        throw changed(source.file, `its block at offset ${index * BLOCK_BYTES} is another one now`)
      }
      await onBlock({ id, index, length, slot }, signal)
      found.add(index, id)
    } else if (isZero(bytes)) {
      found.add(index, undefined)
      await orAborted(hash.addZeros(index, length), signal)
    } else if (compute.isBusy() && putOff.hasRoom) {
      putOff.add({ index, seal: await orAborted(hash.addAndSeal(index, slot, length), signal) })
      return
    } else if (early?.isEarly() && putOff.hasRoom) {
      const sealed = orAborted(hash.addAndSeal(index, slot, length), signal)
      sealed.catch(() => undefined) // awaited below, unless something else fails first
      const id = await compute.identify(slot, length)
      if (await early.mustWait(id, length)) {
        putOff.add({ index, seal: await sealed, id })
        return
      }
      await onBlock({ id, index, length, slot }, signal)
      found.add(index, id)
      await sealed
    } else {
      const hashed = orAborted(hash.addBlock(index, slot, length), signal)
      hashed.catch(() => undefined) // awaited below, unless something else fails first
      const id = await compute.identify(slot, length)
      await onBlock({ id, index, length, slot }, signal)
      found.add(index, id)
      await hashed
    }
    onProgress(length)
  }

  await runLanes(compute.slots, visits(), options.signal, visit)
  await runLanes(compute.slots, putOff.rest(), options.signal, visit)
  return { checksum: await hash.digest(), blocks: found.all(total), total }
}

/** Puts blocks that are done in nearly the right order into the right one. */
class InOrder {
  readonly #blocks = new BlockMap()
  readonly #early = new Map<number, BlockId | undefined>()
  #next = 0

  add(index: number, id: BlockId | undefined): void {
    this.#early.set(index, id)
    for (; this.#early.has(this.#next); this.#next++) {
      const ready = this.#early.get(this.#next)
      this.#early.delete(this.#next)
      if (ready !== undefined) this.#blocks.push(this.#next, ready)
    }
  }

  /** A block that got lost on the way must never become a hole of the backup. */
  all(total: number): BlockMap {
    if (this.#next !== total) {
      throw new DroverError('INTERNAL', `block ${this.#next} of ${total} was left out`)
    }
    return this.#blocks
  }
}

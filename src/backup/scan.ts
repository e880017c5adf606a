/**
 * One pass over an image: every block is read once, its id found, and the whole file hashed on
 * the way. What becomes of each block is the business of `onBlock`, while its bytes are at hand.
 */
import type { BlockId, Checksum } from '../backupstore/block.ts'
import { BLOCK_BYTES, blockCount, blockLength } from '../backupstore/block.ts'
import { BlockMap } from '../backupstore/block-map.ts'
import type { BlockCompute, Slot } from '../backupstore/compute.ts'
import type { ImageSource } from '../image/source.ts'
import { orAborted, runLanes } from '../lib/lanes.ts'

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
  readonly onBlock: (block: FoundBlock, signal: AbortSignal) => Promise<void>
  readonly onProgress: (bytes: number) => void
}

export async function scanImage(options: ScanOptions): Promise<Scan> {
  const { source, compute } = options
  const total = blockCount(source.sizeBytes)
  const hash = compute.openFileHash(options.signal)
  const inOrder = new InOrder()

  await runLanes(compute.slots, range(total), options.signal, async (index, slot, signal) => {
    const length = blockLength(source.sizeBytes, index)
    await source.read(slot.raw.subarray(0, length), index * BLOCK_BYTES, signal)
    const hashed = orAborted(hash.addBlock(index, slot, length), signal)
    hashed.catch(() => undefined) // awaited below, unless something else fails first
    const id = await compute.identify(slot, length)
    if (id !== undefined) await options.onBlock({ id, index, length, slot }, signal)
    inOrder.add(index, id)
    await hashed
    options.onProgress(length)
  })
  return { checksum: await hash.digest(), blocks: inOrder.blocks, total }
}

/** Puts blocks that are done in nearly the right order into the right one. */
class InOrder {
  readonly blocks = new BlockMap()
  readonly #early = new Map<number, BlockId | undefined>()
  #next = 0

  add(index: number, id: BlockId | undefined): void {
    this.#early.set(index, id)
    for (; this.#early.has(this.#next); this.#next++) {
      const ready = this.#early.get(this.#next)
      this.#early.delete(this.#next)
      if (ready !== undefined) this.blocks.push(this.#next, ready)
    }
  }
}

function* range(count: number): Generator<number, void, undefined> {
  for (let index = 0; index < count; index++) yield index
}

/**
 * Blocks that an image holds more than once. The store is asked for each only once, because that is
 * what takes time and costs money; further places are filled from the file being restored.
 */
import { orAborted } from '../lib/lanes.ts'
import type { BlockId } from '../backupstore/block.ts'
import { BLOCK_BYTES, blockLength } from '../backupstore/block.ts'
import type { BlockMap } from '../backupstore/block-map.ts'
import { BlockTable } from '../backupstore/block-table.ts'
import type { Backup } from '../backupstore/config.ts'
import type { Piece } from '../backupstore/pieces.ts'

type BlockPiece = Extract<Piece, { kind: 'block' }>

export class Repeats {
  readonly #sizeBytes: number
  readonly #repeated: BlockTable
  /** Where each of them stands first. */
  readonly #first = new BlockTable()
  readonly #writing = new Map<BlockId, PromiseWithResolvers<void>>()

  constructor({ blocks, sizeBytes }: Pick<Backup, 'blocks' | 'sizeBytes'>) {
    this.#sizeBytes = sizeBytes
    this.#repeated = repeatedIn(blocks)
  }

  /**
   * Whether a piece stands in the file already: waits until it does and tells where. Undefined when
   * it is to be read from the store; then `wrote` is to be called for it.
   */
  async placeOf(piece: BlockPiece, signal: AbortSignal): Promise<number | undefined> {
    const { id, offset, length } = piece
    if (!this.#repeated.has(id)) return undefined
    const first = this.#first.get(id)
    if (first === undefined) {
      this.#first.set(id, offset / BLOCK_BYTES)
      this.#writing.set(id, Promise.withResolvers())
      return undefined
    }
    // a config may say that a block is the short last one, too: that one is not this one's bytes
    if (length !== blockLength(this.#sizeBytes, first)) return undefined
    const writing = this.#writing.get(id)
    if (writing) await orAborted(writing.promise, signal)
    return first * BLOCK_BYTES
  }

  /** A piece that was read from the store stands in the file now. */
  wrote({ id }: BlockPiece): void {
    this.#writing.get(id)?.resolve()
    this.#writing.delete(id)
  }
}

function repeatedIn(blocks: BlockMap): BlockTable {
  const once = new BlockTable(blocks.length)
  const repeated = new BlockTable()
  for (let entry = 0; entry < blocks.length; entry++) {
    if (once.hasEntry(blocks, entry)) repeated.setEntry(blocks, entry, 0)
    else once.setEntry(blocks, entry, 0)
  }
  return repeated
}

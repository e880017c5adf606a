/** An image as a reader meets it: blocks and stretches of zeros, in the order of the file. */
import type { BlockId } from './block.ts'
import { BLOCK_BYTES, blockLength } from './block.ts'
import type { Backup } from './config.ts'

/** A part of the image; `order` counts them from the start of the file. */
export type Piece =
  | {
      readonly kind: 'block'
      readonly order: number
      readonly id: BlockId
      readonly offset: number
      readonly length: number
    }
  | { readonly kind: 'zeros'; readonly order: number; readonly length: number }

/** Zeros are hashed in pieces of this size, so that progress shows and cancelling is quick. */
const ZEROS_BYTES = 64 * 1024 * 1024

export function* piecesOf({
  blocks,
  sizeBytes,
}: Pick<Backup, 'blocks' | 'sizeBytes'>): Generator<Piece, void, undefined> {
  let order = 0
  let at = 0
  function* zerosUntil(end: number): Generator<Piece> {
    for (; at < end; at = Math.min(end, at + ZEROS_BYTES)) {
      yield { kind: 'zeros', order: order++, length: Math.min(ZEROS_BYTES, end - at) }
    }
  }
  for (let entry = 0; entry < blocks.length; entry++) {
    const offset = blocks.offsetAt(entry)
    yield* zerosUntil(offset)
    const length = blockLength(sizeBytes, offset / BLOCK_BYTES)
    yield { kind: 'block', order: order++, id: blocks.idAt(entry), offset, length }
    at = offset + length
  }
  yield* zerosUntil(sizeBytes)
}

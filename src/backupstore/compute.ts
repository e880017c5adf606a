/**
 * The port to where blocks are hashed, compressed and checked: heavy work that never runs on the
 * event loop. `compute/` implements it with threads.
 */
import type { BlockId, Checksum } from './block.ts'
import type { Compression, ProvenBy, Strictness } from './compression.ts'

/**
 * A pair of buffers that one lane works with; memory that threads share. `raw` holds a block,
 * `stored` what the store holds of it.
 */
export interface Slot {
  readonly index: number
  /** 2 MiB. */
  readonly raw: Buffer
  /** Room for the largest stored block, see MAX_STORED_BLOCK_BYTES. */
  readonly stored: Buffer
}

export type DecodeResult =
  | { readonly ok: true; readonly stored: Compression }
  | { readonly ok: false; readonly reason: string }

export interface BlockToDecode {
  readonly id: BlockId
  readonly length: number
  readonly strictness: Strictness
  readonly provenBy: ProvenBy
}

export interface BlockCompute {
  /** One for each lane. */
  readonly slots: readonly Slot[]

  /** The id of the first `length` bytes of `raw`; undefined when all of them are zero. */
  identify(slot: Slot, length: number): Promise<BlockId | undefined>

  /** Compresses the first `length` bytes of `raw` to `stored`; returns the stored length. */
  encode(slot: Slot, length: number, compression: Compression): Promise<number>

  /** Decodes `stored` to `raw`, and proves the id unless the file's hash is to prove the bytes. */
  decode(slot: Slot, storedLength: number, block: BlockToDecode): Promise<DecodeResult>

  /** A hash over a whole file, in a lane of its own. */
  openFileHash(signal: AbortSignal): FileHash
}

/** The SHA-512 of a file whose pieces may come in any order, each with its number. */
export interface FileHash {
  /** Settles when `raw` may be used again. */
  addBlock(order: number, slot: Slot, length: number): Promise<void>
  /** Adds zeros; settles when they are hashed. */
  addZeros(order: number, bytes: number): Promise<void>
  digest(): Promise<Checksum>
}

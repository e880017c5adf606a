/**
 * The port to where blocks are hashed, compressed and proven: heavy work that never runs on the
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

export interface Encoded {
  /** The stored length. */
  readonly bytes: number
  /** Base64. */
  readonly md5: string
}

export interface BlockToDecode {
  readonly id: BlockId
  readonly length: number
  readonly strictness: Strictness
  readonly provenBy: ProvenBy
}

export interface BlockCompute {
  /** One for each lane. */
  readonly slots: readonly Slot[]

  /** Whether every thread has a block to work on: another one would only wait in its slot. */
  isBusy(): boolean

  /** The id of the first `length` bytes of `raw`. */
  identify(slot: Slot, length: number): Promise<BlockId>

  /** As `identify`; undefined when the bytes are not those that were sealed. */
  identifySealed(slot: Slot, length: number, seal: Seal): Promise<BlockId | undefined>

  /** Whether the first `length` bytes of `raw` are those that were sealed. */
  isSealed(slot: Slot, length: number, seal: Seal): Promise<boolean>

  /** Compresses the first `length` bytes of `raw` to `stored`; returns the stored length. */
  encode(slot: Slot, length: number, compression: Compression): Promise<number>

  /** As `encode`, with the MD5 of what is stored, for a server that checks it. */
  encodeWithMd5(slot: Slot, length: number, compression: Compression): Promise<Encoded>

  /** Decodes `stored` to `raw`, and proves the id unless the file's hash is to prove the bytes. */
  decode(slot: Slot, storedLength: number, block: BlockToDecode): Promise<DecodeResult>

  /** A hash over a whole file, in a lane of its own. */
  openFileHash(signal: AbortSignal): FileHash
}

/**
 * What shows that bytes read twice are the same: a MAC (AES-GMAC, 128 bits) under a key that only
 * this run knows, so that not even who could choose the bytes finds others with the same seal.
 */
export interface Seal {
  readonly order: number
  /** Base64. */
  readonly mac: string
}

/** The SHA-512 of a file whose pieces may come in any order, each with its number. */
export interface FileHash {
  /** Settles when `raw` may be used again. */
  addBlock(order: number, slot: Slot, length: number): Promise<void>
  /** As `addBlock`, for bytes that will be read once more. */
  addAndSeal(order: number, slot: Slot, length: number): Promise<Seal>
  /** Adds zeros; settles when they are hashed. */
  addZeros(order: number, bytes: number): Promise<void>
  digest(): Promise<Checksum>
}

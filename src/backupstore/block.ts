/**
 * Blocks: an image file cut at multiples of 2 MiB. A block is known by its id, the first 64 hex
 * digits of the SHA-512 of its bytes. Blocks of zeros are never stored: what no entry of a backup
 * covers reads as zero.
 */
import { DroverError } from '../lib/errors.ts'

/** Bytes of every block but the last one of an image. */
export const BLOCK_BYTES = 2 * 1024 * 1024

/** Bytes of an id in memory; twice that in hex digits. */
export const BLOCK_ID_BYTES = 32
export const BLOCK_ID_WORDS = BLOCK_ID_BYTES / 4

/**
 * The largest stored object that can be a block. No codec makes 2 MiB grow by more than a few
 * hundred bytes; anything larger is not a block of ours and is not even read.
 */
export const MAX_STORED_BLOCK_BYTES = BLOCK_BYTES + 64 * 1024

/** The largest image a config may claim: 64 TiB, beyond any file system's largest file we meet. */
export const MAX_IMAGE_BYTES = 64 * 1024 ** 4

/** 64 lower-case hex digits. */
export type BlockId = string & { readonly __brand: 'BlockId' }
/** 128 lower-case hex digits: the SHA-512 of a whole image file. */
export type Checksum = string & { readonly __brand: 'Checksum' }

export const isBlockId = (text: string): text is BlockId => /^[0-9a-f]{64}$/.test(text)
export const isChecksum = (text: string): text is Checksum => /^[0-9a-f]{128}$/.test(text)

/**
 * A checksum given by a person or a config, upper or lower case.
 * @throws DroverError USAGE
 */
export function parseChecksum(text: string): Checksum {
  const lower = text.trim().toLowerCase()
  if (isChecksum(lower)) return lower
  throw new DroverError(
    'USAGE',
    `the checksum is not a SHA-512: expected 128 hex digits, got ${JSON.stringify(text.slice(0, 140))}`,
  )
}

/** How many blocks an image of `sizeBytes` has, zero ones included. */
export const blockCount = (sizeBytes: number): number => Math.ceil(sizeBytes / BLOCK_BYTES)

/** Bytes of the block with this index. */
export const blockLength = (sizeBytes: number, index: number): number =>
  Math.min(BLOCK_BYTES, sizeBytes - index * BLOCK_BYTES)

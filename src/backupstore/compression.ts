/** How blocks may be stored, and what tells one way from another. Doing it is `codec.ts`. */

export const COMPRESSIONS = ['lz4', 'gzip', 'none'] as const
export type Compression = (typeof COMPRESSIONS)[number]

/**
 * Longhorn falls back between lz4 and gzip when it reads, but not between those and raw bytes.
 * So raw and framed blocks may not meet in one config.
 */
export type Family = 'framed' | 'raw'
export const familyOf = (compression: Compression): Family =>
  compression === 'none' ? 'raw' : 'framed'

const LZ4_MAGIC = 0x184d2204

/** What the first bytes of a stored object look like. */
export function looksLike(head: Buffer): Compression {
  if (head.length >= HEAD_BYTES && head.readUInt32LE(0) === LZ4_MAGIC) return 'lz4'
  return head[0] === 0x1f && head[1] === 0x8b ? 'gzip' : 'none'
}

/** Bytes of the head of a stored object that `looksLike` needs. */
export const HEAD_BYTES = 4

/**
 * How much of a stored block must be right: its bytes, or also the checksums of its frame, which
 * Longhorn's reader checks and a restore can do without.
 */
export type Strictness = 'bytes' | 'frame'

/**
 * What shows that a decoded block is the right one: its id, at once, or the hash of the whole file,
 * in the end. The second saves hashing every byte twice; it finds that something is wrong, and only
 * ids tell what.
 */
export type ProvenBy = 'id' | 'file'

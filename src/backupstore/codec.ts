/**
 * How a block's bytes become a stored object and back. Codecs mix in one pool, so a stored object
 * is read by what it is: its first bytes tell a frame, and the id decides. (Raw data can begin
 * like a frame, too.)
 *
 * Everything here is synchronous and heavy: it runs in worker threads.
 */
import { createHash } from 'node:crypto'
import { gunzipSync, gzipSync } from 'node:zlib'
import { compressFrameSync } from 'lz4-napi'
import { systemCode } from '../lib/errors.ts'
import type { BlockId, Checksum } from './block.ts'
import { BLOCK_ID_BYTES } from './block.ts'
import type { Compression, ProvenBy, Strictness } from './compression.ts'
import { looksLike } from './compression.ts'
import { decodeLz4Frame } from './lz4-frame.ts'

export const blockIdOf = (bytes: Uint8Array): BlockId =>
  createHash('sha512')
    .update(bytes)
    .digest('hex')
    .slice(0, BLOCK_ID_BYTES * 2) as BlockId

export const checksumOf = (bytes: Uint8Array): Checksum =>
  createHash('sha512').update(bytes).digest('hex') as Checksum

/** A block as it is stored. With `none`, the very same bytes. */
export function encodeBlock(bytes: Buffer, compression: Compression): Buffer {
  switch (compression) {
    case 'lz4':
      return compressFrameSync(bytes, { contentChecksum: true })
    case 'gzip':
      return gzipSync(bytes)
    case 'none':
      return bytes
  }
}

export interface DecodeOptions {
  readonly strictness?: Strictness
  readonly provenBy?: ProvenBy
}

export type Decoded =
  | { readonly ok: true; readonly bytes: Buffer; readonly stored: Compression }
  | { readonly ok: false; readonly reason: string }

/**
 * The bytes of a stored block, of the right length, and proven by its id unless the file's hash is
 * to prove them. Never allocates more than a few LZ4 blocks (of 4 MiB) for output, whatever the
 * object says of itself. May overwrite parts of `stored`.
 */
export function decodeBlock(
  stored: Buffer,
  expectedBytes: number,
  id: BlockId,
  { strictness = 'frame', provenBy = 'id' }: DecodeOptions = {},
): Decoded {
  const strict = strictness === 'frame'
  if (stored.length === 0) return { ok: false, reason: 'is empty' }
  // A frame's decoding may write into `stored`; only raw bytes of the right length could still
  // be wanted after that.
  const raw = stored.length === expectedBytes
  const framed = looksLike(stored)
  const copy = raw && framed !== 'none' ? Buffer.from(stored) : stored
  // bytes of a whole block that look like a frame can be either: only the id tells which
  const later = provenBy === 'file' && (framed === 'none' || !raw)
  let reason = `is ${stored.length} bytes without a compression frame, expected ${expectedBytes}`
  if (framed !== 'none') {
    try {
      const bytes =
        framed === 'lz4'
          ? decodeLz4Frame(copy, expectedBytes, strict)
          : gunzipBounded(copy, expectedBytes, strict)
      if (later || blockIdOf(bytes) === id) return { ok: true, bytes, stored: framed }
      reason = `does not match its id after ${framed} decoding`
    } catch (error) {
      reason = error instanceof Error ? error.message : String(error)
    }
  }
  if (raw) {
    if (later || blockIdOf(stored) === id) return { ok: true, bytes: stored, stored: 'none' }
    if (framed === 'none') reason = 'does not match its id'
  }
  return { ok: false, reason }
}

function gunzipBounded(stored: Buffer, expectedBytes: number, strict: boolean): Buffer {
  let bytes: Buffer
  let consumed: number
  try {
    const options = { maxOutputLength: expectedBytes, info: true } as const
    const { buffer, engine } = gunzipSync(stored, options) as unknown as GunzipInfo
    bytes = buffer
    consumed = engine.bytesWritten
  } catch (error) {
    if (systemCode(error) !== 'ERR_BUFFER_TOO_LARGE') throw error
    throw new Error(`decodes to more than the ${expectedBytes} bytes expected`, { cause: error })
  }
  if (bytes.length !== expectedBytes) {
    throw new Error(`decodes to ${bytes.length} bytes, expected ${expectedBytes}`)
  }
  if (strict && consumed !== stored.length) {
    throw new Error(`has ${stored.length - consumed} bytes after its gzip data`)
  }
  return bytes
}

/** What `info: true` makes of the answer; the type declarations do not know it. */
interface GunzipInfo {
  readonly buffer: Buffer
  readonly engine: { readonly bytesWritten: number }
}

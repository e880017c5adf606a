/**
 * Reading LZ4 frames with a bound. The decoder of lz4-napi believes what a frame says of itself
 * and allocates as it goes; here a frame's real length is found out first, or the output is
 * bounded by its exact length. Source: the LZ4 frame format 1.6.x and block format descriptions.
 */
import { decompressFrameSync, uncompressSync } from 'lz4-napi'

const FLAG_BLOCK_CHECKSUM = 0x10
const FLAG_CONTENT_SIZE = 0x08
const FLAG_CONTENT_CHECKSUM = 0x04
const FLAG_DICTIONARY = 0x01
const UNCOMPRESSED_BIT = 0x80000000

interface DataBlock {
  /** Where its four length bytes are. */
  at: number
  length: number
  compressed: boolean
}

/**
 * Decodes one frame that must hold exactly `expectedBytes`. May overwrite parts of `frame`.
 * @param strict check the frame's own checksums too, as Longhorn's reader does
 * @throws Error with the reason
 */
export function decodeLz4Frame(frame: Buffer, expectedBytes: number, strict: boolean): Buffer {
  const blocks = dataBlocks(frame)
  const only = blocks[0]
  if (only && blocks.length === 1 && only.compressed && !strict) {
    // What Longhorn and we write: one block. Its four length bytes become the output length that
    // the raw decoder reads, so the output is bounded exactly and nothing is copied.
    frame.writeUInt32LE(expectedBytes, only.at)
    return exactly(
      uncompressSync(frame.subarray(only.at, only.at + 4 + only.length)),
      expectedBytes,
    )
  }
  if (only && blocks.length === 1 && !strict) {
    // incompressible: the bytes stand in the frame as they are
    return exactly(frame.subarray(only.at + 4, only.at + 4 + only.length), expectedBytes)
  }
  // The decoder gives no block more room than the 4 MiB that a frame's header can grant, so a frame
  // of one block, as Longhorn and we write it, is bounded as it is.
  if (only?.compressed && blocks.length === 1) return exactly(decodeWhole(frame), expectedBytes)
  let total = 0
  for (const block of blocks) {
    const data = frame.subarray(block.at + 4, block.at + 4 + block.length)
    total += block.compressed ? decodedLength(data) : data.length
    if (total > expectedBytes) {
      throw new Error(`decodes to more than the ${expectedBytes} bytes expected`)
    }
  }
  if (total !== expectedBytes) throw wrongLength(total, expectedBytes)
  return exactly(decodeWhole(frame), expectedBytes)
}

function decodeWhole(frame: Buffer): Buffer {
  try {
    return decompressFrameSync(frame)
  } catch (cause) {
    const said = cause instanceof Error ? cause.message : String(cause)
    throw new Error(`has a damaged LZ4 frame (${said})`, { cause })
  }
}

function exactly(output: Buffer, expectedBytes: number): Buffer {
  if (output.length !== expectedBytes) throw wrongLength(output.length, expectedBytes)
  return output
}

const wrongLength = (got: number, expected: number) =>
  new Error(`decodes to ${got} bytes, expected ${expected}`)

/** The data blocks of a frame, which must end where the bytes end. */
function dataBlocks(frame: Buffer): DataBlock[] {
  const flags = byteAt(frame, 4)
  if (flags >> 6 !== 1) throw new Error('is an LZ4 frame of an unknown version')
  if (flags & FLAG_DICTIONARY) throw new Error('needs an LZ4 dictionary')
  const blockChecksum = flags & FLAG_BLOCK_CHECKSUM ? 4 : 0
  const blocks: DataBlock[] = []
  let at = 7 + (flags & FLAG_CONTENT_SIZE ? 8 : 0)
  for (;;) {
    const word = wordAt(frame, at)
    if (word === 0) break
    const length = word & ~UNCOMPRESSED_BIT
    if (at + 4 + length + blockChecksum > frame.length) throw truncated()
    // `word` came through a signed operator: its top bit is the sign
    blocks.push({ at, length, compressed: word >= 0 })
    at += 4 + length + blockChecksum
  }
  const end = at + 4 + (flags & FLAG_CONTENT_CHECKSUM ? 4 : 0)
  if (end > frame.length) throw truncated()
  if (end < frame.length) throw new Error(`has ${frame.length - end} bytes after its LZ4 frame`)
  return blocks
}

/** How many bytes a compressed LZ4 block decodes to, without decoding it. */
function decodedLength(block: Buffer): number {
  let total = 0
  let at = 0
  const extended = (nibble: number): number => {
    if (nibble < 15) return nibble
    let length = nibble
    for (;;) {
      const more = byteAt(block, at)
      at += 1
      length += more
      if (more !== 255) return length
    }
  }
  while (at < block.length) {
    const token = byteAt(block, at)
    at += 1
    const literals = extended(token >> 4)
    at += literals
    total += literals
    if (at >= block.length) break // the last sequence has no match
    at += 2
    total += extended(token & 15) + 4
  }
  return total
}

const byteAt = (bytes: Buffer, at: number): number => {
  const byte = bytes[at]
  if (byte === undefined) throw truncated()
  return byte
}

const wordAt = (bytes: Buffer, at: number): number => {
  if (at + 4 > bytes.length) throw truncated()
  return bytes.readInt32LE(at)
}

const truncated = () => new Error('is cut off in its LZ4 frame')

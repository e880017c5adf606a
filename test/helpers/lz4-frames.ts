/** LZ4 frames made by hand: legal ones and such as nobody should send. */

const PRIME_1 = 0x9e3779b1
const PRIME_2 = 0x85ebca77
const PRIME_3 = 0xc2b2ae3d
const PRIME_4 = 0x27d4eb2f
const PRIME_5 = 0x165667b1

const rotate = (x: number, by: number) => (x << by) | (x >>> (32 - by))

/** xxHash32 of fewer than 16 bytes: enough for the header of a frame. */
function xxh32Short(bytes: Buffer): number {
  let hash = (PRIME_5 + bytes.length) | 0
  let at = 0
  for (; at + 4 <= bytes.length; at += 4) {
    hash = (hash + Math.imul(bytes.readInt32LE(at), PRIME_3)) | 0
    hash = Math.imul(rotate(hash, 17), PRIME_4)
  }
  for (; at < bytes.length; at++) {
    hash = (hash + Math.imul(bytes[at] ?? 0, PRIME_5)) | 0
    hash = Math.imul(rotate(hash, 11), PRIME_1)
  }
  hash = Math.imul(hash ^ (hash >>> 15), PRIME_2)
  hash = Math.imul(hash ^ (hash >>> 13), PRIME_3)
  return (hash ^ (hash >>> 16)) >>> 0
}

export interface FrameOptions {
  readonly version?: number
  readonly linked?: boolean
  readonly contentSize?: bigint
  readonly dictionary?: number
  /** 4 to 7: blocks of 64 KiB, 256 KiB, 1 MiB, 4 MiB. */
  readonly blockSize?: number
}

/** A data block as it stands in a frame. */
export interface DataBlock {
  readonly bytes: Buffer
  readonly compressed: boolean
}

/** A frame without a content checksum. */
export function frameOf(blocks: Iterable<DataBlock>, options: FrameOptions = {}): Buffer {
  const { version = 1, linked = false, contentSize, dictionary, blockSize = 7 } = options
  const flags =
    (version << 6) |
    (linked ? 0 : 0x20) |
    (contentSize === undefined ? 0 : 0x08) |
    (dictionary === undefined ? 0 : 0x01)
  const size = Buffer.alloc(contentSize === undefined ? 0 : 8)
  if (contentSize !== undefined) size.writeBigUInt64LE(contentSize)
  const dict = Buffer.alloc(dictionary === undefined ? 0 : 4)
  if (dictionary !== undefined) dict.writeUInt32LE(dictionary)
  const descriptor = Buffer.concat([Buffer.from([flags, blockSize << 4]), size, dict])
  const parts: Buffer[] = [
    Buffer.from([0x04, 0x22, 0x4d, 0x18]),
    descriptor,
    Buffer.from([(xxh32Short(descriptor) >>> 8) & 0xff]),
  ]
  for (const { bytes, compressed } of blocks) {
    const word = Buffer.alloc(4)
    word.writeUInt32LE((compressed ? bytes.length : bytes.length + 0x80000000) >>> 0)
    parts.push(word, bytes)
  }
  return Buffer.concat([...parts, Buffer.alloc(4)])
}

/** A compressed data block that decodes to so many zeros, in about one byte for 255. */
export function zerosBlock(length: number): DataBlock {
  // one literal zero, a match of distance 1 for the rest, five literals to end with
  const match = length - 6
  const extra = match - 4 - 15
  const bytes = Buffer.concat([
    Buffer.from([0x1f, 0, 1, 0]),
    Buffer.alloc(Math.floor(extra / 255), 255),
    Buffer.from([extra % 255]),
    Buffer.from([0x50, 0, 0, 0, 0, 0]),
  ])
  return { bytes, compressed: true }
}

/** Image files for tests: noise and text at given offsets, holes elsewhere. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'

export const MiB = 1024 * 1024
export const BLOCK = 2 * MiB

/** Bytes that do not compress and are the same on every machine (xorshift32). */
export function noise(seed: number, length: number): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4))
  let x = (seed >>> 0) * 2654435761 || 1
  for (let at = 0; at < words.length; at++) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    words[at] = x
  }
  return Buffer.from(words.buffer, 0, length)
}

/** Text that compresses well; another one for each seed. */
export function text(seed: number, length: number): Buffer {
  const lines: string[] = []
  for (let size = 0, n = 0; size < length; n++) {
    const line = `${seed} ${n} the quick brown fox jumps over ${(n * 7919) % 10007} lazy dogs\n`
    lines.push(line)
    size += line.length
  }
  return Buffer.from(lines.join('').slice(0, length))
}

export type Piece = readonly [offset: number, bytes: Buffer]

/** Writes a sparse file. */
export async function makeImage(path: string, size: number, pieces: readonly Piece[] = []) {
  const file = await open(path, 'w')
  await file.truncate(size)
  for (const [offset, bytes] of pieces) await file.write(bytes, 0, bytes.length, offset)
  await file.close()
}

export async function sha512(path: string): Promise<string> {
  const hash = createHash('sha512')
  for await (const chunk of createReadStream(path, { highWaterMark: MiB })) hash.update(chunk)
  return hash.digest('hex')
}

/** Bytes that a file takes on the disk: less than its size when it has holes. */
export const allocatedBytes = async (path: string): Promise<number> =>
  (await stat(path)).blocks * 512

import type { BlockId } from './block.ts'
import { BLOCK_BYTES, BLOCK_ID_BYTES, BLOCK_ID_WORDS } from './block.ts'

/**
 * Which block stands where in an image: entries in ascending order of offset, zero blocks left
 * out. Kept in two flat arrays (36 bytes an entry), because a 1 TiB image has half a million.
 */
export class BlockMap {
  #indices = new Uint32Array(64)
  #words = new Uint32Array(64 * BLOCK_ID_WORDS)
  #length = 0

  /** Entries, repeated blocks counted each time. */
  get length(): number {
    return this.#length
  }

  /** Appends an entry; the caller keeps the order ascending. */
  push(index: number, id: BlockId): void {
    if (this.#length === this.#indices.length) this.#grow()
    this.#indices[this.#length] = index
    bytesOf(this.#words).write(id, this.#length * BLOCK_ID_BYTES, 'hex')
    this.#length += 1
  }

  /** The block index of an entry: its offset divided by 2 MiB. */
  indexAt(entry: number): number {
    return this.#indices[entry] ?? 0
  }

  offsetAt(entry: number): number {
    return this.indexAt(entry) * BLOCK_BYTES
  }

  idAt(entry: number): BlockId {
    const at = entry * BLOCK_ID_BYTES
    return bytesOf(this.#words).toString('hex', at, at + BLOCK_ID_BYTES) as BlockId
  }

  /** The ids as they lie in memory, eight words each, for who compares many of them. */
  get words(): Uint32Array {
    return this.#words
  }

  equals(other: BlockMap): boolean {
    if (this.#length !== other.#length) return false
    for (let entry = 0; entry < this.#length; entry++) {
      if (this.#indices[entry] !== other.#indices[entry]) return false
    }
    const used = this.#length * BLOCK_ID_BYTES
    return bytesOf(this.#words).subarray(0, used).equals(bytesOf(other.#words).subarray(0, used))
  }

  #grow(): void {
    const indices = new Uint32Array(this.#indices.length * 2)
    indices.set(this.#indices)
    this.#indices = indices
    const words = new Uint32Array(this.#words.length * 2)
    words.set(this.#words)
    this.#words = words
  }
}

const bytesOf = (words: Uint32Array): Buffer => Buffer.from(words.buffer)

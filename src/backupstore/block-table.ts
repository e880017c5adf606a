import { randomBytes } from 'node:crypto'
import type { BlockId } from './block.ts'
import { BLOCK_ID_BYTES } from './block.ts'

const WORDS = BLOCK_ID_BYTES / 4
const EMPTY = 0xffffffff
const LARGEST_VALUE = EMPTY - 1

/**
 * A set of block ids with a number for each (a stored length, say), at 36 bytes a slot and at
 * most half full: a million blocks take about 75 MB, where a Map of strings takes several times
 * that. Open addressing with a seed of its own, so that ids chosen by an enemy do not collide.
 */
export class BlockTable {
  #slots: Uint32Array
  #values: Uint32Array
  #count = 0
  readonly #seed = randomBytes(4).readUInt32LE() | 1
  readonly #probe = new Uint32Array(WORDS)

  constructor(expected = 0) {
    const capacity = 2 ** Math.ceil(Math.log2(Math.max(16, expected * 2)))
    this.#slots = new Uint32Array(capacity * WORDS)
    this.#values = new Uint32Array(capacity).fill(EMPTY)
  }

  get size(): number {
    return this.#count
  }

  /** Adds an id or changes its value; values above 32 bits are cut to the largest one. */
  set(id: BlockId, value: number): void {
    if (this.#count * 2 >= this.#values.length) this.#grow()
    const slot = this.#find(id)
    if (this.#values[slot] === EMPTY) {
      this.#slots.set(this.#probe, slot * WORDS)
      this.#count += 1
    }
    this.#values[slot] = Math.min(value, LARGEST_VALUE)
  }

  get(id: BlockId): number | undefined {
    const value = this.#values[this.#find(id)]
    return value === EMPTY ? undefined : value
  }

  has(id: BlockId): boolean {
    return this.get(id) !== undefined
  }

  /** All ids with their values, in no order. Nothing may be added meanwhile. */
  *entries(): Generator<[BlockId, number], void, undefined> {
    for (let slot = 0; slot < this.#values.length; slot++) {
      const value = this.#values[slot] ?? EMPTY
      if (value === EMPTY) continue
      const words = this.#slots.subarray(slot * WORDS, (slot + 1) * WORDS)
      const id = Array.from(words, (word) => word.toString(16).padStart(8, '0')).join('')
      yield [id as BlockId, value]
    }
  }

  /** The slot that holds the id, or the free one where it belongs. Leaves the id in `#probe`. */
  #find(id: BlockId): number {
    const probe = this.#probe
    for (let word = 0; word < WORDS; word++) {
      probe[word] = Number.parseInt(id.slice(word * 8, word * 8 + 8), 16)
    }
    return this.#locate(this.#slots, this.#values, probe, 0)
  }

  #locate(slots: Uint32Array, values: Uint32Array, from: Uint32Array, at: number): number {
    const mask = values.length - 1
    let hash = this.#seed
    for (let word = 0; word < WORDS; word++) {
      hash = Math.imul(hash ^ (from[at + word] ?? 0), 0x9e3779b1)
      hash ^= hash >>> 15
    }
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      if (values[slot] === EMPTY) return slot
      let word = 0
      while (word < WORDS && slots[slot * WORDS + word] === from[at + word]) word++
      if (word === WORDS) return slot
    }
  }

  #grow(): void {
    const slots = new Uint32Array(this.#slots.length * 2)
    const values = new Uint32Array(this.#values.length * 2).fill(EMPTY)
    for (let slot = 0; slot < this.#values.length; slot++) {
      const value = this.#values[slot] ?? EMPTY
      if (value === EMPTY) continue
      const to = this.#locate(slots, values, this.#slots, slot * WORDS)
      slots.set(this.#slots.subarray(slot * WORDS, (slot + 1) * WORDS), to * WORDS)
      values[to] = value
    }
    this.#slots = slots
    this.#values = values
  }
}

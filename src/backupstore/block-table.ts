import { randomBytes } from 'node:crypto'
import type { BlockId } from './block.ts'
import { BLOCK_ID_WORDS as WORDS } from './block.ts'
import type { BlockMap } from './block-map.ts'

const EMPTY = 0xffffffff
const LARGEST_VALUE = EMPTY - 1

/**
 * A set of block ids with a number for each (a stored length, say), at 36 bytes a slot and at
 * most three quarters full: a million blocks take about 75 MB, where a Map of strings takes several times
 * that. Open addressing with a seed of its own, so that ids chosen by an enemy do not collide.
 */
export class BlockTable {
  #slots: Uint32Array
  #values: Uint32Array
  #count = 0
  readonly #seed = randomBytes(4).readUInt32LE() | 1
  readonly #probe = new Uint32Array(WORDS)
  readonly #probeBytes = Buffer.from(this.#probe.buffer)

  constructor(expected = 0) {
    const capacity = 2 ** Math.ceil(Math.log2(Math.max(16, expected * 1.5)))
    this.#slots = new Uint32Array(capacity * WORDS)
    this.#values = new Uint32Array(capacity).fill(EMPTY)
  }

  get size(): number {
    return this.#count
  }

  /** Adds an id or changes its value; values above 32 bits are cut to the largest one. */
  set(id: BlockId, value: number): void {
    this.#probeBytes.write(id, 'hex')
    this.#set(this.#probe, 0, value)
  }

  /** As `set`, for an entry of a map: without making its id a string. */
  setEntry(map: BlockMap, entry: number, value: number): void {
    this.#set(map.words, entry * WORDS, value)
  }

  get(id: BlockId): number | undefined {
    this.#probeBytes.write(id, 'hex')
    return this.#get(this.#probe, 0)
  }

  has(id: BlockId): boolean {
    return this.get(id) !== undefined
  }

  /** As `get`, for an entry of a map. */
  getEntry(map: BlockMap, entry: number): number | undefined {
    return this.#get(map.words, entry * WORDS)
  }

  /** As `has`, for an entry of a map. */
  hasEntry(map: BlockMap, entry: number): boolean {
    return this.#get(map.words, entry * WORDS) !== undefined
  }

  /** All ids with their values, in no order. Nothing may be added meanwhile. */
  *entries(): Generator<[BlockId, number], void, undefined> {
    for (let slot = 0; slot < this.#values.length; slot++) {
      const value = this.#values[slot] ?? EMPTY
      if (value === EMPTY) continue
      const at = slot * WORDS * Uint32Array.BYTES_PER_ELEMENT
      const bytes = Buffer.from(this.#slots.buffer, at, WORDS * Uint32Array.BYTES_PER_ELEMENT)
      yield [bytes.toString('hex') as BlockId, value]
    }
  }

  #set(from: Uint32Array, at: number, value: number): void {
    if (this.#count * 4 >= this.#values.length * 3) this.#grow()
    const slot = this.#locate(this.#slots, this.#values, from, at)
    if (this.#values[slot] === EMPTY) {
      for (let word = 0; word < WORDS; word++)
        this.#slots[slot * WORDS + word] = from[at + word] ?? 0
      this.#count += 1
    }
    this.#values[slot] = Math.min(value, LARGEST_VALUE)
  }

  #get(from: Uint32Array, at: number): number | undefined {
    const value = this.#values[this.#locate(this.#slots, this.#values, from, at)]
    return value === EMPTY ? undefined : value
  }

  /** The slot that holds the id at `from[at]`, or the free one where it belongs. */
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

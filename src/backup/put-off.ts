import type { BlockId } from '../backupstore/block.ts'
import type { Seal } from '../backupstore/compute.ts'

/** A block that was hashed with the file and is to be read again. */
export interface LateBlock {
  readonly index: number
  readonly seal: Seal
  /** Where there was time to find it. */
  readonly id?: BlockId
}

/**
 * Blocks put off, oldest first. Once there are as many as may be, they are caught up with, one for
 * each new block, until none is left: so none waits for long, the page cache still holds it, and an
 * image that keeps all threads busy to its end is not read twice as a whole.
 */
export class PutOff {
  readonly #most: () => number
  #late: LateBlock[] = []
  #catchingUp = false

  /** @param most may change while it fills */
  constructor(most: () => number) {
    this.#most = most
  }

  get hasRoom(): boolean {
    return !this.#catchingUp && this.#late.length < this.#most()
  }

  /** Whether the oldest is due although all threads are busy. */
  get isBehind(): boolean {
    return this.#catchingUp
  }

  add(block: LateBlock): void {
    this.#late.push(block)
    this.#catchingUp ||= this.#late.length >= this.#most()
  }

  take(): LateBlock | undefined {
    const oldest = this.#late.shift()
    if (this.#late.length === 0) this.#catchingUp = false
    return oldest
  }

  /** Empties it. */
  *rest(): Generator<LateBlock, void, undefined> {
    for (let late; (late = this.take());) yield late
  }
}

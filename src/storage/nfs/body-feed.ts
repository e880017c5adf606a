/** A body, cut into parts that fit the way to the helper. */
import { throwIfAborted } from '../../lib/errors.ts'
import type { Body } from '../../backupstore/object-store.ts'
import type { Part } from './messages.ts'
import type { WindowPool } from './window-pool.ts'
import { INLINE_BYTES, WINDOW_BYTES } from './windows.ts'

export class BodyFeed {
  readonly #chunks: Iterator<Uint8Array>
  readonly #signal: AbortSignal | undefined
  #rest: Uint8Array | undefined
  #ended = false

  constructor(body: Body, signal: AbortSignal | undefined) {
    this.#chunks = body.chunks()[Symbol.iterator]()
    this.#signal = signal
  }

  /** The next part, in a message. */
  async inline(): Promise<Part> {
    const bytes = Buffer.allocUnsafe(INLINE_BYTES)
    const { length, more } = await this.#fill(INLINE_BYTES, (piece, at) => bytes.set(piece, at))
    return { bytes: { kind: 'inline', bytes: bytes.subarray(0, length) }, more }
  }

  /** The next part, in a window. */
  async through(windows: WindowPool, window: number): Promise<Part> {
    const copy = (piece: Uint8Array, at: number) => windows.fill(window, piece, at)
    const { length, more } = await this.#fill(WINDOW_BYTES, copy)
    return { bytes: { kind: 'window', window, length }, more }
  }

  /** Lets go of a body that was not read to its end. */
  end(): void {
    if (!this.#ended) this.#chunks.return?.()
    this.#ended = true
  }

  /** Looks one chunk ahead, so that the last part is known to be the last. */
  async #fill(
    room: number,
    copy: (piece: Uint8Array, at: number) => Promise<void> | void,
  ): Promise<{ length: number; more: boolean }> {
    for (let length = 0; ;) {
      throwIfAborted(this.#signal)
      const chunk = this.#rest ?? this.#next()
      if (!chunk) return { length, more: false }
      this.#rest = chunk
      if (length === room) return { length, more: true }
      const piece = chunk.subarray(0, room - length)
      await copy(piece, length)
      length += piece.length
      this.#rest = piece.length < chunk.length ? chunk.subarray(piece.length) : undefined
    }
  }

  #next(): Uint8Array | undefined {
    if (this.#ended) return undefined
    const next = this.#chunks.next()
    if (next.done) this.#ended = true
    return next.done ? undefined : next.value
  }
}

/**
 * Blocks on their way between the processes: a nameless file in memory that both have open, cut
 * into numbered windows. Who makes a call takes a window for it; waiting for a free one is the
 * back-pressure. What is small travels with the message.
 */
import { read, write } from 'node:fs'
import { promisify } from 'node:util'
import { MAX_STORED_BLOCK_BYTES } from '../../backupstore/block.ts'
import { DroverError } from '../../lib/errors.ts'

export const WINDOW_BYTES = MAX_STORED_BLOCK_BYTES
/** The descriptor under which a helper finds them. */
export const WINDOWS_FD = 4
/** Up to here a message is cheaper than a window. */
export const INLINE_BYTES = 32 * 1024

/** Bytes, or where they are. */
export type Parcel =
  | { readonly kind: 'inline'; readonly bytes: Uint8Array }
  | { readonly kind: 'window'; readonly window: number; readonly length: number }

export const lengthOf = (parcel: Parcel): number =>
  parcel.kind === 'inline' ? parcel.bytes.length : parcel.length

const readAt = promisify(read)
const writeAt = promisify(write)

/** Copies bytes into a window, from its byte `at` on. */
export async function fillWindow(
  file: number,
  window: number,
  bytes: Uint8Array,
  at: number,
): Promise<void> {
  if (at + bytes.length > WINDOW_BYTES) throw new DroverError('INTERNAL', 'a window is too small')
  for (let done = 0; done < bytes.length;) {
    const position = window * WINDOW_BYTES + at + done
    const { bytesWritten } = await writeAt(file, bytes, done, bytes.length - done, position)
    done += bytesWritten
  }
}

/** Copies the beginning of a window to that of a buffer. */
export async function drainWindow(
  file: number,
  window: number,
  into: Uint8Array,
  length: number,
): Promise<void> {
  for (let done = 0; done < length;) {
    const position = window * WINDOW_BYTES + done
    const { bytesRead } = await readAt(file, into, done, length - done, position)
    if (bytesRead === 0) throw new DroverError('INTERNAL', 'a window holds too little')
    done += bytesRead
  }
}

/** The helper's side: a buffer of its own for each window, made when it is first needed. */
export class WindowBuffers {
  readonly #file: number
  readonly #buffers: Buffer[] = []

  constructor(file: number) {
    this.#file = file
  }

  /** Where the bytes for a window are made. Used by one call at a time, as the window is. */
  at(window: number): Buffer {
    return (this.#buffers[window] ??= Buffer.allocUnsafeSlow(WINDOW_BYTES))
  }

  /** The bytes stay valid until the next message about the same window. */
  async unpack(parcel: Parcel): Promise<Uint8Array> {
    if (parcel.kind === 'inline') return parcel.bytes
    const buffer = this.at(parcel.window)
    await drainWindow(this.#file, parcel.window, buffer, parcel.length)
    return buffer.subarray(0, parcel.length)
  }

  /** @param window needed for more than INLINE_BYTES */
  async pack(bytes: Uint8Array, window: number | undefined): Promise<Parcel> {
    if (window === undefined || bytes.length <= INLINE_BYTES) return { kind: 'inline', bytes }
    await fillWindow(this.#file, window, bytes, 0)
    return { kind: 'window', window, length: bytes.length }
  }
}

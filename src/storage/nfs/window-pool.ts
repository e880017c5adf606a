/** The store's side of the windows: who uses which. */
import { randomBytes } from 'node:crypto'
import { close, constants, openSync, unlinkSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DroverError, abortReason, throwIfAborted } from '../../lib/errors.ts'
import type { Parcel } from './windows.ts'
import { WINDOW_BYTES, drainWindow, fillWindow } from './windows.ts'

/** A container's memory file system has 64 MB unless somebody asked for more. */
const MOST_WINDOWS = 20
const IN_MEMORY = '/dev/shm'
const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants

/** @param concurrency blocks read or written at once */
export const windowsFor = (concurrency: number): number => Math.min(concurrency + 8, MOST_WINDOWS)

interface Waiter {
  readonly resolve: (window: number) => void
  readonly reject: (error: Error) => void
}

export class WindowPool {
  /** The descriptor that a helper is given. */
  readonly file: number
  readonly count: number
  readonly #free: number[]
  /** Users of each window: who took it, and calls that the helper has not answered. */
  readonly #users: number[]
  readonly #waiters = new Set<Waiter>()
  #failure: Error | undefined

  private constructor(file: number, count: number) {
    this.file = file
    this.count = count
    this.#free = Array.from({ length: count }, (_, window) => window)
    this.#users = this.#free.map(() => 0)
  }

  static async open(count: number): Promise<WindowPool> {
    return new WindowPool(await namelessFile(count * WINDOW_BYTES), count)
  }

  /** Lends a window to `work`, once one is free. */
  async lend<T>(signal: AbortSignal | undefined, work: (window: number) => Promise<T>): Promise<T> {
    const window = await this.#take(signal)
    try {
      return await work(window)
    } finally {
      this.#unuse(window)
    }
  }

  /** Keeps a window from being lent again until the helper cannot touch it any more. */
  keepUntil(window: number, over: Promise<unknown>): void {
    this.#use(window)
    const unuse = () => this.#unuse(window)
    over.then(unuse, unuse)
  }

  async fill(window: number, bytes: Uint8Array, at: number): Promise<void> {
    try {
      await fillWindow(this.file, window, bytes, at)
    } catch (cause) {
      if (cause instanceof DroverError) throw cause
      throw noRoom(cause)
    }
  }

  /** Copies what came to the start of a buffer. */
  async unpack(parcel: Parcel, into: Uint8Array): Promise<void> {
    if (parcel.kind === 'inline') into.set(parcel.bytes)
    else await drainWindow(this.file, parcel.window, into, parcel.length)
  }

  /** Fails those who wait; the file is closed when nobody uses it any more. */
  close(failure: Error): void {
    if (this.#failure) return
    this.#failure = failure
    for (const { reject } of this.#waiters) reject(failure)
    this.#waiters.clear()
    this.#closeIfUnused()
  }

  #take(signal: AbortSignal | undefined): Promise<number> {
    throwIfAborted(signal)
    return new Promise<number>((resolve, reject) => {
      if (this.#failure) return reject(this.#failure)
      const window = this.#free.pop()
      if (window !== undefined) {
        this.#use(window)
        return resolve(window)
      }
      const onAbort = () => {
        this.#waiters.delete(waiter)
        if (signal) reject(abortReason(signal))
      }
      const over = () => signal?.removeEventListener('abort', onAbort)
      const waiter: Waiter = {
        resolve(free) {
          over()
          resolve(free)
        },
        reject(error) {
          over()
          reject(error)
        },
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      this.#waiters.add(waiter)
    })
  }

  #use(window: number): void {
    this.#users[window] = (this.#users[window] ?? 0) + 1
  }

  #unuse(window: number): void {
    const left = (this.#users[window] ?? 0) - 1
    this.#users[window] = left
    if (left > 0) return
    const [next] = this.#waiters
    if (next) {
      this.#waiters.delete(next)
      this.#use(window)
      return next.resolve(window)
    }
    this.#free.push(window)
    this.#closeIfUnused()
  }

  #closeIfUnused(): void {
    if (!this.#failure || this.#free.length < this.count) return
    close(this.file, () => undefined)
  }
}

/** Memory where it has room; else a file that the page cache keeps in memory most of the time. */
async function namelessFile(sizeBytes: number): Promise<number> {
  const room = await statfs(IN_MEMORY).catch(() => undefined)
  if (room && room.bavail * room.bsize > 2 * sizeBytes) {
    try {
      return openNameless(IN_MEMORY)
    } catch {
      // not ours to write
    }
  }
  try {
    return openNameless(tmpdir())
  } catch (cause) {
    throw noRoom(cause)
  }
}

function openNameless(folder: string): number {
  const path = join(folder, `drover-${randomBytes(8).toString('hex')}`)
  const file = openSync(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
  unlinkSync(path)
  return file
}

const noRoom = (cause: unknown): DroverError =>
  new DroverError(
    'NO_SPACE',
    `no room for blocks on their way to the target, in ${IN_MEMORY} or ${tmpdir()}`,
    { cause },
  )

/** What a helper has open between two calls: listings and objects, read on when they are asked for. */
import { DroverError } from '../../lib/errors.ts'
import type { ObjectInfo } from '../../backupstore/object-store.ts'
import type { Part } from './messages.ts'
import type { CallContext } from './serve.ts'
import type { WindowBuffers } from './windows.ts'

/** A page is answered when it has so many objects, or took so long. */
const PAGE_OBJECTS = 500
const PAGE_MS = 1000

export interface ListCursor {
  readonly pages: AsyncIterator<readonly ObjectInfo[]>
  /** The call that turns the page now. */
  context: CallContext
}

export interface ReadCursor {
  readonly chunks: AsyncIterator<Uint8Array>
  leftBytes: number
}

/** Things that are open, by numbers that are never used twice. */
export class Numbered<T> {
  static #next = 0
  readonly #things = new Map<number, T>()

  add(thing: T): number {
    const number = Numbered.#next++
    this.#things.set(number, thing)
    return number
  }

  get(number: number): T {
    const thing = this.#things.get(number)
    if (thing === undefined) throw new DroverError('INTERNAL', `nothing is open as ${number}`)
    return thing
  }

  take(number: number): T | undefined {
    const thing = this.#things.get(number)
    this.#things.delete(number)
    return thing
  }

  takeAll(): T[] {
    const all = [...this.#things.values()]
    this.#things.clear()
    return all
  }
}

export async function nextPart(
  cursor: ReadCursor,
  windows: WindowBuffers,
  window: number | undefined,
): Promise<Part> {
  const next = await cursor.chunks.next()
  const chunk = next.done ? new Uint8Array() : next.value
  cursor.leftBytes -= chunk.length
  const more = !next.done && cursor.leftBytes > 0
  const bytes = await windows.pack(chunk, window)
  if (!more) await cursor.chunks.return?.() // closes the file
  return { bytes, more }
}

export async function nextPage({
  pages,
}: ListCursor): Promise<{ objects: ObjectInfo[]; more: boolean }> {
  const objects: ObjectInfo[] = []
  for (const endMs = performance.now() + PAGE_MS; ;) {
    const next = await pages.next()
    if (next.done) return { objects, more: false }
    objects.push(...next.value)
    if (objects.length >= PAGE_OBJECTS || performance.now() > endMs) return { objects, more: true }
  }
}

/** Bodies of answers and of requests. */
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DroverError } from '../../lib/errors.ts'
import type { Body } from '../../backupstore/object-store.ts'
import { Cut } from './call.ts'

/** Larger bodies are sent piece by piece instead of being put together in memory. */
const STREAM_FROM_BYTES = 8 * 1024 * 1024
/** Hashed in one go; the event loop gets a turn in between. */
const HASH_BYTES = 1024 * 1024

/**
 * Calls `use` with each piece of an answer's body.
 * @param expected its length as the server told it
 * @throws Cut when the body ends early
 */
export async function readBody(
  body: unknown,
  expected: number | undefined,
  signal: AbortSignal,
  use: (chunk: Uint8Array) => void,
): Promise<void> {
  for await (const chunk of piecesOf(body, expected, signal)) use(chunk)
}

/** The pieces of an answer's body; lets go of the connection when they are not all taken. */
export async function* piecesOf(
  body: unknown,
  expected: number | undefined,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  if (!(body instanceof Readable)) throw new DroverError('INTERNAL', 'an answer without a body')
  const cancel = () => body.destroy(signal.reason instanceof Error ? signal.reason : undefined)
  signal.addEventListener('abort', cancel, { once: true })
  let bytes = 0
  try {
    if (signal.aborted) cancel()
    for await (const chunk of body) {
      bytes += (chunk as Buffer).length
      yield chunk as Buffer
    }
  } catch (error) {
    throw new Cut(error)
  } finally {
    signal.removeEventListener('abort', cancel)
    body.destroy()
  }
  if (expected !== undefined && bytes !== expected) {
    throw new Cut(
      new DroverError(
        'TARGET_UNREACHABLE',
        `the server announced ${expected} bytes and sent ${bytes}`,
        { retryable: true },
      ),
    )
  }
}

/** Lets go of an answer whose body nobody wants. */
export function dropBody(body: unknown): void {
  if (body instanceof Readable) body.destroy()
}

/** MD5 of a body, base64. */
export async function md5Of(body: Body): Promise<string> {
  if (body.md5 !== undefined) return body.md5
  const hash = createHash('md5')
  let sinceTurn = 0
  for (const chunk of body.chunks()) {
    hash.update(chunk)
    sinceTurn += chunk.length
    if (sinceTurn < HASH_BYTES) continue
    sinceTurn = 0
    await nextTurn()
  }
  return hash.digest('base64')
}

/**
 * What is handed to the SDK: bytes that it can send again by itself, or a stream that only we can.
 * @param before called directly before the last piece of a stream, without which nothing appears
 * @throws DroverError INTERNAL when the body is not as long as it says
 */
export function outgoing(body: Body, before: () => void): Uint8Array | Readable {
  if (body.sizeBytes >= STREAM_FROM_BYTES) {
    return Readable.from(heldBack(body, before), { objectMode: false, highWaterMark: HASH_BYTES })
  }
  const [first, ...more] = body.chunks()
  const bytes = more.length > 0 ? Buffer.concat([first ?? [], ...more] as Uint8Array[]) : first
  requireSize(body, bytes?.length ?? 0)
  return bytes ?? new Uint8Array()
}

function* heldBack(body: Body, before: () => void): Generator<Uint8Array> {
  let size = 0
  let last: Uint8Array | undefined
  for (const chunk of body.chunks()) {
    if (last) yield last
    last = chunk
    size += chunk.length
  }
  requireSize(body, size)
  before()
  if (last) yield last
}

function requireSize({ sizeBytes }: Body, size: number): void {
  if (size === sizeBytes) return
  throw new DroverError('INTERNAL', `a body of ${size} bytes that said ${sizeBytes}`)
}

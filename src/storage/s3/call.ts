/** The frame of every call: a deadline, cancellation, another try after a cut, errors in our words. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { DroverError, abortReason, throwIfAborted } from '../../lib/errors.ts'
import { orAborted } from '../../lib/lanes.ts'
import { credentialsError, s3Error } from './errors.ts'

/** Slower than this is as good as not at all: bytes for each ms, 32 KiB/s. */
const SLOWEST_BYTES_PER_MS = 32

/** Tries of what the SDK does not repeat by itself: a body that was cut, a stream to send. */
const TRIES = 6
const FIRST_PAUSE_MS = 100

export interface CallFrame {
  /** Host and bucket, for errors. */
  readonly where: string
  readonly timeoutMs: number
  /** Has credentials at hand for the requests; asks nobody while those it has are good. */
  readonly credentials: () => Promise<unknown>
}

export interface Call {
  readonly doing: string
  readonly signal: AbortSignal | undefined
  /** What is to be transferred, at most; the deadline grows with it. */
  readonly bytes?: number
}

/**
 * Runs `work` until it succeeds or fails for good. It is called again, with the number of the try,
 * when it throws a `Cut`.
 * @throws DroverError TARGET_*, or the reason of the signal
 */
export type During = <T>(
  call: Call,
  work: (signal: AbortSignal, tries: number) => Promise<T>,
) => Promise<T>

export const openCalls =
  (frame: CallFrame): During =>
  (call, work) =>
    run(frame, call, work)

/** What the call that a request belongs to was held up by. */
const heldUp = new AsyncLocalStorage<{ by?: unknown }>()

/** Keeps what a request failed with before it is sent again: an overdue call tells the last one. */
export function noteFailure(error: unknown): void {
  const call = heldUp.getStore()
  if (call) call.by = error
}

async function run<T>(
  { where, timeoutMs, credentials }: CallFrame,
  { doing, signal, bytes = 0 }: Call,
  work: (signal: AbortSignal, tries: number) => Promise<T>,
): Promise<T> {
  throwIfAborted(signal)
  const deadlineMs = timeoutMs + bytes / SLOWEST_BYTES_PER_MS
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(), deadlineMs)
  const joined = signal ? AbortSignal.any([signal, late.signal]) : late.signal
  const held: { by?: unknown } = {}
  try {
    // the SDK asks for them deaf to the signal; once they are there, it asks no more
    await orAborted(credentials(), joined).catch((error: unknown) => {
      throw credentialsError(error, doing, where)
    })
    for (let tries = 1; ; tries++) {
      try {
        return await heldUp.run(held, () => work(joined, tries))
      } catch (error) {
        if (!(error instanceof Cut)) throw error
        held.by = error.cause
        if (tries === TRIES || joined.aborted) throw error.cause
        const pauseMs = Math.random() * FIRST_PAUSE_MS * 2 ** tries
        await delay(pauseMs, undefined, { signal: joined })
      }
    }
  } catch (error) {
    if (signal?.aborted) throw abortReason(signal)
    if (!late.signal.aborted) throw s3Error(error, doing, where)
    throw overdue(s3Error(held.by ?? error, doing, where), deadlineMs)
  } finally {
    clearTimeout(timer)
  }
}

/** What kept a call from its end until its time was over. */
function overdue(last: DroverError, deadlineMs: number): DroverError {
  const within = `${Math.round(deadlineMs / 1000)} s (DROVER_CALL_TIMEOUT)`
  return new DroverError(last.code, `${last.message}; it did not pass within ${within}`, {
    details: last.details,
    retryable: true,
    cause: last.cause,
  })
}

/** Thrown by the work of a call that may be tried once more; `cause` is what is told in the end. */
export class Cut extends Error {
  constructor(cause: unknown) {
    super('cut', { cause })
  }
}

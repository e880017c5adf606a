/** The frame of every call: a deadline, cancellation, another try after a cut, errors in our words. */
import { setTimeout as delay } from 'node:timers/promises'
import { DroverError, abortReason, throwIfAborted } from '../../lib/errors.ts'
import { s3Error } from './errors.ts'

/** Slower than this is as good as not at all: bytes for each ms, 32 KiB/s. */
const SLOWEST_BYTES_PER_MS = 32

/** Tries of what the SDK does not repeat by itself: a body that was cut, a stream to send. */
const TRIES = 6
const FIRST_PAUSE_MS = 100

export interface CallFrame {
  /** Host and bucket, for errors. */
  readonly where: string
  readonly timeoutMs: number
  /** What a request failed with since then (`performance.now()`), and was sent again for. */
  readonly failureSince: (ms: number) => unknown
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

async function run<T>(
  { where, timeoutMs, failureSince }: CallFrame,
  { doing, signal, bytes = 0 }: Call,
  work: (signal: AbortSignal, tries: number) => Promise<T>,
): Promise<T> {
  throwIfAborted(signal)
  const startedMs = performance.now()
  const deadlineMs = timeoutMs + bytes / SLOWEST_BYTES_PER_MS
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(), deadlineMs)
  const joined = signal ? AbortSignal.any([signal, late.signal]) : late.signal
  try {
    for (let tries = 1; ; tries++) {
      try {
        return await work(joined, tries)
      } catch (error) {
        if (!(error instanceof Cut)) throw error
        if (tries === TRIES || joined.aborted) throw error.cause
        const pauseMs = Math.random() * FIRST_PAUSE_MS * 2 ** tries
        await delay(pauseMs, undefined, { signal: joined })
      }
    }
  } catch (error) {
    if (signal?.aborted) throw abortReason(signal)
    if (!late.signal.aborted) throw s3Error(error, doing, where)
    throw overdue(s3Error(failureSince(startedMs) ?? error, doing, where), deadlineMs)
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

/**
 * When a request is sent once more: after what may pass, with growing, jittered pauses, until the
 * deadline of its call. The SDK's own strategy shares a budget of retries among all requests, which
 * a gateway that restarts under eight of them uses up before it is back.
 */
import type { S3ClientConfig } from '@aws-sdk/client-s3'
import { noteFailure } from './call.ts'
import { statusOf } from './errors.ts'

const FIRST_PAUSE_MS = 100
const FIRST_PAUSE_WHEN_THROTTLED_MS = 500
const LONGEST_PAUSE_MS = 5000
/** However much longer a server asks for. */
const LONGEST_ASKED_MS = 60_000
/** As long as the server never answered: its name may be wrong, which waiting does not mend. */
const TRIES_OF_A_STRANGER = 4

/** The SDK takes the server's time for a signature that was refused, and would do so for ever. */
const TRIES_OF_A_CLOCK = 3

/** Not implemented, no such version of HTTP, no space: the same answer would come again. */
const NEVER_PASS = [501, 505, 507]

type Strategy = Extract<
  NonNullable<S3ClientConfig['retryStrategy']>,
  { refreshRetryTokenForRetry: unknown }
>

/** @param hasAnswered whether the server ever said anything */
export function retryUntilDeadline(hasAnswered: () => boolean): Strategy {
  return {
    acquireInitialRetryToken: () => Promise.resolve(token(0, 0)),
    recordSuccess: () => undefined,
    refreshRetryTokenForRetry(before, { error, errorType, retryAfterHint }) {
      const tries = before.getRetryCount() + 1
      if (errorType === 'CLIENT_ERROR' || NEVER_PASS.includes(statusOf(error) ?? 0)) {
        return Promise.reject(new Error('it would fail again'))
      }
      if (tries >= TRIES_OF_A_CLOCK && statusOf(error) === 403) {
        return Promise.reject(new Error('the clock was set right in vain'))
      }
      if (tries >= TRIES_OF_A_STRANGER && !hasAnswered()) {
        return Promise.reject(new Error('nobody answers'))
      }
      const first = errorType === 'THROTTLING' ? FIRST_PAUSE_WHEN_THROTTLED_MS : FIRST_PAUSE_MS
      const pauseMs = Math.random() * Math.min(LONGEST_PAUSE_MS, first * 2 ** tries)
      noteFailure(error)
      return Promise.resolve(token(tries, Math.max(pauseMs, askedMs(retryAfterHint))))
    },
  }
}

function askedMs(until: Date | undefined): number {
  if (!until) return 0
  const ms = until.getTime() - Date.now()
  // a time that no Date can hold
  return Number.isNaN(ms) ? LONGEST_ASKED_MS : Math.min(LONGEST_ASKED_MS, ms)
}

const token = (tries: number, pauseMs: number) => ({
  getRetryCount: () => tries,
  getRetryDelay: () => pauseMs,
  getRetryCost: () => undefined,
})

import { setTimeout as delay } from 'node:timers/promises'
import { abortReason } from './errors.ts'

/** Time, passed in wherever it decides something. */
export interface Clock {
  /** Milliseconds that never run backwards; only differences mean something. */
  monotonicMs(): number
  /** Milliseconds since 1970, UTC. */
  wallMs(): number
  /** Settles after `ms`; rejects with the signal's reason when it is aborted before. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  async sleep(ms, signal) {
    try {
      await delay(ms, undefined, signal ? { signal } : {})
    } catch (error) {
      if (signal?.aborted) throw abortReason(signal)
      throw error
    }
  },
}

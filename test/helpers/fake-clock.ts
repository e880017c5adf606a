import type { Clock } from '../../src/lib/clock.ts'
import { abortReason } from '../../src/lib/errors.ts'

/** Time that moves only when told to; sleepers wake in order as it passes them. */
export class FakeClock implements Clock {
  #nowMs: number
  readonly #epochMs: number
  readonly #sleepers = new Set<{ untilMs: number; wake: () => void }>()

  constructor(epochMs = Date.UTC(2026, 0, 1)) {
    this.#nowMs = 0
    this.#epochMs = epochMs
  }

  monotonicMs = (): number => this.#nowMs
  wallMs = (): number => this.#epochMs + this.#nowMs

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(abortReason(signal))
      const onAbort = () => {
        this.#sleepers.delete(sleeper)
        reject(signal ? abortReason(signal) : new Error('aborted'))
      }
      const sleeper = {
        untilMs: this.#nowMs + ms,
        wake: () => {
          signal?.removeEventListener('abort', onAbort)
          resolve()
        },
      }
      this.#sleepers.add(sleeper)
      signal?.addEventListener('abort', onAbort, { once: true })
    })
  }

  /** Moves time, letting everything that wakes on the way run to its next sleep. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms
    await settle()
    for (;;) {
      const next = [...this.#sleepers].sort((a, b) => a.untilMs - b.untilMs)[0]
      if (!next || next.untilMs > endMs) break
      this.#sleepers.delete(next)
      this.#nowMs = Math.max(this.#nowMs, next.untilMs)
      next.wake()
      await settle()
    }
    this.#nowMs = endMs
    await settle()
  }

  /** Jumps without waking anybody: what a frozen process sees when it is thawed. */
  jump(ms: number): void {
    this.#nowMs += ms
  }
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
}

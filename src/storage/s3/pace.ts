/** How many blocks travel at once: fewer as soon as the server asks for that, more again slowly. */
import pLimit from 'p-limit'

/** Answers without a complaint after which one more is tried. */
const PATIENCE = 16

export interface Pace {
  readonly transfers: <T>(work: () => Promise<T>) => Promise<T>
  throttled(): void
  succeeded(): void
}

export function openPace(most: number): Pace {
  const limit = pLimit(most)
  let good = 0
  return {
    transfers: (work) => limit(work),
    throttled() {
      limit.concurrency = Math.max(1, Math.floor(limit.concurrency / 2))
      good = 0
    },
    succeeded() {
      if (limit.concurrency === most || ++good < PATIENCE) return
      good = 0
      limit.concurrency += 1
    },
  }
}

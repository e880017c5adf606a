/** How fast a target is: many transfers at once, as many as fit into a moment. */
import { runLanes } from '../../lib/lanes.ts'

export interface Pace {
  readonly bytes: number
  readonly ms: number
  readonly transfers: number
}

export interface Course {
  /** Transfers at once. */
  readonly lanes: number
  readonly most: number
  /** None is begun when so much time has passed. */
  readonly budgetMs: number
}

/** @param transfer moves something and returns how many bytes it had */
export async function paceOf(
  { lanes, most, budgetMs }: Course,
  signal: AbortSignal,
  transfer: (number: number, signal: AbortSignal) => Promise<number>,
): Promise<Pace> {
  const startMs = performance.now()
  const passedMs = () => performance.now() - startMs
  let bytes = 0
  let transfers = 0
  function* numbers() {
    for (let number = 0; number < most && (number < lanes || passedMs() < budgetMs); number++) {
      yield number
    }
  }
  const all = Array.from({ length: lanes }, (_, lane) => lane)
  await runLanes(all, numbers(), signal, async (number, _lane, joined) => {
    const moved = await transfer(number, joined)
    bytes += moved
    transfers += 1
  })
  return { bytes, ms: passedMs(), transfers }
}

const MIB = 1024 * 1024

/** With a decimal where it says something. */
export function mibPerSecond({ bytes, ms }: Pick<Pace, 'bytes' | 'ms'>): number {
  const rate = ms > 0 ? bytes / MIB / (ms / 1000) : 0
  return rate < 10 ? Number(rate.toPrecision(2)) : Math.round(rate)
}

export const rateOf = (pace: Pick<Pace, 'bytes' | 'ms'>): string => `${mibPerSecond(pace)} MiB/s`

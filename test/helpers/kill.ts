/** Ends a drover process without warning, at a moment of the test's choice. */
import { setTimeout } from 'node:timers/promises'
import type { Outcome } from './drover.ts'
import { startDrover } from './drover.ts'
import type { Step } from './preloads.ts'
import { stoppingAt } from './preloads.ts'

export type Moment =
  /** So long after the start of the process. */
  | { readonly kind: 'time'; readonly ms: number }
  /** Once something shows on the disk, and a little later. */
  | {
      readonly kind: 'event'
      readonly what: string
      readonly seen: () => boolean
      readonly thenMs: number
    }
  /** At a call that changes the disk. */
  | { readonly kind: 'step'; readonly step: Step }

export const describeMoment = (moment: Moment): string => {
  switch (moment.kind) {
    case 'time':
      return `${moment.ms} ms after the start`
    case 'event':
      return `${moment.thenMs} ms after ${moment.what}`
    case 'step': {
      const { when, call, path, nth } = moment.step
      return `${when} ${call} ${path ?? ''} no. ${nth}`
    }
  }
}

/** Runs a command and kills it, if it lives until then. */
export async function runAndKill(args: readonly string[], moment: Moment): Promise<Outcome> {
  const { child, done } = startDrover(
    args,
    moment.kind === 'step' ? { env: stoppingAt(moment.step) } : {},
  )
  const over = new AbortController()
  const killed = kill()
  try {
    return await done
  } finally {
    over.abort()
    await killed
  }

  // `bin/drover` becomes the node process, so this is its pid
  async function kill(): Promise<void> {
    if (moment.kind === 'step') return // it kills itself
    try {
      if (moment.kind === 'time') {
        await setTimeout(moment.ms, undefined, { signal: over.signal })
      } else {
        while (!moment.seen()) await setTimeout(1, undefined, { signal: over.signal })
        if (moment.thenMs > 0) await setTimeout(moment.thenMs, undefined, { signal: over.signal })
      }
      child.kill('SIGKILL')
    } catch (error) {
      if (!over.signal.aborted) throw error
    }
  }
}

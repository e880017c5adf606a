/** What can be loaded into a drover process before it starts: environments for `startDrover`. */

/** A moment in the life of a process: a call that changes files. */
export interface Step {
  /** A function of node:fs/promises, or `handle.` and a method of its file handles. */
  readonly call: string
  /** A regular expression; only calls with such a path count. */
  readonly path?: string
  /** Which one of these calls, from 1. */
  readonly nth: number
  readonly when: 'before' | 'during' | 'after'
  /** A signal to the process itself; `hang` never returns from the call. */
  readonly action: NodeJS.Signals | 'hang'
  /** A file that appears when the process hangs. */
  readonly marker?: string
}

export interface Measured {
  /** Of all threads, from the start of the process. */
  readonly peakMemoryBytes: number
  /** The longest time in which the event loop did not turn, once the work began. */
  readonly longestDelayMs: number
  /** The most processor time that the main thread took before the event loop turned again. */
  readonly longestTurnMs: number
  /** Processor time of the main thread, and of all, once the work began. */
  readonly mainThreadSeconds: number
  readonly cpuSeconds: number
}

const preload = (name: string): string =>
  `--import=${new URL(`./preload/${name}.mjs`, import.meta.url).href}`

export const stoppingAt = (step: Step): Record<string, string> => ({
  NODE_OPTIONS: preload('stop-at'),
  DROVER_TEST_STEP: JSON.stringify(step),
})

/** `report` will hold `Measured` as JSON when the process is over. */
export const measuredIn = (report: string): Record<string, string> => ({
  NODE_OPTIONS: preload('measure'),
  DROVER_TEST_MEASURE: report,
})

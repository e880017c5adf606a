/**
 * A target looked over as a list of named steps, one after the other. A step that cannot be made
 * says why and what to do about it; those that need it are skipped. None can hang: each has a
 * deadline. What removes the traces runs in the end, whatever happened, an interruption included.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { formatDuration } from '../../lib/duration.ts'
import { DroverError, throwIfAborted } from '../../lib/errors.ts'
import { orAborted } from '../../lib/lanes.ts'
import type { RequestCounts } from '../../backupstore/object-store.ts'

export type Verdict = 'ok' | 'warning' | 'failed' | 'skipped'

export interface Finding {
  readonly verdict: Verdict
  /** What was found, for a person. */
  readonly message: string
  /** What to do about it. */
  readonly hint?: string
  /** The same for a program; never a secret. */
  readonly details?: Readonly<Record<string, unknown>>
}

export interface StepResult extends Finding {
  readonly name: string
  readonly ms: number
}

export interface Step {
  readonly name: string
  /** Steps that it makes no sense without. */
  readonly needs?: readonly string[]
  /** What it may take beyond the deadline, for what it transfers. */
  readonly extraMs?: number
  /** Removes traces: runs whatever happened before. */
  readonly always?: true
  readonly hintFor: (error: DroverError) => string
  /** Whether a failure leaves no sense in the steps that need this one; by default it does not. */
  readonly hinders?: (error: DroverError) => boolean
  /** What it throws is its failure. */
  run(signal: AbortSignal): Promise<Finding>
}

/** What a driver offers to have its target looked over. */
export interface Probe {
  readonly steps: readonly Step[]
  readonly requests?: () => RequestCounts
  close(): Promise<void> | void
}

/** Told what goes on. */
export interface StepWatch {
  begin(name: string): void
  end(result: StepResult): void
}

export interface StepLimits {
  readonly deadlineMs: number
  readonly signal: AbortSignal
}

/** A step that is cancelled gets so long to let go, before its traces are removed. */
const SETTLE_MS = 2000

/** @throws DroverError the signal's reason, when what must be done in the end is done */
export async function runSteps(
  steps: readonly Step[],
  limits: StepLimits,
  watch: StepWatch,
): Promise<StepResult[]> {
  const results: StepResult[] = []
  const hindered = new Map<string, string>()
  for (const step of steps) {
    if (limits.signal.aborted && !step.always) continue
    const needs = step.always ? [] : (step.needs ?? [])
    const cause = needs.map((name) => hindered.get(name)).find((name) => name !== undefined)
    watch.begin(step.name)
    const outcome = cause === undefined ? await runStep(step, limits) : skippedFor(step, cause)
    if (!outcome) continue
    if (outcome.hinders) hindered.set(step.name, cause ?? step.name)
    results.push(outcome.result)
    watch.end(outcome.result)
  }
  throwIfAborted(limits.signal)
  return results
}

interface Outcome {
  readonly result: StepResult
  readonly hinders: boolean
}

const skippedFor = ({ name }: Step, cause: string): Outcome => ({
  result: { name, verdict: 'skipped', message: `not tried, because ${cause} failed`, ms: 0 },
  hinders: true,
})

/** @returns undefined for a step that was interrupted */
async function runStep(step: Step, limits: StepLimits): Promise<Outcome | undefined> {
  const { name } = step
  const startMs = performance.now()
  const ms = () => Math.round(performance.now() - startMs)
  const deadlineMs = limits.deadlineMs + (step.extraMs ?? 0)
  const late = AbortSignal.timeout(deadlineMs)
  const signal = step.always ? late : AbortSignal.any([limits.signal, late])
  try {
    const finding = await settledOr(step.run(signal), signal, Math.min(SETTLE_MS, deadlineMs))
    return { result: { name, ...finding, ms: ms() }, hinders: finding.verdict === 'failed' }
  } catch (error) {
    if (limits.signal.aborted && !step.always) return undefined
    const failure = late.aborted ? overdue(deadlineMs, error) : asDroverError(error)
    const { message, code, details } = failure
    const hint = late.aborted ? OVERDUE_HINT : step.hintFor(failure)
    const finding = { verdict: 'failed', message, hint, details: { code, ...details } } as const
    return { result: { name, ...finding, ms: ms() }, hinders: step.hinders?.(failure) ?? true }
  }
}

async function settledOr<T>(work: Promise<T>, signal: AbortSignal, settleMs: number): Promise<T> {
  try {
    return await orAborted(work, signal)
  } catch (error) {
    if (signal.aborted) await settled(work, settleMs)
    throw error
  }
}

async function settled(work: Promise<unknown>, ms: number): Promise<void> {
  const enough = new AbortController()
  const waited = delay(ms, undefined, { signal: enough.signal }).catch(() => undefined)
  await Promise.race([work.catch(() => undefined), waited])
  enough.abort()
}

const OVERDUE_HINT =
  'see whether the target hangs or is only slow; DROVER_CALL_TIMEOUT gives it more time'

const overdue = (ms: number, cause: unknown): DroverError =>
  new DroverError('TARGET_UNREACHABLE', `no end within ${formatDuration(ms)}`, { cause })

function asDroverError(error: unknown): DroverError {
  if (error instanceof DroverError) return error
  const message = error instanceof Error ? error.message : String(error)
  return new DroverError('INTERNAL', `an error in Drover itself: ${message}`, { cause: error })
}

/** The one place that puts the parts together: a run with its store, its threads and its end. */
import { randomBytes } from 'node:crypto'
import { availableParallelism, totalmem } from 'node:os'
import { BLOCK_BYTES } from './backupstore/block.ts'
import type { RunId } from './backupstore/layout.ts'
import type { Lock } from './backupstore/lock.ts'
import { openLock } from './backupstore/lock.ts'
import type { ObjectStore, RequestCounts } from './backupstore/object-store.ts'
import type { Observer } from './backupstore/observer.ts'
import { CANNOT_LOCK } from './backupstore/read-block.ts'
import type { TargetUrl } from './backupstore/target-url.ts'
import type { Compute } from './compute/pool.ts'
import { openCompute } from './compute/pool.ts'
import type { Clock } from './lib/clock.ts'
import { systemClock } from './lib/clock.ts'
import { storageSettings } from './config.ts'
import { isDroverError } from './lib/errors.ts'
import { withReleasers } from './lib/releasers.ts'
import type { Diagnosis } from './storage/doctor/doctor.ts'
import { diagnose } from './storage/doctor/doctor.ts'
import { openStore } from './storage/open-store.ts'
import type { StepWatch } from './storage/doctor/steps.ts'

export const DEFAULT_CONCURRENCY = 2
export const MAX_CONCURRENCY = 32
export const DEFAULT_LOCK_TIMEOUT_MS = 5 * 60_000
export const DEFAULT_MIN_AGE_MS = 60 * 60_000

const WITHOUT_LOCK = 'a deletion at work in this store could make a good backup look bad'

/** Blocks that wait for the file's hash or a disk while others are worked on. */
const LANES_AHEAD = 6

/** 512 MiB: what the file's hash may be ahead of the blocks. */
const MOST_PUT_OFF = 256

/** What stays in the page cache for a moment: an eighth of what the machine or container has. */
function mostPutOff(): number {
  const memoryBytes = Math.min(totalmem(), process.constrainedMemory() || Infinity)
  return Math.min(MOST_PUT_OFF, Math.floor(memoryBytes / 8 / BLOCK_BYTES))
}

export interface Run {
  readonly run: RunId
  readonly store: ObjectStore
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly observer: Observer
}

export interface RunOptions {
  readonly signal: AbortSignal
  readonly observer: Observer
  /** Blocks read or written at once. */
  readonly concurrency?: number
  /** Told in the end what was asked of a server, if one was. */
  readonly onRequests?: (counts: RequestCounts) => void
}

export interface WithCompute {
  readonly compute: Compute
  readonly mostPutOff: number
}

const newRun = (): RunId => randomBytes(8).toString('hex') as RunId

/** Opens a target for one run and closes it afterwards, whatever happens. */
export function withStore<T>(
  target: TargetUrl,
  { signal, observer, concurrency = DEFAULT_CONCURRENCY, onRequests }: RunOptions,
  work: (run: Run) => Promise<T>,
): Promise<T> {
  return withReleasers(async (own) => {
    const run = newRun()
    const settings = storageSettings(process.env, concurrency)
    const store = await openStore(target, run, settings, signal)
    own.add(() =>
      store.close().catch((error: unknown) => {
        // the work is done or failed by now, and this changes nothing about it; gc tidies later
        observer.warn(`tidying up the target failed: ${String(error)}`)
      }),
    )
    own.add(() => store.requests && onRequests?.(store.requests()))
    return work({ run, store, clock: systemClock, signal, observer })
  })
}

/** Looks a target over, step by step, and removes its traces. */
export async function probeTarget(
  target: TargetUrl,
  { signal, concurrency = DEFAULT_CONCURRENCY, onRequests }: RunOptions,
  watch: StepWatch,
): Promise<Diagnosis> {
  const settings = storageSettings(process.env, concurrency)
  const diagnosis = await diagnose(target, newRun(), settings, signal, watch)
  const { requests = {} } = diagnosis
  if (Object.keys(requests).length > 0) onRequests?.(requests)
  return diagnosis
}

/**
 * As `withStore`, with threads for blocks.
 * @param concurrency blocks compressed or decoded at once
 * @param mayNeedNone threads are not started before there is something to compute
 */
export function withCompute<T>(
  target: TargetUrl,
  options: RunOptions & { readonly concurrency: number; readonly mayNeedNone?: boolean },
  work: (run: Run & WithCompute) => Promise<T>,
): Promise<T> {
  return withReleasers(async (own) => {
    // threads take a moment to start, and the target is opened meanwhile
    const compute = openCompute({
      blockThreads: Math.min(options.concurrency, availableParallelism()),
      slots: options.concurrency + LANES_AHEAD,
      startLater: options.mayNeedNone ?? false,
    })
    own.add(() => compute.close())
    return withStore(target, options, (run) => work({ ...run, compute, mostPutOff: mostPutOff() }))
  })
}

/** The shared lock that a reader takes beside its work. */
export function withReaderLock<T>(
  { store, run, clock, signal, observer }: Run,
  { lockTimeoutMs, noLock }: { readonly lockTimeoutMs: number; readonly noLock: boolean },
  work: (lock: Lock | undefined) => Promise<T>,
): Promise<T> {
  return withReleasers(async (own) => {
    if (noLock) {
      observer.warn(`no lock is taken: ${WITHOUT_LOCK}`)
      return work(undefined)
    }
    const lock = openLock({
      store,
      type: 'shared',
      run,
      clock,
      signal,
      timeoutMs: lockTimeoutMs,
      onEvent: (event) => observer.lock(event),
    })
    own.add(() => lock.release())
    lock.acquired.catch((error: unknown) => {
      if (isDroverError(error, ...CANNOT_LOCK)) {
        observer.warn(`no lock can be taken (${error.message}): ${WITHOUT_LOCK}`)
      }
    })
    return work(lock)
  })
}

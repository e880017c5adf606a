/** What may stop a change, asked in the moment before it becomes visible. */
import { DroverError, throwIfAborted } from '../../lib/errors.ts'
import type { WriteCallOptions } from '../../backupstore/object-store.ts'

export interface LastCheck {
  /**
   * Awaited shortly before `now`, by who must ask another process.
   * @param paths what the change will look up
   */
  readonly ahead?: (paths: readonly string[]) => Promise<void>
  /**
   * Called directly before the change, with nothing awaited in between; stops it by throwing.
   * @returns false when what `ahead` learned is too old: then both are asked again
   */
  readonly now: () => boolean
}

/** Answers that may come too late before a change is given up. */
const TRIES = 5

/** Makes a change, synchronously and directly after its last check. */
export async function lastly<T>(
  check: LastCheck,
  paths: readonly string[],
  change: () => T,
): Promise<T> {
  for (let tries = 1; tries <= TRIES; tries++) {
    await check.ahead?.(paths)
    if (check.now()) return change()
  }
  throw new DroverError(
    'TARGET_UNREACHABLE',
    'the permission to write came too late each time: is this machine overloaded?',
    { retryable: true },
  )
}

/** The last check of a call with a signal and a callback. */
export const lastCheck = ({ signal, before }: WriteCallOptions): LastCheck => ({
  now() {
    throwIfAborted(signal)
    before?.()
    return true
  },
})

export const asLastCheck = (before: (() => void) | LastCheck): LastCheck =>
  typeof before === 'function' ? lastCheck({ before }) : before

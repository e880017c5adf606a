/** What is said of a lock: while it is waited for, and when it cannot be had or kept. */
import { DroverError } from '../lib/errors.ts'
import type { LockFile, LockType } from './lock-file.ts'
import { LOCK_EXPIRY_MS } from './lock-file.ts'

export type LockEvent =
  | { readonly kind: 'busy'; readonly holder: LockFile; readonly ageMs: number }
  | { readonly kind: 'acquired' }
  | { readonly kind: 'clock-skew'; readonly skewMs: number }
  | { readonly kind: 'not-removed'; readonly error: unknown }
  /** On purpose: something that was asked for under it may still happen. */
  | { readonly kind: 'left' }

const SKEW_WORTH_A_WARNING_MS = 5_000

export function warnOfSkew(
  skewMs: number,
  onEvent: ((event: LockEvent) => void) | undefined,
): void {
  if (Math.abs(skewMs) > SKEW_WORTH_A_WARNING_MS) onEvent?.({ kind: 'clock-skew', skewMs })
}

export function lockLost(why: string): DroverError {
  return new DroverError('LOCK_LOST', `the lock on the store was lost: ${why}`, { retryable: true })
}

export const tooSlow = () =>
  new DroverError(
    'TARGET_UNREACHABLE',
    `the target is too slow: a lock file could not be written and read back before it expired, ${LOCK_EXPIRY_MS / 1000} s later`,
    { retryable: true },
  )

export function busy(
  holder: LockFile,
  ageMs: number,
  { type, timeoutMs }: { readonly type: LockType; readonly timeoutMs: number },
): DroverError {
  const held = holder.type === 'deletion' ? 'a deletion' : 'a backup or restore'
  const what = holder.type === 'unknown' ? 'an unreadable lock file' : held
  return new DroverError(
    'STORE_BUSY',
    `the store is busy: ${holder.name} (${what}) is ${Math.max(0, Math.round(ageMs / 1000))} s old; it expires ${LOCK_EXPIRY_MS / 1000} s after its holder's last sign of life` +
      (timeoutMs > 0 ? `. Waited ${Math.round(timeoutMs / 1000)} s` : ''),
    { retryable: true, details: { holder: holder.name, type: holder.type, ageMs, wanted: type } },
  )
}

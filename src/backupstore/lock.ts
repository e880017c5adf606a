/**
 * The lock of a store, as Longhorn takes it: a small file that says which kind of work goes on.
 * Locks of one type stand side by side; backups and restores (shared) and
 * deletions keep each other out. There is no
 * server to decide, so everybody writes first, waits until others could have seen it, and then
 * follows the same order. A lock that is not refreshed expires.
 *
 *   write (not acquired) → settle 2 s → read all → kept out? remove ours and wait
 *                                                → else write (acquired), refresh every 60 s
 *
 * The holder gets a signal, aborted when the lock is lost, and asks `assertHeld` directly before
 * every write: a process that was frozen wakes up before its timers do.
 */
import type { Clock } from '../lib/clock.ts'
import { DroverError, throwIfAborted } from '../lib/errors.ts'
import type { RunId } from './layout.ts'
import { lockKey, nameOfLockKey } from './layout.ts'
import type { LockEvent } from './lock-events.ts'
import { busy, lockLost, tooSlow, warnOfSkew } from './lock-events.ts'
import type { LockFile, LockType } from './lock-file.ts'
import {
  LOCK_EXPIRY_MS,
  TYPE_NUMBER,
  isExpired,
  isOther,
  keepsOut,
  readLocks,
} from './lock-file.ts'
import type { LockStore } from './object-store.ts'
import { bodyOf } from './object-store.ts'

const REFRESH_MS = 60_000
const REFRESH_RETRY_MS = 5_000
/** How long others get to see our file before we read theirs. */
export const LOCK_SETTLE_MS = 2_000
const BUSY_POLL_MS = 2_000
/** Stop writing a little before others may take over. */
const EXPIRY_MARGIN_MS = 10_000

export interface LockOptions {
  readonly store: LockStore
  readonly type: LockType
  /** Names the lock file; one run, one lock. */
  readonly run: RunId
  readonly clock: Clock
  readonly signal: AbortSignal
  /** How long to wait for others; 0 tries once. */
  readonly timeoutMs: number
  readonly onEvent?: (event: LockEvent) => void
}

export interface Lock {
  /** Settles when the lock is held; rejects with STORE_BUSY, or what kept it from being taken. */
  readonly acquired: Promise<void>
  /** Aborted with LOCK_LOST when the lock is lost. */
  readonly signal: AbortSignal
  /** @throws DroverError LOCK_LOST unless the lock is held at this moment */
  assertHeld(): void
  /**
   * Asks the server, too, whether the lock is still held, by renewing it.
   * @throws DroverError LOCK_LOST
   */
  confirm(): Promise<void>
  /** The server's time now, ms since 1970; known once the lock file was written. */
  serverNowMs(): number
  /** Other locks that have not expired. */
  others(): Promise<LockFile[]>
  /** Gives the lock up, or stops trying to get it. Never throws. */
  release(): Promise<void>
}

/** Starts taking the lock and returns at once, so that work that writes nothing can go on. */
export function openLock(options: LockOptions): Lock {
  const { store, clock } = options
  const key = lockKey(options.run)
  const stop = new AbortController()
  const lost = new AbortController()
  const signal = AbortSignal.any([options.signal, stop.signal])
  // Our own lock's age counts from before the write, so that it is never too young; the server's
  // time goes on from after it, so that others' locks are never too old.
  let written: Written | undefined
  let attempted = false // the file may be there
  /** How far the server's answers are ahead of its files, at most 0: a front-end has its own clock. */
  let answersAheadMs = 0
  let held = false
  let refreshing: Promise<void> = Promise.resolve()

  // a suspended machine's monotonic clock stands still, its wall clock is set on waking
  const ageMs = () =>
    written
      ? Math.max(clock.monotonicMs() - written.beforeMs, clock.wallMs() - written.beforeWallMs)
      : Number.POSITIVE_INFINITY
  const serverNowMs = () =>
    written ? written.serverMs + (clock.monotonicMs() - written.afterMs) : clock.wallMs()

  const write = async (acquired: boolean): Promise<void> => {
    const [beforeMs, beforeWallMs] = [clock.monotonicMs(), clock.wallMs()]
    const file = { Name: nameOfLockKey(key), Type: TYPE_NUMBER[options.type], Acquired: acquired }
    attempted = true
    const put = await store.put(key, bodyOf(Buffer.from(JSON.stringify(file))))
    if (!put.written) throw new DroverError('INTERNAL', 'a lock file was not written')
    const serverMs = put.info.modifiedAtMs + answersAheadMs
    written = { beforeMs, beforeWallMs, afterMs: clock.monotonicMs(), serverMs }
  }

  const tryOnce = async (): Promise<Attempt> => {
    await write(false)
    warnOfSkew(serverNowMs() - clock.wallMs(), options.onEvent)
    await clock.sleep(LOCK_SETTLE_MS, signal)
    let nowMs = serverNowMs() // before reading, which may take a while
    const mine = { key, file: { type: options.type, acquired: false } }
    const locks = await readLocks(store, signal, nowMs, mine)
    const own = locks.find((lock) => lock.name === nameOfLockKey(key))
    if (!own) {
      throw new DroverError(
        'TARGET_UNREACHABLE',
        'the target does not list the lock file that was just written to it',
        { details: { key }, retryable: true },
      )
    }
    // where the answer to a write tells its own time only: go by that of the file, as all do
    if (written) {
      const earlier = Math.min(0, own.modifiedAtMs - written.serverMs)
      answersAheadMs += earlier
      written = { ...written, serverMs: written.serverMs + earlier }
      nowMs += earlier
    }
    const holder = keepsOut(own, options.type, locks, nowMs)
    if (holder) return { kind: 'kept-out', holder }
    // frozen or starved meanwhile: others have every right to have taken it for expired
    if (ageMs() > LOCK_EXPIRY_MS) return { kind: 'too-late' }
    const before = written?.beforeMs ?? 0
    await write(true)
    return { kind: clock.monotonicMs() - before > LOCK_EXPIRY_MS ? 'too-late' : 'held' }
  }

  const acquire = async (): Promise<void> => {
    const deadline = clock.monotonicMs() + options.timeoutMs
    for (;;) {
      throwIfAborted(signal)
      const attempt = await tryOnce()
      if (attempt.kind === 'held') break
      await store.remove(key)
      if (attempt.kind === 'kept-out') await waitForOthers(attempt.holder, deadline)
      else if (clock.monotonicMs() >= deadline) throw tooSlow()
    }
    held = true
    options.onEvent?.({ kind: 'acquired' })
    refreshing = refresh()
    refreshing.catch(() => undefined) // it ends by being aborted; `release` waits for that
  }

  /** Returns when nobody of the other type is in sight; throws when the time is up. */
  const waitForOthers = async (first: LockFile, deadline: number): Promise<void> => {
    let holder: LockFile | undefined = first
    for (let told = false; holder;) {
      const age = serverNowMs() - holder.modifiedAtMs
      if (!told) options.onEvent?.({ kind: 'busy', holder, ageMs: age })
      told = true
      if (clock.monotonicMs() + BUSY_POLL_MS > deadline) throw busy(holder, age, options)
      await clock.sleep(BUSY_POLL_MS, signal)
      const nowMs = serverNowMs()
      const locks = await readLocks(store, signal, nowMs)
      holder = locks.find((lock) => isOther(lock, options.type) && !isExpired(lock, nowMs))
    }
  }

  /** Writes the lock again; says why it was lost, if it was. */
  const renew = async (): Promise<string | undefined> => {
    const before = written
    // gone means that somebody took it for expired
    if (!(await store.stat(key, { signal }))) return 'somebody removed it'
    throwIfAborted(signal)
    // frozen for too long: others may work already, and must not see our lock young again
    if (!before || ageMs() > LOCK_EXPIRY_MS) return 'it expired'
    await write(true)
    const late = clock.monotonicMs() - before.beforeMs > LOCK_EXPIRY_MS
    // the server's own count shows what none of our clocks did: a machine that was paused
    const lateThere = (written?.serverMs ?? 0) - before.serverMs > LOCK_EXPIRY_MS
    return late || lateThere ? 'it was refreshed too late' : undefined
  }

  const refresh = async (): Promise<void> => {
    let pause = REFRESH_MS
    for (;;) {
      await clock.sleep(pause, signal)
      try {
        const lostBy = await renew()
        if (lostBy !== undefined) return lose(lostBy)
        pause = REFRESH_MS
      } catch {
        if (signal.aborted) return
        if (ageMs() > LOCK_EXPIRY_MS - EXPIRY_MARGIN_MS) return lose('it could not be refreshed')
        pause = REFRESH_RETRY_MS
      }
    }
  }

  const lose = (why: string): void => {
    held = false
    lost.abort(lockLost(why))
  }

  const assertHeld = (): void => {
    const tooOld = ageMs() > LOCK_EXPIRY_MS - EXPIRY_MARGIN_MS
    if (held && tooOld) lose('it could not be refreshed in time')
    throwIfAborted(lost.signal)
    if (!held) throw lockLost('it is not held')
  }

  const acquired = acquire()
  acquired.catch(() => undefined) // whoever needs the lock awaits it; nobody may need it
  return {
    acquired,
    signal: lost.signal,
    serverNowMs,
    assertHeld,
    async confirm() {
      assertHeld()
      const lostBy = await renew()
      if (lostBy !== undefined) lose(lostBy)
      assertHeld()
    },
    async others() {
      const nowMs = serverNowMs()
      const locks = await readLocks(store, options.signal, nowMs)
      return locks.filter((lock) => lock.name !== nameOfLockKey(key) && !isExpired(lock, nowMs))
    },
    async release() {
      stop.abort()
      await acquired.catch(() => undefined)
      await refreshing.catch(() => undefined)
      held = false
      if (!attempted) return
      if (store.inDoubt?.()) return options.onEvent?.({ kind: 'left' })
      try {
        await store.remove(key)
      } catch (error) {
        options.onEvent?.({ kind: 'not-removed', error })
      }
    },
  }
}

type Written = Readonly<Record<'beforeMs' | 'beforeWallMs' | 'afterMs' | 'serverMs', number>>

type Attempt =
  | { readonly kind: 'held' }
  | { readonly kind: 'kept-out'; readonly holder: LockFile }
  | { readonly kind: 'too-late' }

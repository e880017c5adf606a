/** The frame of everything that removes: a look at the configs, then the lock, then the work. */
import { throwIfAborted } from '../lib/errors.ts'
import { withReleasers } from '../lib/releasers.ts'
import { listConfigs } from '../backupstore/catalog.ts'
import type { Key } from '../backupstore/layout.ts'
import type { Lock } from '../backupstore/lock.ts'
import { openLock } from '../backupstore/lock.ts'
import type { ObjectInfo } from '../backupstore/object-store.ts'
import type { PruneTools } from './tools.ts'

export interface Held {
  /** A deletion lock; it is held. */
  readonly lock: Lock
  /** Aborted when the run is stopped or the lock is lost. */
  readonly signal: AbortSignal
  /** The configs as they were before the lock, to tell what changed or went since. */
  readonly seenBefore: ReadonlyMap<Key, ObjectInfo>
  /**
   * For `before` of every removal: a process that was frozen wakes up in the middle of one, and
   * its lock may have expired meanwhile.
   */
  readonly mayRemove: () => void
}

/** @throws DroverError STORE_BUSY, TARGET_*, and what `work` throws */
export async function underDeletionLock<T>(
  { store, clock, run, signal: stop, observer }: PruneTools,
  lockTimeoutMs: number,
  work: (held: Held) => Promise<T>,
): Promise<T> {
  return withReleasers(async (own) => {
    const { configs } = await listConfigs(store, stop)
    const lock = openLock({
      store,
      type: 'deletion',
      run,
      clock,
      signal: stop,
      timeoutMs: lockTimeoutMs,
      onEvent: (event) => observer.lock(event),
    })
    own.add(() => lock.release())
    const signal = AbortSignal.any([stop, lock.signal])
    observer.phase('waiting for the lock')
    await lock.acquired
    return work({
      lock,
      signal,
      seenBefore: new Map(configs.map((info) => [info.key, info])),
      mayRemove() {
        throwIfAborted(signal)
        lock.assertHeld()
      },
    })
  })
}

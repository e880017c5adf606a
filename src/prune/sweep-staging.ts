/**
 * What dead runs staged. It goes before any block does: a process that was cut off in the middle of
 * giving a config its name may still do so when the network is back, and finds no file to name then.
 */
import type { Key, RunId } from '../backupstore/layout.ts'
import { STAGING_PREFIX, lockKey, runOfStagingKey, stagingKey } from '../backupstore/layout.ts'
import { LOCK_EXPIRY_MS } from '../backupstore/lock-file.ts'
import type { PruneStore } from '../backupstore/object-store.ts'
import { removeMany } from './remove-many.ts'
import type { Held } from './under-deletion-lock.ts'

export interface Sweep extends Held {
  readonly store: PruneStore
  readonly run: RunId
  readonly dryRun: boolean
}

export async function removeUnlessDry(sweep: Sweep, keys: readonly Key[]): Promise<void> {
  const { store, signal, dryRun, mayRemove } = sweep
  if (dryRun || keys.length === 0) return
  const { failure } = await removeMany(store, keys, { before: mayRemove, signal })
  if (failure) throw failure
}

/** What one run staged. */
interface Staged {
  readonly keys: Key[]
  bytes: number
  newestMs: number
}

/** Files of runs whose lock expired, or that have no lock and gave no sign of life for as long. */
export async function sweepStaging(sweep: Sweep): Promise<{ files: number; bytes: number }> {
  const { store, lock, signal, dryRun } = sweep
  let files = 0
  let bytes = 0
  for (const [owner, staged] of await stagedByRun(sweep)) {
    const ownLock = await store.stat(lockKey(owner), { signal })
    const lastSign = ownLock?.modifiedAtMs ?? staged.newestMs
    if (lock.serverNowMs() - lastSign <= LOCK_EXPIRY_MS) continue
    await removeUnlessDry(sweep, staged.keys)
    // those that held nothing from the start; what we removed makes their folder look young
    await store.removeEmptyFolders?.(stagingKey(owner, ''), { minAgeMs: 0, dryRun, signal })
    files += staged.keys.length
    bytes += staged.bytes
  }
  return { files, bytes }
}

/** All runs but our own. One that died over a large image leaves a hundred thousand files. */
async function stagedByRun({ store, run, signal }: Sweep): Promise<Map<RunId, Staged>> {
  const runs = new Map<RunId, Staged>()
  for await (const page of store.list(STAGING_PREFIX, { signal })) {
    for (const { key, sizeBytes, modifiedAtMs } of page) {
      const owner = runOfStagingKey(key)
      if (owner === undefined || owner === run) continue
      const staged = runs.get(owner) ?? { keys: [], bytes: 0, newestMs: Number.NEGATIVE_INFINITY }
      staged.keys.push(key)
      staged.bytes += sizeBytes
      staged.newestMs = Math.max(staged.newestMs, modifiedAtMs)
      runs.set(owner, staged)
    }
  }
  return runs
}

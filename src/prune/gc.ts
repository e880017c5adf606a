/** Collecting garbage: what dead runs left behind, and blocks that no backup refers to. */
import { withReleasers } from '../lib/releasers.ts'
import { listConfigs, readBackup } from '../backupstore/catalog.ts'
import { isDroverError } from '../lib/errors.ts'
import type { RunId } from '../backupstore/layout.ts'
import {
  IMAGES_PREFIX,
  LOCKS_PREFIX,
  STAGING_PREFIX,
  isLockKey,
  lockKey,
  nameOfConfigKey,
  runOfStagingKey,
} from '../backupstore/layout.ts'
import type { Lock } from '../backupstore/lock.ts'
import { openLock } from '../backupstore/lock.ts'
import { LOCK_EXPIRY_MS } from '../backupstore/lock-file.ts'
import { isReadableName } from '../backupstore/names.ts'
import type { ObjectInfo, PruneStore } from '../backupstore/object-store.ts'
import { isDeadPlaceholder } from '../backupstore/placeholder.ts'
import { collectBlocks } from './collect.ts'
import type { PruneTools } from './tools.ts'

export interface GcRequest {
  readonly target: string
  readonly dryRun: boolean
  readonly minAgeMs: number
  readonly lockTimeoutMs: number
}

export interface GcSummary {
  readonly target: string
  readonly dryRun: boolean
  /** Blocks removed; with `dryRun`, that would be. */
  readonly removed: number
  /** Blocks that stay. */
  readonly kept: number
  /** Of those, unreferenced ones that are younger than the minimum age. */
  readonly tooYoung: number
  /** Stored bytes of all that was removed. */
  readonly freedBytes: number
  readonly placeholders: readonly string[]
  readonly stagingFiles: number
  readonly locks: number
  readonly folders: number
  readonly seconds: number
}

/** @throws DroverError CONFIG_INVALID, BACKUP_IN_PROGRESS, STORE_*, LOCK_LOST, TARGET_* */
export async function collectGarbage(
  { target, dryRun, minAgeMs, lockTimeoutMs }: GcRequest,
  { store, clock, run, signal: stop, observer }: PruneTools,
): Promise<GcSummary> {
  const startedMs = clock.monotonicMs()
  return withReleasers(async (own) => {
    const seenBefore = await listConfigs(store, stop)
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
    const sweep: Sweep = { store, lock, run, signal, dryRun, seenBefore }

    // staging is judged by its locks, so it goes before they do
    observer.phase('removing what dead runs left')
    const placeholders = await sweepPlaceholders(sweep)
    const staging = await sweepStaging(sweep)
    const locks = await sweepLocks(sweep)

    observer.phase('collecting blocks')
    const blocks = await collectBlocks({ store, lock, signal, minAgeMs, dryRun, seenBefore })
    lock.assertHeld()
    const folders =
      ((await store.removeEmptyFolders?.(IMAGES_PREFIX, { minAgeMs: 0, dryRun, signal })) ?? 0) +
      ((await store.removeEmptyFolders?.(STAGING_PREFIX, {
        minAgeMs: LOCK_EXPIRY_MS,
        dryRun,
        signal,
      })) ?? 0)
    return {
      target,
      dryRun,
      removed: blocks.removed,
      kept: blocks.kept,
      tooYoung: blocks.tooYoung,
      freedBytes: blocks.freedBytes + staging.bytes,
      placeholders,
      stagingFiles: staging.files,
      locks,
      folders,
      seconds: (clock.monotonicMs() - startedMs) / 1000,
    }
  })
}

interface Sweep {
  readonly store: PruneStore
  readonly lock: Lock
  readonly run: RunId
  readonly signal: AbortSignal
  readonly dryRun: boolean
  readonly seenBefore: readonly ObjectInfo[]
}

async function removeUnlessDry({ store, lock, dryRun }: Sweep, key: string): Promise<void> {
  if (dryRun) return
  lock.assertHeld()
  await store.remove(key)
}

/** @returns the names of placeholders whose writers are dead */
async function sweepPlaceholders(sweep: Sweep): Promise<string[]> {
  const { store, lock, signal, seenBefore } = sweep
  const names: string[] = []
  for (const { key } of await listConfigs(store, signal)) {
    const name = nameOfConfigKey(key) ?? ''
    if (!isReadableName(name)) continue
    const found = await readBackup(store, name, signal).catch((error: unknown) => {
      if (isDroverError(error, 'CONFIG_INVALID', 'UNSAFE_PATH')) return undefined // collecting says so
      throw error
    })
    if (!found || found.backup.completedAt !== '') continue
    const before = seenBefore.find((info) => info.key === key)
    if (!(await isDeadPlaceholder(found.info, before, lock))) continue
    await removeUnlessDry(sweep, key)
    names.push(name)
  }
  return names
}

/** Files of runs whose lock expired, or that have no lock and gave no sign of life for as long. */
async function sweepStaging(sweep: Sweep): Promise<{ files: number; bytes: number }> {
  const { store, lock, run, signal } = sweep
  const runs = new Map<RunId, ObjectInfo[]>()
  for await (const page of store.list(STAGING_PREFIX, { signal })) {
    for (const info of page) {
      const owner = runOfStagingKey(info.key)
      if (owner !== undefined && owner !== run) runs.set(owner, [...(runs.get(owner) ?? []), info])
    }
  }
  let files = 0
  let bytes = 0
  for (const [owner, infos] of runs) {
    const ownLock = await store.stat(lockKey(owner), { signal })
    const lastSign = ownLock?.modifiedAtMs ?? Math.max(...infos.map((info) => info.modifiedAtMs))
    if (lock.serverNowMs() - lastSign <= LOCK_EXPIRY_MS) continue
    for (const { key, sizeBytes } of infos) {
      await removeUnlessDry(sweep, key)
      files += 1
      bytes += sizeBytes
    }
  }
  return { files, bytes }
}

async function sweepLocks(sweep: Sweep): Promise<number> {
  const { store, lock, signal } = sweep
  let locks = 0
  for await (const page of store.list(LOCKS_PREFIX, { signal })) {
    for (const { key, modifiedAtMs } of page) {
      if (!isLockKey(key) || lock.serverNowMs() - modifiedAtMs <= LOCK_EXPIRY_MS) continue
      await removeUnlessDry(sweep, key)
      locks += 1
    }
  }
  return locks
}

/** Collecting garbage: what dead runs left behind, and blocks that no backup refers to. */
import { isDroverError } from '../lib/errors.ts'
import { CONFIG_UNREADABLE, listConfigs, readFacts } from '../backupstore/catalog.ts'
import type { Key, RunId } from '../backupstore/layout.ts'
import {
  IMAGES_PREFIX,
  LOCKS_PREFIX,
  STAGING_PREFIX,
  configKey,
  isLockKey,
  lockKey,
  nameOfConfigKey,
  runOfStagingKey,
} from '../backupstore/layout.ts'
import { LOCK_EXPIRY_MS } from '../backupstore/lock-file.ts'
import type { BackupName } from '../backupstore/names.ts'
import { isReadableName } from '../backupstore/names.ts'
import type { PruneStore } from '../backupstore/object-store.ts'
import { isDeadPlaceholder } from '../backupstore/placeholder.ts'
import { collectBlocks } from './collect.ts'
import { removeMany } from './remove-many.ts'
import type { PruneTools } from './tools.ts'
import type { Held } from './under-deletion-lock.ts'
import { underDeletionLock } from './under-deletion-lock.ts'

export interface GcRequest {
  readonly target: string
  readonly dryRun: boolean
  readonly minAgeMs: number
  readonly lockTimeoutMs: number
  /** Whether blocks go even when there is no backup at all. */
  readonly allowEmpty: boolean
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
  { target, dryRun, minAgeMs, lockTimeoutMs, allowEmpty }: GcRequest,
  tools: PruneTools,
): Promise<GcSummary> {
  const { store, clock, run, observer } = tools
  const startedMs = clock.monotonicMs()
  return underDeletionLock(tools, lockTimeoutMs, async (held) => {
    const { lock, signal } = held
    const sweep: Sweep = { ...held, store, run, dryRun }

    // staging is judged by its locks, so it goes before they do
    observer.phase('removing what dead runs left')
    const placeholders = await sweepPlaceholders(sweep)
    const staging = await sweepStaging(sweep)
    const locks = await sweepLocks(sweep)

    observer.phase('collecting blocks')
    const gone = new Set(placeholders.map(configKey))
    const blocks = await collectBlocks({ ...held, store, minAgeMs, dryRun, gone, allowEmpty })
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

interface Sweep extends Held {
  readonly store: PruneStore
  readonly run: RunId
  readonly dryRun: boolean
}

async function removeUnlessDry(sweep: Sweep, keys: readonly Key[]): Promise<void> {
  const { store, signal, dryRun, mayRemove } = sweep
  if (dryRun || keys.length === 0) return
  const { failure } = await removeMany(store, keys, { before: mayRemove, signal })
  if (failure) throw failure
}

/** @returns the names of placeholders whose writers are dead */
async function sweepPlaceholders(sweep: Sweep): Promise<BackupName[]> {
  const { store, lock, signal, seenBefore } = sweep
  const names: BackupName[] = []
  for (const { key } of (await listConfigs(store, signal)).configs) {
    const name = nameOfConfigKey(key) ?? ''
    if (!isReadableName(name)) continue
    const found = await readFacts(store, name, signal).catch((error: unknown) => {
      if (isDroverError(error, ...CONFIG_UNREADABLE)) return undefined // collecting says so
      throw error
    })
    if (!found || found.facts.completedAt !== '') continue
    if (!(await isDeadPlaceholder(found.info, seenBefore.get(key), lock))) continue
    await removeUnlessDry(sweep, [key])
    names.push(name)
  }
  return names
}

/** What one run staged. */
interface Staged {
  readonly keys: Key[]
  bytes: number
  newestMs: number
}

/** Files of runs whose lock expired, or that have no lock and gave no sign of life for as long. */
async function sweepStaging(sweep: Sweep): Promise<{ files: number; bytes: number }> {
  const { store, lock, signal } = sweep
  let files = 0
  let bytes = 0
  for (const [owner, staged] of await stagedByRun(sweep)) {
    const ownLock = await store.stat(lockKey(owner), { signal })
    const lastSign = ownLock?.modifiedAtMs ?? staged.newestMs
    if (lock.serverNowMs() - lastSign <= LOCK_EXPIRY_MS) continue
    await removeUnlessDry(sweep, staged.keys)
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

async function sweepLocks(sweep: Sweep): Promise<number> {
  const { store, lock, signal } = sweep
  const dead: Key[] = []
  for await (const page of store.list(LOCKS_PREFIX, { signal })) {
    for (const { key, modifiedAtMs } of page) {
      if (!isLockKey(key) || lock.serverNowMs() - modifiedAtMs <= LOCK_EXPIRY_MS) continue
      dead.push(key)
    }
  }
  await removeUnlessDry(sweep, dead)
  return dead.length
}

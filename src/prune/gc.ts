/** Collecting garbage: what dead runs left behind, and blocks that no backup refers to. */
import { isDroverError } from '../lib/errors.ts'
import { CONFIG_UNREADABLE, listConfigs, readFacts } from '../backupstore/catalog.ts'
import type { Key } from '../backupstore/layout.ts'
import {
  IMAGES_PREFIX,
  LOCKS_PREFIX,
  STAGING_PREFIX,
  configKey,
  isLockKey,
  nameOfConfigKey,
} from '../backupstore/layout.ts'
import { LOCK_EXPIRY_MS } from '../backupstore/lock-file.ts'
import type { BackupName } from '../backupstore/names.ts'
import { isReadableName } from '../backupstore/names.ts'
import { isDeadPlaceholder } from '../backupstore/placeholder.ts'
import { collectBlocks } from './collect.ts'
import type { Sweep } from './sweep-staging.ts'
import { removeUnlessDry, sweepStaging } from './sweep-staging.ts'
import type { PruneTools } from './tools.ts'
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

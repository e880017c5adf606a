/** Deleting a backup: its config first, then those of its blocks that nobody else refers to. */
import { DroverError, isDroverError } from '../lib/errors.ts'
import { withReleasers } from '../lib/releasers.ts'
import { BlockTable } from '../backupstore/block-table.ts'
import type { StoredBackup } from '../backupstore/catalog.ts'
import { listConfigs, readBackup } from '../backupstore/catalog.ts'
import { CONFIGS_PREFIX, configKey } from '../backupstore/layout.ts'
import type { Lock } from '../backupstore/lock.ts'
import { openLock } from '../backupstore/lock.ts'
import { LOCK_EXPIRY_MS } from '../backupstore/lock-file.ts'
import type { ObjectInfo, PruneStore } from '../backupstore/object-store.ts'
import type { Observer } from '../backupstore/observer.ts'
import { isDeadPlaceholder } from '../backupstore/placeholder.ts'
import type { BackupUrl } from '../backupstore/target-url.ts'
import type { Collected } from './collect.ts'
import { collectBlocks } from './collect.ts'
import type { PruneTools } from './tools.ts'

export interface DeleteRequest {
  readonly backup: BackupUrl
  /** Younger blocks stay for a later gc. */
  readonly minAgeMs: number
  readonly lockTimeoutMs: number
}

export interface DeleteSummary {
  readonly url: string
  readonly removedBlocks: number
  readonly freedBytes: number
  /** Blocks of this backup that nobody needs any more and that are too young to go. */
  readonly tooYoungBlocks: number
  /** Why no blocks were collected; null when they were. The backup is deleted in any case. */
  readonly blocksKept: string | null
  readonly seconds: number
}

/** @throws DroverError BACKUP_NOT_FOUND, BACKUP_IN_PROGRESS, STORE_BUSY, LOCK_LOST, TARGET_* */
export async function deleteBackup(
  { backup: { name, text }, minAgeMs, lockTimeoutMs }: DeleteRequest,
  { store, clock, run, signal: stop, observer }: PruneTools,
): Promise<DeleteSummary> {
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

    observer.phase('deleting')
    const key = configKey(name)
    const found = await lookAt(store, name, signal, observer)
    const before = seenBefore.find((info) => info.key === key)
    if (found) await refuseLive(found, before, lock)
    lock.assertHeld()
    if (!(await store.remove(key))) throw notFound(name)
    await store.removeEmptyFolders?.(CONFIGS_PREFIX, { minAgeMs: 0 })

    const { collected, blocksKept } = await collect(found, {
      store,
      lock,
      signal,
      minAgeMs,
      dryRun: false,
      seenBefore,
    })
    if (blocksKept !== null) observer.warn(`the backup is deleted, its blocks stay: ${blocksKept}`)
    return {
      url: text,
      removedBlocks: collected.removed,
      freedBytes: collected.freedBytes,
      tooYoungBlocks: collected.tooYoung,
      blocksKept,
      seconds: (clock.monotonicMs() - startedMs) / 1000,
    }
  })
}

/** @returns undefined for a config that exists and cannot be read: it is deleted all the same */
async function lookAt(
  store: PruneStore,
  name: BackupUrl['name'],
  signal: AbortSignal,
  observer: Observer,
): Promise<StoredBackup | undefined> {
  try {
    const found = await readBackup(store, name, signal)
    if (!found) throw notFound(name)
    return found
  } catch (error) {
    if (!isDroverError(error, 'CONFIG_INVALID')) throw error
    observer.warn(`${error.message}. It is deleted; gc finds its blocks`)
    return undefined
  }
}

async function refuseLive(
  { backup, info }: StoredBackup,
  before: ObjectInfo | undefined,
  lock: Lock,
): Promise<void> {
  if (backup.completedAt !== '' || (await isDeadPlaceholder(info, before, lock))) return
  throw new DroverError(
    'BACKUP_IN_PROGRESS',
    `${backup.name} may be being backed up, since ${backup.createdAt || 'an unknown time'}: it can be deleted ${LOCK_EXPIRY_MS / 1000} s after its writer's last sign of life`,
    { details: { name: backup.name, createdAt: backup.createdAt }, retryable: true },
  )
}

const notFound = (name: string) =>
  new DroverError('BACKUP_NOT_FOUND', `there is no backup ${name} in this target`, {
    details: { name },
  })

const KEEPS_BLOCKS = [
  'CONFIG_INVALID',
  'UNSAFE_PATH',
  'BACKUP_IN_PROGRESS',
  'STORE_CHANGED',
] as const

/** The backup is gone by now: what keeps its blocks from being collected is told, not thrown. */
async function collect(
  found: StoredBackup | undefined,
  options: Parameters<typeof collectBlocks>[0],
): Promise<{ collected: Collected; blocksKept: string | null }> {
  const nothing: Collected = { removed: 0, kept: 0, tooYoung: 0, freedBytes: 0 }
  if (!found) return { collected: nothing, blocksKept: 'its config could not be read' }
  const { blocks } = found.backup
  const among = new BlockTable(blocks.length)
  for (let entry = 0; entry < blocks.length; entry++) among.setEntry(blocks, entry, 0)
  if (among.size === 0) return { collected: nothing, blocksKept: null }
  try {
    return { collected: await collectBlocks({ ...options, among }), blocksKept: null }
  } catch (error) {
    if (!isDroverError(error, ...KEEPS_BLOCKS)) throw error
    return { collected: nothing, blocksKept: error.message }
  }
}

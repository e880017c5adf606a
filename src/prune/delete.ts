/**
 * Deleting a backup: its config first, then those of its blocks that nobody else refers to. Once
 * the config is gone the backup is deleted; what happens to its blocks after that is told.
 */
import { DroverError, isDroverError, throwIfAborted } from '../lib/errors.ts'
import { BlockTable } from '../backupstore/block-table.ts'
import type { StoredBackup } from '../backupstore/catalog.ts'
import { CONFIG_UNREADABLE, readBackup } from '../backupstore/catalog.ts'
import { CONFIGS_PREFIX, configKey } from '../backupstore/layout.ts'
import { LOCK_EXPIRY_MS } from '../backupstore/lock-file.ts'
import type { BackupName } from '../backupstore/names.ts'
import type { PruneStore } from '../backupstore/object-store.ts'
import { isDeadPlaceholder } from '../backupstore/placeholder.ts'
import type { BackupUrl } from '../backupstore/target-url.ts'
import type { Collected } from './collect.ts'
import { collectBlocks, newTally } from './collect.ts'
import type { Sweep } from './sweep-staging.ts'
import { sweepStaging } from './sweep-staging.ts'
import type { PruneTools } from './tools.ts'
import type { Held } from './under-deletion-lock.ts'
import { underDeletionLock } from './under-deletion-lock.ts'

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
  /** Why not all blocks were collected; null when they were. The backup is deleted in any case. */
  readonly blocksKept: string | null
  readonly seconds: number
}

/** @throws DroverError BACKUP_NOT_FOUND, BACKUP_IN_PROGRESS, STORE_BUSY, LOCK_LOST, TARGET_* */
export async function deleteBackup(
  { backup: { name, text }, minAgeMs, lockTimeoutMs }: DeleteRequest,
  tools: PruneTools,
): Promise<DeleteSummary> {
  const { store, clock, observer, signal: stop } = tools
  const startedMs = clock.monotonicMs()
  return underDeletionLock(tools, lockTimeoutMs, async (held) => {
    observer.phase('deleting')
    const found = await lookAt(store, name, held.signal)
    if (!('unreadable' in found)) await refuseLive(found, held)
    await removeConfig(store, name, held)

    const collecting: Collecting = { ...held, store, run: tools.run, dryRun: false, minAgeMs, stop }
    const { collected, blocksKept } = await collect(found, collecting)
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

/** Why a config that exists cannot be read; it is deleted all the same. */
interface Unreadable {
  readonly unreadable: string
}

async function lookAt(
  store: PruneStore,
  name: BackupName,
  signal: AbortSignal,
): Promise<StoredBackup | Unreadable> {
  try {
    const found = await readBackup(store, name, signal)
    if (!found) throw notFound(name)
    return found
  } catch (error) {
    // damaged, forbidden or no plain file: none of that keeps the entry itself from being removed
    if (!isDroverError(error, ...CONFIG_UNREADABLE)) throw error
    return { unreadable: error.message }
  }
}

async function refuseLive({ backup, info }: StoredBackup, held: Held): Promise<void> {
  if (backup.completedAt !== '') return
  if (await isDeadPlaceholder(info, held.seenBefore.get(info.key), held.lock)) return
  throw new DroverError(
    'BACKUP_IN_PROGRESS',
    `${backup.name} may be being backed up, since ${backup.createdAt || 'an unknown time'}: it can be deleted ${LOCK_EXPIRY_MS / 1000} s after its writer's last sign of life`,
    { details: { name: backup.name, createdAt: backup.createdAt }, retryable: true },
  )
}

async function removeConfig(
  store: PruneStore,
  name: BackupName,
  { signal, mayRemove }: Held,
): Promise<void> {
  try {
    // durable: a power cut must not bring it back when its blocks are gone
    if (await store.remove(configKey(name), { before: mayRemove, signal, durable: true })) return
  } catch (error) {
    if (!isDroverError(error, 'UNSAFE_PATH')) throw error
    const folder = `${CONFIGS_PREFIX}${name}`
    throw new DroverError(
      'UNSAFE_PATH',
      `${name} is not deleted: ${error.message}. Remove ${JSON.stringify(folder)} in the target by hand, then run gc`,
      { details: { name, remove: folder }, cause: error },
    )
  }
  throw notFound(name)
}

const notFound = (name: string) =>
  new DroverError('BACKUP_NOT_FOUND', `there is no backup ${name} in this target`, {
    details: { name },
  })

interface Collecting extends Sweep {
  readonly minAgeMs: number
  /** Whoever stops the run wants it to end as interrupted, whatever it did until then. */
  readonly stop: AbortSignal
}

/** The backup is gone by now: what keeps its blocks from being collected is told, not thrown. */
async function collect(
  found: StoredBackup | Unreadable,
  { minAgeMs, stop, ...sweep }: Collecting,
): Promise<{ collected: Collected; blocksKept: string | null }> {
  const collected = newTally()
  try {
    await sweep.store.removeEmptyFolders?.(CONFIGS_PREFIX, { minAgeMs: 0 })
    if ('unreadable' in found) {
      const blocksKept = `its config could not be read: ${found.unreadable}. gc finds them`
      return { collected, blocksKept }
    }
    const { blocks } = found.backup
    const among = new BlockTable(blocks.length)
    for (let entry = 0; entry < blocks.length; entry++) among.setEntry(blocks, entry, 0)
    if (among.size > 0) {
      await sweepStaging(sweep)
      const gone = new Set([found.info.key])
      const all = { ...sweep, minAgeMs, gone, allowEmpty: true, among }
      await collectBlocks(all, collected)
    }
    return { collected, blocksKept: null }
  } catch (error) {
    throwIfAborted(stop)
    return { collected, blocksKept: error instanceof Error ? error.message : String(error) }
  }
}

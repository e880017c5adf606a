/** What stands under a backup's name already: before the lock, and under it. */
import { DroverError, isDroverError } from '../lib/errors.ts'
import { readBackup } from '../backupstore/catalog.ts'
import { configKey } from '../backupstore/layout.ts'
import type { Lock } from '../backupstore/lock.ts'
import { LOCK_EXPIRY_MS } from '../backupstore/lock-file.ts'
import type { BackupName } from '../backupstore/names.ts'
import type { ObjectInfo, ReadStore } from '../backupstore/object-store.ts'
import { isDeadPlaceholder } from '../backupstore/placeholder.ts'
import type { Existing } from './plan.ts'

type LookStore = Pick<ReadStore, 'open' | 'stat'>

/** What stands under the name, with the object it was read from. */
export type Seen = Existing & { readonly info?: ObjectInfo }

/** What stands under the name before the lock is held: a hint, and what a placeholder is compared with. */
export async function firstLook(
  store: LookStore,
  name: BackupName,
  signal: AbortSignal,
): Promise<Seen> {
  try {
    const found = await readBackup(store, name, signal)
    if (!found) return { kind: 'none' }
    const { backup, info } = found
    const kind = backup.completedAt === '' ? 'dead' : 'complete'
    return { kind, backup, version: info.version, info }
  } catch (error) {
    if (!isDroverError(error, 'CONFIG_INVALID')) throw error
    const info = await store.stat(configKey(name), { signal })
    if (!info) return { kind: 'none' }
    return { kind: 'damaged', reason: error.message, version: info.version, info }
  }
}

/**
 * What stands under the name, under the lock. Read again only when it changed.
 * @throws DroverError BACKUP_IN_PROGRESS for a placeholder whose writer may live
 */
export async function look(
  store: LookStore,
  name: BackupName,
  seen: Seen,
  lock: Lock,
  signal: AbortSignal,
): Promise<Seen> {
  const info = await store.stat(configKey(name), { signal })
  const same = info?.version === seen.info?.version && seen.kind !== 'damaged'
  const now = same ? seen : await firstLook(store, name, signal)
  if (now.kind !== 'dead' || !now.info) return now
  if (await isDeadPlaceholder(now.info, seen.info, lock)) return now
  const since = now.backup.createdAt || 'an unknown time'
  throw new DroverError(
    'BACKUP_IN_PROGRESS',
    `${name} is being backed up by someone else since ${since}; if that run is dead, its remains may be taken over ${LOCK_EXPIRY_MS / 1000} s after its last sign of life, when no other backup or restore runs`,
    { details: { name, createdAt: now.backup.createdAt }, retryable: true },
  )
}

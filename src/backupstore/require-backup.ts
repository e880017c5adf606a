/** The backup that somebody wants to read, or a true reason why it cannot be. */
import { isDroverError } from '../lib/errors.ts'
import type { StoredBackup } from './catalog.ts'
import { readBackup, requireComplete } from './catalog.ts'
import type { Lock } from './lock.ts'
import type { BackupName } from './names.ts'
import type { ReadStore } from './object-store.ts'
import { underLock } from './read-block.ts'

/**
 * @throws DroverError BACKUP_NOT_FOUND, BACKUP_INCOMPLETE, CONFIG_INVALID: only after a second look
 * under the lock, because the first may have met a change at work
 */
export async function requireBackup(
  store: Pick<ReadStore, 'open'>,
  name: BackupName,
  lock: Lock | undefined,
  signal: AbortSignal,
): Promise<StoredBackup> {
  const look = async () => requireComplete(await readBackup(store, name, signal), name)
  try {
    return await look()
  } catch (error) {
    if (!isDroverError(error, 'BACKUP_NOT_FOUND', 'BACKUP_INCOMPLETE', 'CONFIG_INVALID'))
      throw error
    await underLock(lock)
    return look()
  }
}

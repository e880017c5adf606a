/** From a target's URL to the driver that opens it. */
import type { RunId } from '../backupstore/layout.ts'
import type { ObjectStore } from '../backupstore/object-store.ts'
import type { TargetUrl } from '../backupstore/target-url.ts'
import { withDoubt } from './doubt.ts'
import { openFsStore } from './fs/fs-store.ts'
import type { StorageSettings } from './settings.ts'
import { withSpool } from './spool.ts'

/** An interrupted request may be under way, and whoever lost its lock may have asked for anything. */
const UNANSWERED_BY_S3 = [
  'TARGET_UNREACHABLE',
  'TARGET_THROTTLED',
  'INTERRUPTED',
  'LOCK_LOST',
] as const
/** An interrupted change waits for its outcome. */
const UNANSWERED_BY_NFS = ['TARGET_UNREACHABLE'] as const

/**
 * The driver for a target.
 * @throws DroverError TARGET_NOT_FOUND, or what the driver meets
 */
export async function openStore(
  target: TargetUrl,
  run: RunId,
  settings: StorageSettings,
  signal: AbortSignal,
): Promise<ObjectStore> {
  switch (target.kind) {
    case 'vfs':
      return openFsStore(target.path, run)
    case 's3': {
      // loaded when it is needed: the SDK is larger than all the rest
      const { openS3Store } = await import('./s3/s3-store.ts')
      const store = withDoubt(openS3Store(target, run, settings), UNANSWERED_BY_S3)
      return withSpool(store, settings)
    }
    case 'nfs': {
      const { openNfsStore } = await import('./nfs/nfs-store.ts')
      return withDoubt(await openNfsStore(target, run, settings, signal), UNANSWERED_BY_NFS)
    }
  }
}

/** From a target's URL to the driver that opens it. */
import { DroverError } from '../lib/errors.ts'
import type { RunId } from '../backupstore/layout.ts'
import type { ObjectStore } from '../backupstore/object-store.ts'
import type { TargetUrl } from '../backupstore/target-url.ts'
import { openFsStore } from './fs/fs-store.ts'

/**
 * The driver for a target.
 * @throws DroverError TARGET_UNSUPPORTED, TARGET_NOT_FOUND, or what the driver meets
 */
export function openStore(target: TargetUrl, run: RunId): Promise<ObjectStore> {
  switch (target.kind) {
    case 'vfs':
      return openFsStore(target.path, run)
    case 'nfs':
    case 's3':
      throw new DroverError(
        'TARGET_UNSUPPORTED',
        `${target.kind}:// targets are understood but cannot be opened by this version: expected a mounted folder as vfs:///path`,
        { details: { scheme: target.kind } },
      )
  }
}

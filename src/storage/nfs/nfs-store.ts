/**
 * An NFS export as a store: mounted by us, and then a folder like any other, except that it may
 * hang. A call that waits for a dead server cannot be cancelled, takes a thread with it, and holds
 * up the end of the process it belongs to. So everything that touches the share, mounting included,
 * happens in a helper process, one a target, which can be killed and replaced.
 *
 *   store (remote-store) → messages, and windows for blocks → helper → folder driver → mount
 *
 * Each call has a deadline. When one passes, the helper is killed without waiting for its end, what
 * was asked of it fails with TARGET_UNREACHABLE, and the next call starts another one. What was
 * staged in the old one is lost, and publishing it fails. The helper asks back where only the store
 * can tell, above all whether a change may become visible (see grant.ts).
 *
 * A mount is shared by all that use the same source and options. Each helper stands in the mounted
 * folder, so that nobody can unmount it meanwhile, and unmounts it when it leaves; the last one
 * succeeds.
 */
import { createHash } from 'node:crypto'
import type { RunId } from '../../backupstore/layout.ts'
import type { ObjectStore } from '../../backupstore/object-store.ts'
import type { TargetUrl } from '../../backupstore/target-url.ts'
import type { StorageSettings } from '../settings.ts'
import { mountAttempts, mountSource } from './options.ts'
import { GRANT_MS, openRemoteStore } from './remote-store.ts'

export type NfsTarget = Extract<TargetUrl, { kind: 'nfs' }>

/**
 * @throws DroverError INVALID_URL for options that are not allowed; TARGET_UNREACHABLE,
 * TARGET_FORBIDDEN, TARGET_NOT_FOUND, TARGET_UNSUPPORTED
 */
export async function openNfsStore(
  target: NfsTarget,
  run: RunId,
  settings: StorageSettings,
  signal: AbortSignal,
): Promise<ObjectStore> {
  return openRemoteStore(helperOptions(target, run, settings), signal)
}

/** @throws DroverError INVALID_URL */
export function helperOptions(
  target: NfsTarget,
  run: RunId,
  { callTimeoutMs, concurrency, nfs }: StorageSettings,
) {
  const attempts = mountAttempts(target.options)
  const source = mountSource(target)
  const place = {
    kind: 'nfs',
    source,
    mountDir: nfs.mountDir,
    name: mountName(source, attempts),
    attempts,
    stepMs: callTimeoutMs,
  } as const
  return { label: source, place, run, callTimeoutMs, concurrency, grantMs: GRANT_MS }
}

/** Short, and another one for other options. */
const mountName = (source: string, attempts: readonly string[]): string =>
  createHash('sha256')
    .update([source, ...attempts].join('\n'))
    .digest('hex')
    .slice(0, 16)

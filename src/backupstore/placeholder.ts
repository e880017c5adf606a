/**
 * Placeholders: configs without a CompleteTime. Longhorn writes one when it begins; a run that
 * died leaves it for ever. Whether one is dead decides if its name may be taken over.
 */
import type { Lock } from './lock.ts'
import { LOCK_EXPIRY_MS } from './lock-file.ts'
import type { ObjectInfo } from './object-store.ts'

/**
 * Dead: older than 150 s by the server's clock, the same as when we first looked (before the
 * lock's settling), and no other live lock of a backup. Locks carry no name of an image, so any
 * such lock may be its writer's.
 */
export async function isDeadPlaceholder(
  now: ObjectInfo,
  seenBefore: ObjectInfo | undefined,
  lock: Lock,
): Promise<boolean> {
  if (lock.serverNowMs() - now.modifiedAtMs <= LOCK_EXPIRY_MS) return false
  if (seenBefore?.version !== now.version) return false
  const others = await lock.others()
  return others.every(({ type }) => type === 'deletion')
}

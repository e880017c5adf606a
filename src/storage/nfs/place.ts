/** Where a helper works: a folder as it is, or a share that it mounts and holds. */
import type { Place } from './messages.ts'
import type { Opening } from './mount.ts'
import { mountShare } from './mount.ts'
import { firstWaitMs } from './soft-timeout.ts'

export interface OpenPlace {
  readonly path: string
  /** See `readInTime`. */
  readonly waitMs: number
  close(): Promise<void>
}

/** @throws DroverError TARGET_* */
export async function openPlace(place: Place, opening: Opening): Promise<OpenPlace> {
  if (place.kind === 'folder') {
    return { path: place.path, waitMs: Infinity, close: () => Promise.resolve() }
  }
  const share = await mountShare(place, opening)
  return { ...share, waitMs: firstWaitMs(place.attempts[0] ?? '') }
}

import type { Clock } from '../lib/clock.ts'
import type { RunId } from '../backupstore/layout.ts'
import type { PruneStore } from '../backupstore/object-store.ts'
import type { Observer } from '../backupstore/observer.ts'

/** What those who remove things work with. */
export interface PruneTools {
  readonly store: PruneStore
  readonly clock: Clock
  readonly run: RunId
  readonly signal: AbortSignal
  readonly observer: Observer
}

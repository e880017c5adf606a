/** What is asked of a backup, what it works with, and what it answers. */
import type { Clock } from '../lib/clock.ts'
import type { Checksum } from '../backupstore/block.ts'
import type { Compression } from '../backupstore/compression.ts'
import type { BlockCompute } from '../backupstore/compute.ts'
import type { RunId } from '../backupstore/layout.ts'
import type { BackupName } from '../backupstore/names.ts'
import type { LockStore, PruneStore } from '../backupstore/object-store.ts'
import type { Observer } from '../backupstore/observer.ts'
import type { TargetUrl } from '../backupstore/target-url.ts'

export interface BackupRequest {
  readonly file: string
  readonly target: TargetUrl
  readonly name: BackupName
  /** What the image must be; anything else fails the backup. */
  readonly checksum: Checksum | undefined
  readonly compression: Compression
  /** Undefined: none asked for. */
  readonly labels: Readonly<Record<string, string>> | undefined
  readonly replace: boolean
  readonly lockTimeoutMs: number
}

/** What a backup needs of a store: it writes, locks and tidies, and never removes data. */
export type BackupStore = LockStore & Pick<PruneStore, 'removeEmptyFolders'>

export interface BackupTools {
  readonly store: BackupStore
  readonly compute: BlockCompute
  /** Blocks that may be put off at once: as many as the page cache surely still holds then. */
  readonly mostPutOff: number
  readonly clock: Clock
  readonly run: RunId
  readonly signal: AbortSignal
  readonly observer: Observer
}

export interface BackupSummary {
  readonly name: BackupName
  readonly url: string
  readonly sizeBytes: number
  readonly checksum: Checksum
  readonly compression: Compression
  readonly blocks: {
    readonly total: number
    readonly zero: number
    readonly reused: number
    readonly new: number
  }
  /** Stored bytes of the new blocks. */
  readonly bytesWritten: number
  readonly seconds: number
  readonly outcome: 'created' | 'unchanged' | 'replaced'
}

/** What to do with blocks and names, decided from facts alone. */
import { DroverError } from '../lib/errors.ts'
import type { BlockMap } from '../backupstore/block-map.ts'
import type { Checksum } from '../backupstore/block.ts'
import type { Compression } from '../backupstore/compression.ts'
import { familyOf } from '../backupstore/compression.ts'
import type { Backup } from '../backupstore/config.ts'
import { withoutZeroBlocks } from '../backupstore/zero-blocks.ts'

/** What stands under the backup's name. */
export type Existing =
  | { readonly kind: 'none' }
  | { readonly kind: 'complete'; readonly backup: Backup; readonly version: string }
  /** A placeholder that is proven dead. */
  | { readonly kind: 'dead'; readonly backup: Backup; readonly version: string }
  | { readonly kind: 'damaged'; readonly reason: string; readonly version: string }

/** What this run found in the image. */
export interface Content {
  readonly sizeBytes: number
  readonly checksum: Checksum
  readonly blocks: BlockMap
}

export type CommitPlan =
  | { readonly action: 'keep'; readonly labelsDiffer: boolean }
  | { readonly action: 'write'; readonly outcome: 'created' | 'replaced' }

/**
 * Whether a config is written, and what that means.
 * @throws DroverError NAME_CONFLICT
 */
export function planCommit(
  existing: Existing,
  content: Content,
  wanted: {
    readonly replace: boolean
    readonly labels: Readonly<Record<string, string>> | undefined
    readonly compression: Compression
  },
): CommitPlan {
  switch (existing.kind) {
    case 'none':
    case 'dead':
      return { action: 'write', outcome: 'created' }
    case 'damaged':
      if (wanted.replace) return { action: 'write', outcome: 'replaced' }
      throw damagedConflict(existing.reason)
    case 'complete': {
      const { backup } = existing
      if (!isSame(backup, content)) {
        if (wanted.replace) return { action: 'write', outcome: 'replaced' }
        throw nameConflict(backup, content.checksum)
      }
      const newLabels = wanted.replace && wanted.labels && !sameLabels(wanted.labels, backup.labels)
      // a config that lists other blocks for the same content cannot be right: ours is proven
      const otherBlocks = !sameBlocks(backup, content)
      const otherFamily = familyOf(backup.compression) !== familyOf(wanted.compression)
      if (newLabels || otherBlocks || otherFamily) {
        return { action: 'write', outcome: 'replaced' }
      }
      const { labels } = wanted
      return {
        action: 'keep',
        labelsDiffer: labels !== undefined && !sameLabels(labels, backup.labels),
      }
    }
  }
}

/**
 * A conflict that can be seen without reading the image.
 * @param image.sure the name was looked at under the lock: a damaged config is no passing state
 * @throws DroverError NAME_CONFLICT
 */
export function refuseEarly(
  existing: Existing,
  sizeBytes: number,
  image: {
    readonly checksum: Checksum | undefined
    readonly replace: boolean
    readonly sure: boolean
  },
): void {
  if (image.replace) return
  if (existing.kind === 'damaged' && image.sure) throw damagedConflict(existing.reason)
  if (existing.kind !== 'complete') return
  const { backup } = existing
  const other =
    [image.checksum, backup.checksum].every(Boolean) && image.checksum !== backup.checksum
  if (other || backup.sizeBytes !== sizeBytes) throw nameConflict(backup, image.checksum)
}

const isSame = (backup: Backup, content: Content): boolean =>
  backup.sizeBytes === content.sizeBytes &&
  (backup.checksum === undefined
    ? sameBlocks(backup, content)
    : backup.checksum === content.checksum)

/** Zero blocks may be listed, as Longhorn does, or left out, as we do: they are the same image. */
const sameBlocks = (backup: Backup, content: Content): boolean =>
  backup.blocks.equals(content.blocks) ||
  withoutZeroBlocks(backup.blocks, backup.sizeBytes).equals(content.blocks)

const sameLabels = (a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>) =>
  Object.keys(a).length === Object.keys(b).length &&
  Object.entries(a).every(([key, value]) => Object.hasOwn(b, key) && b[key] === value)

const damagedConflict = (reason: string): DroverError =>
  new DroverError(
    'NAME_CONFLICT',
    `the name is taken by a backup whose config is damaged: use --replace, or another --name (${reason})`,
    { details: { reason } },
  )

function nameConflict(backup: Backup, checksum: Checksum | undefined): DroverError {
  const other = checksum ? ` (here ${checksum.slice(0, 16)}…)` : ''
  return new DroverError(
    'NAME_CONFLICT',
    `${backup.name} exists in the target with other content: ${backup.sizeBytes} bytes, checksum ${backup.checksum?.slice(0, 16) ?? 'unknown'}…${other}. Use another --name, or --replace`,
    {
      details: {
        name: backup.name,
        storedChecksum: backup.checksum ?? '',
        storedSizeBytes: backup.sizeBytes,
        ...(checksum ? { checksum } : {}),
      },
    },
  )
}

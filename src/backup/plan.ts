/** What to do with blocks and names, decided from facts alone. */
import { DroverError } from '../lib/errors.ts'
import { blockLength } from '../backupstore/block.ts'
import type { BlockMap } from '../backupstore/block-map.ts'
import { BlockTable } from '../backupstore/block-table.ts'
import type { BlockTable as Pool } from '../backupstore/block-table.ts'
import type { Checksum } from '../backupstore/block.ts'
import type { Compression, Family } from '../backupstore/compression.ts'
import { familyOf } from '../backupstore/compression.ts'
import type { Backup } from '../backupstore/config.ts'
import { blockKey } from '../backupstore/layout.ts'
import { codecConflict } from './block-writer.ts'

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
  | { readonly action: 'keep' }
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
      const otherBlocks = !backup.blocks.equals(content.blocks)
      const otherFamily = familyOf(backup.compression) !== familyOf(wanted.compression)
      if (newLabels || otherBlocks || otherFamily) {
        return { action: 'write', outcome: 'replaced' }
      }
      return { action: 'keep' }
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
    ? backup.blocks.equals(content.blocks)
    : backup.checksum === content.checksum)

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

/**
 * The compression a backup ends up with. Uncompressed blocks and framed ones may not meet in one
 * backup, so `none` becomes lz4 when blocks it shares are framed.
 * @param families the families of the stored blocks the image needs
 * @throws DroverError CODEC_CONFLICT
 */
export function planCompression(
  wanted: Compression,
  families: ReadonlyMap<Family, string>,
): Compression {
  const raw = families.get('raw')
  if (wanted === 'none' && families.has('framed')) {
    if (raw !== undefined) throw codecConflict(raw, 'framed')
    return 'lz4'
  }
  if (familyOf(wanted) === 'framed' && raw !== undefined) throw codecConflict(raw, 'framed')
  return wanted
}

/** The families of those blocks of an image that the pool has, each with one key as an example. */
export async function familiesInPool(
  { blocks, sizeBytes }: Content,
  pool: Pool,
  familyOfStored: (key: string, storedBytes: number, length: number) => Promise<Family>,
): Promise<Map<Family, string>> {
  const families = new Map<Family, string>()
  const done = new BlockTable()
  for (let entry = 0; entry < blocks.length; entry++) {
    const id = blocks.idAt(entry)
    const stored = pool.get(id)
    if (stored === undefined || done.has(id)) continue
    done.set(id, 0)
    const key = blockKey(id)
    const length = blockLength(sizeBytes, blocks.indexAt(entry))
    families.set(await familyOfStored(key, stored, length), key)
  }
  return families
}

/**
 * Which blocks may meet in one backup. Longhorn falls back between lz4 and gzip when it reads, but
 * not between those and plain bytes, so a backup is all framed or all raw.
 */
import { webcrypto } from 'node:crypto'
import pLimit from 'p-limit'
import { DroverError } from '../lib/errors.ts'
import { blockLength } from '../backupstore/block.ts'
import { BlockTable } from '../backupstore/block-table.ts'
import type { Compression, Family } from '../backupstore/compression.ts'
import { HEAD_BYTES, familyOf, looksLike } from '../backupstore/compression.ts'
import type { Key } from '../backupstore/layout.ts'
import { blockKey, idOfBlockKey } from '../backupstore/layout.ts'
import type { ReadStore } from '../backupstore/object-store.ts'
import { canBeBlock } from '../backupstore/pool.ts'
import type { Content } from './plan.ts'

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
    if (raw !== undefined) throw codecConflict(raw, 'raw', wanted)
    return 'lz4'
  }
  if (familyOf(wanted) === 'framed' && raw !== undefined) throw codecConflict(raw, 'raw', wanted)
  return wanted
}

/** The families of those blocks of an image that the pool has, each with one key as an example. */
export async function familiesInPool(
  store: Pick<ReadStore, 'open'>,
  { blocks, sizeBytes }: Content,
  pool: BlockTable,
): Promise<Map<Family, Key>> {
  const families = new Map<Family, Key>()
  const done = new BlockTable()
  const limit = pLimit(READERS)
  const looking = new Set<Promise<void>>()
  for (let entry = 0; entry < blocks.length; entry++) {
    const stored = pool.getEntry(blocks, entry)
    const length = blockLength(sizeBytes, blocks.indexAt(entry))
    if (stored === undefined || !canBeBlock(stored, length)) continue
    if (done.hasEntry(blocks, entry)) continue
    done.setEntry(blocks, entry, 0)
    const key = blockKey(blocks.idAt(entry))
    if (stored !== length) {
      families.set('framed', key)
      continue
    }
    const look = limit(async () => {
      families.set(await storedFamily(store, key, stored, length), key)
    })
    const looked = look.finally(() => looking.delete(looked))
    looking.add(looked)
    if (looking.size >= READERS * 2) await Promise.race(looking)
  }
  await Promise.all(looking)
  return families
}

/** Heads of blocks read at once. */
const READERS = 8

/** How a stored block is framed: told by its length, and by its head where that is not enough. */
export async function storedFamily(
  store: Pick<ReadStore, 'open'>,
  key: Key,
  storedBytes: number,
  length: number,
): Promise<Family> {
  if (storedBytes !== length) return 'framed'
  const head = await readStart(store, key, HEAD_BYTES)
  if (looksLike(head) === 'none') return 'raw'
  // plain data may begin like a frame: only its id tells
  const whole = await readStart(store, key, storedBytes)
  const hash = Buffer.from(await webcrypto.subtle.digest('SHA-512', whole)).toString('hex')
  return hash.startsWith(idOfBlockKey(key) ?? '-') ? 'raw' : 'framed'
}

async function readStart(store: Pick<ReadStore, 'open'>, key: Key, firstBytes: number) {
  const object = await store.open(key, { firstBytes })
  const parts: Uint8Array[] = []
  for await (const chunk of object?.chunks ?? []) parts.push(chunk)
  return Buffer.concat(parts)
}

/** @param stored how the block is stored that the backup cannot use */
export function codecConflict(key: Key, stored: Family, wanted: Compression): DroverError {
  const is = stored === 'raw' ? 'uncompressed' : 'compressed'
  const other = stored === 'raw' ? 'none' : 'lz4'
  // with `none` it would have been stored as lz4, were that possible
  const out = wanted === 'none' ? '' : `back up with --compression ${other}, or `
  return new DroverError(
    'CODEC_CONFLICT',
    `a block this image needs is stored ${is} already, and Longhorn could not restore a backup that mixes both: ${out}back up to another target`,
    { details: { key, stored, wanted } },
  )
}

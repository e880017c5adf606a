/** The pool of blocks that all backups of a target share. */
import { BlockTable } from './block-table.ts'
import type { BlockId } from './block.ts'
import { MAX_STORED_BLOCK_BYTES } from './block.ts'
import { BLOCKS_PREFIX, idOfBlockKey } from './layout.ts'
import type { ReadStore } from './object-store.ts'

/** Shorter than any LZ4 frame or gzip member with something in it. */
const SMALLEST_FRAME_BYTES = 16

/**
 * Whether a stored length can be that of a block of `length` bytes. What cannot is no block: a
 * write that failed half-way, or something else that got there.
 */
export const canBeBlock = (storedBytes: number, length: number): boolean =>
  storedBytes === length ||
  (storedBytes >= SMALLEST_FRAME_BYTES && storedBytes <= MAX_STORED_BLOCK_BYTES)

/**
 * Every block of the pool with its stored length, by one listing. An object without a byte is
 * left out: it is what a power cut makes of a block that was never flushed.
 */
export async function listPool(
  store: Pick<ReadStore, 'list'>,
  signal?: AbortSignal,
): Promise<BlockTable> {
  const pool = new BlockTable()
  for await (const page of store.list(BLOCKS_PREFIX, signal ? { signal } : {})) {
    for (const { key, sizeBytes, notPlain } of page) {
      const id: BlockId | undefined = idOfBlockKey(key)
      if (id !== undefined && sizeBytes > 0 && !notPlain) pool.set(id, sizeBytes)
    }
  }
  return pool
}

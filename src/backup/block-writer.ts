/**
 * Gets blocks into the pool. Until the lock is held nothing may appear there, so blocks are staged
 * where the driver can, or wait; then they are published in batches, each made durable before it
 * appears.
 *
 * What the pool holds is asked twice, by listing: once at the start, as a hint of what need not be
 * compressed, and once under the lock, which decides. What only the hint knew is written again.
 */
import { webcrypto } from 'node:crypto'
import { DroverError, throwIfAborted } from '../lib/errors.ts'
import { runLanes } from '../lib/lanes.ts'
import type { BlockId } from '../backupstore/block.ts'
import { BLOCK_BYTES, blockLength } from '../backupstore/block.ts'
import { BlockMap } from '../backupstore/block-map.ts'
import { BlockTable } from '../backupstore/block-table.ts'
import type { Compression, Family } from '../backupstore/compression.ts'
import { HEAD_BYTES, familyOf, looksLike } from '../backupstore/compression.ts'
import type { BlockCompute, Slot } from '../backupstore/compute.ts'
import type { Key } from '../backupstore/layout.ts'
import { blockKey, idOfBlockKey } from '../backupstore/layout.ts'
import type { Lock } from '../backupstore/lock.ts'
import type { Body, ReadStore, StagingArea, WriteStore } from '../backupstore/object-store.ts'
import { bodyOf } from '../backupstore/object-store.ts'
import type { ImageSource } from '../image/source.ts'
import { changed } from '../image/source.ts'
import type { FoundBlock } from './scan.ts'

/** Staged blocks that are flushed and published together: at most 128 MiB that a crash costs. */
const BATCH = 64

export interface BlockWriterOptions {
  readonly store: WriteStore
  readonly compute: BlockCompute
  readonly source: ImageSource
  readonly lock: Lock
  readonly signal: AbortSignal
  /** The pool as it was before the lock. */
  readonly hint: Promise<BlockTable>
  /** The pool as listed under the lock; settles when the lock is held. */
  readonly pool: Promise<BlockTable>
}

export interface Written {
  /** Blocks that this run added, each acknowledged by the store. */
  readonly blocks: number
  /** Their stored length, all together. */
  readonly bytes: number
}

export class BlockWriter {
  readonly #options: BlockWriterOptions
  readonly #area: StagingArea | undefined
  readonly #seen = new BlockTable()
  /** Reused because the hint had them; to be looked up again under the lock. */
  readonly #hinted = new BlockMap()
  readonly #staged = new Map<Key, StagedBlock>()
  #unpublished = 0
  #publishing: Promise<void> = Promise.resolve()
  #decided: BlockTable | undefined
  #blocks = 0
  #bytes = 0

  constructor(options: BlockWriterOptions, area: StagingArea | undefined) {
    this.#options = options
    this.#area = area
    // staged blocks are published as soon as they may be, not only when the next one comes
    options.pool.then(
      (pool) => {
        this.#decided = pool
        this.#publish().catch(() => undefined)
      },
      () => undefined,
    )
  }

  /** Takes a block that was just read; settles when its buffers are free. */
  async offer({ id, index, length, slot }: FoundBlock, compression: Compression): Promise<void> {
    if (this.#seen.has(id)) return // this run deals with it already
    this.#seen.set(id, index)
    const pool = this.#decided ?? (await this.#options.hint)
    const stored = pool.get(id)
    if (stored === undefined) return this.#write(id, length, slot, compression)
    if (pool !== this.#decided) this.#hinted.push(index, id)
    await this.#requireFamily(blockKey(id), stored, length, familyOf(compression))
  }

  /** Settles when every block offered is in the pool, durable. */
  async finish(compression: Compression): Promise<Compression> {
    await this.writeMissing(this.#hinted, await this.#options.pool, compression)
    return compression
  }

  /** Reads the blocks of a map that a pool lacks again from the image, and writes them. */
  async writeMissing(map: BlockMap, pool: BlockTable, compression: Compression): Promise<void> {
    const { source, compute, signal } = this.#options
    const done = new BlockTable()
    function* missing(): Generator<number> {
      for (let entry = 0; entry < map.length; entry++) {
        if (pool.hasEntry(map, entry) || done.hasEntry(map, entry)) continue
        done.setEntry(map, entry, 0)
        yield entry
      }
    }
    await runLanes(compute.slots, missing(), signal, async (entry, slot, laneSignal) => {
      const index = map.indexAt(entry)
      const length = blockLength(source.sizeBytes, index)
      await source.read(slot.raw.subarray(0, length), index * BLOCK_BYTES, laneSignal)
      if ((await compute.identify(slot, length)) !== map.idAt(entry)) {
        throw changed(source.file, `its block at offset ${index * BLOCK_BYTES} is another one now`)
      }
      await this.#write(map.idAt(entry), length, slot, compression)
    })
    await this.#publish()
  }

  written(): Written {
    return { blocks: this.#blocks, bytes: this.#bytes }
  }

  async close(): Promise<void> {
    await this.#publishing.catch(() => undefined)
    await this.#area?.discard()
  }

  async #write(id: BlockId, length: number, slot: Slot, compression: Compression): Promise<void> {
    const { compute, store, lock, signal } = this.#options
    const key = blockKey(id)
    if (this.#area) {
      const bytes = await compute.encode(slot, length, compression)
      this.#staged.set(key, { bytes, length, family: familyOf(compression) })
      await this.#area.add(key, slot.stored.subarray(0, bytes), { signal })
      this.#unpublished += 1
      if (this.#decided && this.#unpublished >= BATCH) await this.#publish()
      return
    }
    const pool = await this.#options.pool
    if (pool.has(id)) return
    const bytes = await compute.encode(slot, length, compression)
    lock.assertHeld()
    const body = bodyOf(slot.stored.subarray(0, bytes))
    const { written } = await store.put(key, body, { expect: 'absent', durable: true, signal })
    if (written || (await this.#replaceEmpty(key, body))) this.#count(bytes)
    else await this.#requireFamilyOfExisting(key, length, familyOf(compression))
  }

  /** An object without a byte is what is left of a failed write, and no block. */
  async #replaceEmpty(key: Key, body: Body): Promise<boolean> {
    const { store, signal } = this.#options
    const there = await store.stat(key)
    if (there?.sizeBytes !== 0) return false
    const { version } = there
    return (await store.put(key, body, { expect: { version }, durable: true, signal })).written
  }

  /** One batch at a time; what is staged meanwhile goes with the next. */
  #publish(): Promise<void> {
    this.#publishing = this.#publishing.then(async () => {
      if (!this.#area || this.#unpublished === 0) return
      this.#unpublished = 0
      const { created, existed } = await this.#area.publish(() => {
        throwIfAborted(this.#options.signal)
        this.#options.lock.assertHeld()
      })
      for (const key of created) this.#count(this.#take(key).bytes)
      for (const key of existed) {
        const { length, family } = this.#take(key)
        await this.#requireFamilyOfExisting(key, length, family)
      }
    })
    return this.#publishing
  }

  #take(key: Key): StagedBlock {
    const staged = this.#staged.get(key)
    if (!staged) throw new DroverError('INTERNAL', `${key} was published but never staged`)
    this.#staged.delete(key)
    return staged
  }

  #count(bytes: number): void {
    this.#blocks += 1
    this.#bytes += bytes
  }

  /** For a block that somebody else stored since the pool was listed. */
  async #requireFamilyOfExisting(key: Key, length: number, family: Family): Promise<void> {
    const info = await this.#options.store.stat(key)
    if (!info) {
      throw new DroverError('STORE_CHANGED', `${key} came and went while the lock was held`)
    }
    await this.#requireFamily(key, info.sizeBytes, length, family)
  }

  async #requireFamily(key: Key, storedBytes: number, length: number, family: Family) {
    const stored = await storedFamily(this.#options.store, key, storedBytes, length)
    if (stored !== family) throw codecConflict(key, family)
  }
}

interface StagedBlock {
  readonly bytes: number
  readonly length: number
  readonly family: Family
}

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

export function codecConflict(key: Key, wanted: Family): DroverError {
  const [is, out] =
    wanted === 'framed'
      ? ['uncompressed', 'back up with --compression none, or to another target']
      : ['compressed', 'back up with --compression lz4, or to another target']
  return new DroverError(
    'CODEC_CONFLICT',
    `a block this image needs is stored ${is} already, and Longhorn could not restore a backup that mixes both: ${out}`,
    { details: { key, wanted } },
  )
}

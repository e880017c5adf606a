/**
 * Gets blocks into the pool. Until the lock is held nothing may appear there, so blocks are staged
 * where the driver can, or wait; then they are published in batches, each made durable before it
 * appears.
 *
 * What the pool holds is asked twice, by listing: once at the start, as a hint of what need not be
 * compressed, and once under the lock, which decides. What only the hint knew is written again.
 */
import { DroverError, throwIfAborted } from '../lib/errors.ts'
import { runLanes } from '../lib/lanes.ts'
import type { BlockId } from '../backupstore/block.ts'
import { BLOCK_BYTES, blockLength } from '../backupstore/block.ts'
import { BlockMap } from '../backupstore/block-map.ts'
import { BlockTable } from '../backupstore/block-table.ts'
import type { Compression } from '../backupstore/compression.ts'
import { familyOf } from '../backupstore/compression.ts'
import type { BlockCompute, Slot } from '../backupstore/compute.ts'
import type { Key } from '../backupstore/layout.ts'
import { blockKey } from '../backupstore/layout.ts'
import type { Lock } from '../backupstore/lock.ts'
import type { Body, PutOptions, StagingArea, WriteStore } from '../backupstore/object-store.ts'
import { bodyOf } from '../backupstore/object-store.ts'
import { canBeBlock } from '../backupstore/pool.ts'
import type { ImageSource } from '../image/source.ts'
import { changed } from '../image/source.ts'
import { codecConflict, storedFamily } from './codec-family.ts'
import type { FoundBlock } from './scan.ts'

/** Staged blocks that are flushed and published together: at most 128 MiB that a crash costs. */
const BATCH = 64

export interface BlockWriterOptions {
  readonly store: WriteStore
  readonly compute: BlockCompute
  readonly source: ImageSource
  readonly lock: Lock
  readonly signal: AbortSignal
  /** The pool as listed under the lock; settles when the lock is held. */
  readonly pool: Promise<BlockTable>
  /** Told of what fails while nobody waits for it. */
  readonly onFailure: (error: unknown) => void
}

export interface Written {
  /** Blocks that this run added, each acknowledged by the store. */
  readonly blocks: number
  /** Their stored length, all together. */
  readonly bytes: number
}

export class BlockWriter {
  readonly #options: BlockWriterOptions
  #area: StagingArea | undefined
  #hint: Promise<BlockTable> | undefined // let go of once the pool is decided: it may be large
  readonly #seen = new BlockTable()
  readonly #hinted = new BlockMap() // reused because the hint had them; looked up again later
  readonly #staged = new Map<Key, StagedBlock>()
  #unpublished = 0
  #publishing: Promise<void> = Promise.resolve()
  #decided: BlockTable | undefined
  #blocks = 0
  #bytes = 0

  private constructor(options: BlockWriterOptions, hint: Promise<BlockTable>) {
    this.#options = options
    this.#hint = hint
    // staged blocks are published as soon as they may be, not only when the next one comes
    options.pool.then(
      (pool) => {
        this.#decided = pool
        this.#hint = undefined
        this.#publish().catch(options.onFailure)
      },
      () => undefined,
    )
  }

  /** @param hint the pool as it was before the lock */
  static async open(options: BlockWriterOptions, hint: Promise<BlockTable>): Promise<BlockWriter> {
    const writer = new BlockWriter(options, hint)
    writer.#area = await options.store.openStaging?.((key, sizeBytes) =>
      canBeBlock(sizeBytes, writer.#staged.get(key)?.length ?? 0),
    )
    return writer
  }

  /** Whether nothing may be written yet, and nothing can be staged. */
  isEarly(): boolean {
    return !this.#decided && !this.#hasRoom()
  }

  /** Whether `offer` would wait for the lock with a block: it is new, as far as is known. */
  async mustWait(id: BlockId, length: number): Promise<boolean> {
    if (this.#seen.has(id) || !this.isEarly()) return false
    const stored = (await this.#hint)?.get(id)
    return stored === undefined || !canBeBlock(stored, length)
  }

  /** Takes a block that was just read; settles when its buffers are free. */
  async offer({ id, index, length, slot }: FoundBlock, compression: Compression): Promise<void> {
    if (this.#seen.has(id)) return // this run deals with it already
    this.#seen.set(id, index)
    const pool = this.#decided ?? (await this.#hint)
    const stored = pool?.get(id)
    if (stored === undefined || !canBeBlock(stored, length)) {
      return this.#write(id, length, slot, compression)
    }
    // a hint decides what is compressed now, and nothing else
    if (pool === this.#decided) await this.#requireFamily(blockKey(id), stored, length, compression)
    else this.#hinted.push(index, id)
  }

  /** Settles when every block offered is in the pool, durable. */
  async finish(compression: Compression): Promise<Compression> {
    const pool = await this.#options.pool
    const { sizeBytes } = this.#options.source
    for (let entry = 0; entry < this.#hinted.length; entry++) {
      const stored = pool.getEntry(this.#hinted, entry)
      const length = blockLength(sizeBytes, this.#hinted.indexAt(entry))
      if (stored !== length) continue // a frame, or missing: seen to below
      await this.#requireFamily(blockKey(this.#hinted.idAt(entry)), stored, length, compression)
    }
    await this.writeMissing(this.#hinted, pool, compression)
    return compression
  }

  /** Reads the blocks of a map that a pool lacks again from the image, and writes them. */
  async writeMissing(map: BlockMap, pool: BlockTable, compression: Compression): Promise<void> {
    const { source, compute, signal } = this.#options
    const done = new BlockTable()
    function* missing(): Generator<number> {
      for (let entry = 0; entry < map.length; entry++) {
        const stored = pool.getEntry(map, entry)
        const length = blockLength(source.sizeBytes, map.indexAt(entry))
        if (stored !== undefined && canBeBlock(stored, length)) continue
        if (done.hasEntry(map, entry)) continue
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
    const { store, lock, signal } = this.#options
    const key = blockKey(id)
    if (this.#area && this.#hasRoom() && !(this.#area.isScratch && this.#decided)) {
      const { bytes, md5 } = await this.#encode(slot, length, compression)
      this.#staged.set(key, { bytes, length, compression })
      const options = { signal, ...(md5 === undefined ? {} : { md5 }) }
      await this.#area.add(key, slot.stored.subarray(0, bytes), options)
      this.#unpublished += 1
      if (this.#decided && this.#unpublished >= BATCH) await this.#publish()
      return
    }
    const pool = await this.#options.pool
    const there = pool.get(id)
    if (there !== undefined && canBeBlock(there, length)) return
    const { bytes, md5 } = await this.#encode(slot, length, compression)
    const body = bodyOf(slot.stored.subarray(0, bytes), md5)
    const put = { durable: true, before: () => lock.assertHeld(), signal } as const
    const { written } = await store.put(key, body, { ...put, expect: 'absent', expectIfFree: true })
    if (written || (await this.#replaceBroken(key, length, body, put))) this.#count(bytes)
    else await this.#requireFamilyOfExisting(key, length, compression)
  }

  #hasRoom(): boolean {
    return this.#area?.hasRoom?.() ?? this.#area !== undefined
  }

  async #encode(slot: Slot, length: number, compression: Compression) {
    const { compute, store } = this.#options
    if (store.sendsMd5) return compute.encodeWithMd5(slot, length, compression)
    return { bytes: await compute.encode(slot, length, compression), md5: undefined }
  }

  /** What cannot be a block by its length is the remains of a failed write. */
  async #replaceBroken(key: Key, length: number, body: Body, put: PutOptions): Promise<boolean> {
    const { store } = this.#options
    const there = await store.stat(key, { signal: this.#options.signal })
    if (!there || canBeBlock(there.sizeBytes, length)) return false
    return (await store.put(key, body, { ...put, expect: { version: there.version } })).written
  }

  /** One batch at a time; what is staged meanwhile goes with the next. */
  #publish(): Promise<void> {
    this.#publishing = this.#publishing.then(async () => {
      if (!this.#area || this.#unpublished === 0) return
      this.#unpublished = 0
      const { signal, lock } = this.#options
      const mayAppear = () => {
        throwIfAborted(signal)
        lock.assertHeld()
      }
      const { created, existed } = await this.#area.publish(mayAppear, { signal })
      for (const key of created) this.#count(this.#take(key).bytes)
      for (const key of existed) {
        const { length, compression } = this.#take(key)
        await this.#requireFamilyOfExisting(key, length, compression)
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
  async #requireFamilyOfExisting(key: Key, length: number, compression: Compression) {
    const info = await this.#options.store.stat(key, { signal: this.#options.signal })
    if (!info || !canBeBlock(info.sizeBytes, length)) {
      throw new DroverError('STORE_CHANGED', `${key} came and went while the lock was held`)
    }
    await this.#requireFamily(key, info.sizeBytes, length, compression)
  }

  async #requireFamily(key: Key, storedBytes: number, length: number, compression: Compression) {
    const stored = await storedFamily(this.#options.store, key, storedBytes, length)
    if (stored !== familyOf(compression)) throw codecConflict(key, stored, compression)
  }
}

type StagedBlock = Readonly<{ bytes: number; length: number; compression: Compression }>

/** A backup in a store in memory: real blocks and a real config, to be damaged by hand. */
import { createHash } from 'node:crypto'
import type { BlockId, Checksum } from '../../src/backupstore/block.ts'
import { BlockMap } from '../../src/backupstore/block-map.ts'
import { encodeBlock } from '../../src/backupstore/codec.ts'
import type { ProvenBy } from '../../src/backupstore/compression.ts'
import type { BlockCompute } from '../../src/backupstore/compute.ts'
import { serializeConfig } from '../../src/backupstore/config.ts'
import type { Key } from '../../src/backupstore/layout.ts'
import { blockKey, configKey } from '../../src/backupstore/layout.ts'
import { readableName } from '../../src/backupstore/names.ts'
import type { BackupUrl } from '../../src/backupstore/target-url.ts'
import { parseBackupUrl } from '../../src/backupstore/target-url.ts'
import type { MemoryStore } from '../../src/storage/memory/memory-store.ts'
import { openMemoryStore } from '../../src/storage/memory/memory-store.ts'
import { FakeClock } from './fake-clock.ts'
import { idOf } from './workspace.ts'

export interface MemoryBackup {
  readonly clock: FakeClock
  readonly store: MemoryStore
  readonly url: BackupUrl
  readonly image: Buffer
  /** SHA-512 of the image. */
  readonly sum: Checksum
  /** The id under which the config lists the block that stands at this place of the image. */
  readonly id: (index: number) => BlockId
  readonly key: (index: number) => Key
  /** Stores other bytes in place of a block; what is stored is what an LZ4 frame of them is. */
  readonly exchange: (index: number, bytes: Buffer) => void
  readonly swap: (a: number, b: number) => void
  readonly truncate: (index: number) => void
  /** The keys of blocks in the order in which they were read. */
  readonly readings: Key[]
  /** Readings of a block, counted from 1, that give what an LZ4 frame of these bytes is. */
  readonly readBadly: (index: number, readings: readonly number[], stored: Buffer) => void
}

export interface MemoryBackupOptions {
  /** What the config says of the whole; the truth unless given, null for nothing. */
  readonly checksum?: Checksum | null
  /** Ids that the config lists instead of the hashes of blocks, by their places. */
  readonly listedAs?: ReadonlyMap<number, BlockId>
}

/** @param blocks all but the last of 2 MiB; those of zeros are left out */
export function memoryBackup(
  blocks: readonly Buffer[],
  { checksum, listedAs = new Map() }: MemoryBackupOptions = {},
): MemoryBackup {
  const clock = new FakeClock()
  const plain = openMemoryStore({ clock })
  const { objects } = plain
  const image = Buffer.concat(blocks)
  const sum = createHash('sha512').update(image).digest('hex') as Checksum
  const ids = blocks.map((bytes, index) => listedAs.get(index) ?? (idOf(bytes) as BlockId))
  const id = (index: number): BlockId => {
    const found = ids[index]
    if (found === undefined) throw new Error(`no block ${index}`)
    return found
  }
  const key = (index: number) => blockKey(id(index))
  const put = (at: Key, bytes: Buffer) =>
    objects.set(at, { bytes, modifiedAtMs: clock.wallMs(), generation: 0 })
  const get = (index: number): Buffer => objects.get(key(index))?.bytes ?? Buffer.alloc(0)

  const map = new BlockMap()
  for (const [index, bytes] of blocks.entries()) {
    if (bytes.every((byte) => byte === 0)) continue
    map.push(index, id(index))
    put(key(index), frameOfBlock(bytes))
  }
  const name = readableName('disk')
  const config = serializeConfig({
    name,
    sizeBytes: image.length,
    checksum: checksum === null ? undefined : (checksum ?? sum),
    labels: {},
    compression: 'lz4',
    createdAt: '2026-01-01T00:00:00Z',
    completedAt: '2026-01-01T00:00:01Z',
    secret: '',
    secretNamespace: '',
    unknown: {},
    blocks: map,
  })
  put(configKey(name), Buffer.concat([...config.chunks()]))

  const readings: Key[] = []
  const bad = new Map<Key, { at: readonly number[]; stored: Buffer }>()
  const store: MemoryStore = {
    ...plain,
    async readInto(at, into, options) {
      readings.push(at)
      const nth = readings.filter((other) => other === at).length
      const fault = bad.get(at)
      if (!fault?.at.includes(nth)) return plain.readInto(at, into, options)
      into.set(fault.stored)
      return fault.stored.length
    },
  }
  return {
    clock,
    store,
    url: parseBackupUrl('vfs:///store?backingImage=disk'),
    image,
    sum,
    id,
    key,
    exchange: (index, bytes) => void put(key(index), frameOfBlock(bytes)),
    swap(a, b) {
      const [ofA, ofB] = [get(a), get(b)]
      put(key(a), ofB)
      put(key(b), ofA)
    },
    truncate: (index) => void put(key(index), get(index).subarray(0, -10)),
    readings,
    readBadly: (index, at, stored) => void bad.set(key(index), { at, stored }),
  }
}

/** A good LZ4 frame: only a hash can tell whether it is of the right bytes. */
export const frameOfBlock = (bytes: Buffer): Buffer => Buffer.from(encodeBlock(bytes, 'lz4'))

/** The same bytes but for one bit. */
export function altered(bytes: Buffer, at = 1000): Buffer {
  const other = Buffer.from(bytes)
  other[at] = (other[at] ?? 0) ^ 0x01
  return other
}

/** Tells how blocks are proven, and how often a whole file is hashed. */
export function watchProofs(compute: BlockCompute) {
  const proofs: ProvenBy[] = []
  const seen = { proofs, fileHashes: 0 }
  const watched: BlockCompute = {
    ...compute,
    decode(slot, storedLength, block) {
      proofs.push(block.provenBy)
      return compute.decode(slot, storedLength, block)
    },
    openFileHash(signal) {
      seen.fileHashes += 1
      return compute.openFileHash(signal)
    },
  }
  return { seen, compute: watched }
}

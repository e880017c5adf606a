/** Made-up but legal things of the domain, for property tests. */
import * as fc from 'fast-check'
import type { BlockId, Checksum } from '../../src/backupstore/block.ts'
import { BLOCK_BYTES } from '../../src/backupstore/block.ts'
import { BlockMap } from '../../src/backupstore/block-map.ts'
import { COMPRESSIONS } from '../../src/backupstore/compression.ts'
import type { Backup } from '../../src/backupstore/config.ts'
import { configTime } from '../../src/backupstore/config.ts'
import type { BackupName } from '../../src/backupstore/names.ts'

const hex = (digits: number) =>
  fc
    .uint8Array({ minLength: digits / 2, maxLength: digits / 2 })
    .map((bytes) => Buffer.from(bytes).toString('hex'))

export const blockIds = hex(64) as fc.Arbitrary<BlockId>
export const checksums = hex(128) as fc.Arbitrary<Checksum>

/** Ids that meet each other often, and such as differ in one place only. */
export const fewBlockIds = fc.oneof(
  fc.integer({ min: 0, max: 40 }).map((n) => n.toString(16).padStart(64, '0')),
  fc.integer({ min: 0, max: 40 }).map((n) => n.toString(16).padEnd(64, '0')),
  fc.constantFrom('f'.repeat(64), '0'.repeat(64)),
) as fc.Arbitrary<BlockId>

export const readableNames = fc.stringMatching(
  /^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,40}$/,
) as fc.Arbitrary<BackupName>

export type Entry = readonly [index: number, id: BlockId]

export function mapOf(entries: Iterable<Entry>): BlockMap {
  const map = new BlockMap()
  for (const [index, id] of entries) map.push(index, id)
  return map
}

export const entriesOf = (map: BlockMap): Entry[] =>
  Array.from({ length: map.length }, (_, entry) => [map.indexAt(entry), map.idAt(entry)] as const)

/** Entries of an image in ascending order, with holes between them. */
export const entryLists = (options: { maxIndex?: number; maxLength?: number } = {}) =>
  fc
    .uniqueArray(
      fc.tuple(fc.nat({ max: options.maxIndex ?? 200 }), fc.oneof(blockIds, fewBlockIds)),
      { selector: ([index]) => index, maxLength: options.maxLength ?? 40 },
    )
    .map((entries) => entries.sort(([a], [b]) => a - b))

/** Text as people put it into labels, and as they should not. */
const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 12 }),
  fc.constantFrom('__proto__', 'constructor', '', '{"a":[', '"', '\\', '\u0000', '\u2028', '€'),
)

const KNOWN =
  /^(Name|Size|BlockCount|Checksum|Labels|CompressionMethod|CreatedTime|CompleteTime|Secret|SecretNamespace|ProcessingBlocks|Blocks)$/

/**
 * Objects whose `__proto__` is a member like any other. No backslash in a key: `JSON.parse` of
 * Node 24 (V8 13.6) takes the key `"\\n"` for `"\\\\"` once it has seen one such at that place.
 */
const objects = <T>(keys: fc.Arbitrary<string>, values: fc.Arbitrary<T>) =>
  fc
    .array(
      fc.tuple(
        keys.filter((key) => !key.includes('\\')),
        values,
      ),
      { maxLength: 5 },
    )
    .map((members) => Object.fromEntries(members) as Record<string, T>)

const configTimes = fc
  .integer({ min: 0, max: Date.UTC(2100, 0) / 1000 })
  .map((seconds) => configTime(seconds * 1000))

export const backups: fc.Arbitrary<Backup> = fc
  .record({
    name: readableNames,
    entries: entryLists(),
    tail: fc.integer({ min: 1, max: BLOCK_BYTES }),
    hole: fc.nat({ max: 3 }),
    checksum: fc.option(checksums, { nil: undefined }),
    labels: objects(anyText, anyText),
    compression: fc.constantFrom(...COMPRESSIONS),
    createdAt: configTimes,
    completedAt: fc.oneof(configTimes, fc.constant('')),
    secret: anyText,
    secretNamespace: anyText,
    unknown: objects(
      anyText.filter((key) => !KNOWN.test(key)),
      // a negative zero is a zero in JSON
      fc
        .jsonValue()
        .map((value) => JSON.stringify(value))
        .filter((text) => !text.includes('\\\\'))
        .map((text) => JSON.parse(text) as unknown),
    ),
  })
  .map(({ entries, tail, hole, ...facts }) => ({
    ...facts,
    sizeBytes: ((entries.at(-1)?.[0] ?? 0) + hole) * BLOCK_BYTES + tail,
    blocks: mapOf(entries),
  }))

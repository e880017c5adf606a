import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { CommitPlan, Content, Existing } from '../../../src/backup/plan.ts'
import { familiesInPool, planCompression } from '../../../src/backup/codec-family.ts'
import { planCommit } from '../../../src/backup/plan.ts'
import type { BlockId, Checksum } from '../../../src/backupstore/block.ts'
import { BLOCK_BYTES } from '../../../src/backupstore/block.ts'
import { BlockTable } from '../../../src/backupstore/block-table.ts'
import type { Compression, Family } from '../../../src/backupstore/compression.ts'
import type { Backup } from '../../../src/backupstore/config.ts'
import { blockIdOf } from '../../../src/backupstore/codec.ts'
import { blockKey } from '../../../src/backupstore/layout.ts'
import { bodyOf } from '../../../src/backupstore/object-store.ts'
import { openMemoryStore } from '../../../src/storage/memory/memory-store.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'
import { noise } from '../../helpers/images.ts'
import type { BackupName } from '../../../src/backupstore/names.ts'
import type { ErrorCode } from '../../../src/lib/errors.ts'
import { isDroverError } from '../../../src/lib/errors.ts'
import { mapOf } from '../../helpers/arbitraries.ts'

const A = 'aa'.repeat(32) as BlockId
const B = 'bb'.repeat(32) as BlockId
const C = 'cc'.repeat(32) as BlockId
const SUM = '11'.repeat(64) as Checksum
const OTHER_SUM = '22'.repeat(64) as Checksum
const SIZE = 3 * BLOCK_BYTES - 7

const content: Content = {
  sizeBytes: SIZE,
  checksum: SUM,
  blocks: mapOf([
    [0, A],
    [2, B],
  ]),
}

const stored = (differing: Partial<Backup> = {}): Existing => ({
  kind: 'complete',
  version: 'v1',
  backup: backup(differing),
})

const backup = (differing: Partial<Backup>): Backup => ({
  name: 'ubuntu' as BackupName,
  sizeBytes: SIZE,
  checksum: SUM,
  labels: { a: '1' },
  compression: 'lz4',
  createdAt: '2026-01-01T00:00:00Z',
  completedAt: '2026-01-01T00:00:02Z',
  secret: '',
  secretNamespace: '',
  unknown: {},
  blocks: mapOf([
    [0, A],
    [2, B],
  ]),
  ...differing,
})

type Wanted = Parameters<typeof planCommit>[2]
const wanted = (differing: Partial<Wanted> = {}): Wanted => ({
  replace: false,
  labels: undefined,
  compression: 'lz4',
  ...differing,
})

const CREATE: CommitPlan = { action: 'write', outcome: 'created' }
const REPLACE: CommitPlan = { action: 'write', outcome: 'replaced' }
const KEEP: CommitPlan = { action: 'keep', labelsDiffer: false }

describe('what is committed', () => {
  const dead: Existing = { kind: 'dead', version: 'v1', backup: backup({ completedAt: '' }) }
  const damaged: Existing = { kind: 'damaged', version: 'v1', reason: 'garbage at 7' }
  const otherBlocks = mapOf([
    [0, A],
    [2, C],
  ])
  const cases: Array<[what: string, Existing, Wanted, CommitPlan | ErrorCode]> = [
    ['a new backup, where there is none', { kind: 'none' }, wanted(), CREATE],
    ['a new one over a dead placeholder', dead, wanted(), CREATE],
    [
      'a new one over a dead placeholder, even with --replace',
      dead,
      wanted({ replace: true }),
      CREATE,
    ],
    ['nothing, when the same is there', stored(), wanted(), KEEP],
    [
      'nothing, when the same is there, with --replace too',
      stored(),
      wanted({ replace: true }),
      KEEP,
    ],
    ['nothing over a damaged config', damaged, wanted(), 'NAME_CONFLICT'],
    ['a replacement of a damaged config on demand', damaged, wanted({ replace: true }), REPLACE],
    ['nothing over other content', stored({ checksum: OTHER_SUM }), wanted(), 'NAME_CONFLICT'],
    [
      'a replacement of other content on demand',
      stored({ checksum: OTHER_SUM }),
      wanted({ replace: true }),
      REPLACE,
    ],
    ['nothing over another size', stored({ sizeBytes: SIZE + 1 }), wanted(), 'NAME_CONFLICT'],
    ['nothing, when blocks alone prove the same', stored({ checksum: undefined }), wanted(), KEEP],
    [
      'nothing over other blocks without a checksum',
      stored({ checksum: undefined, blocks: otherBlocks }),
      wanted(),
      'NAME_CONFLICT',
    ],
    [
      'our blocks, when theirs cannot make this checksum',
      stored({ blocks: otherBlocks }),
      wanted(),
      REPLACE,
    ],
    ['new labels on demand', stored(), wanted({ replace: true, labels: { a: '2' } }), REPLACE],
    [
      'no new labels without --replace, which is told',
      stored(),
      wanted({ labels: { a: '2' } }),
      { action: 'keep', labelsDiffer: true },
    ],
    ['nothing for the same labels', stored(), wanted({ replace: true, labels: { a: '1' } }), KEEP],
    ['one label less', stored(), wanted({ replace: true, labels: {} }), REPLACE],
    ['one label more', stored(), wanted({ replace: true, labels: { a: '1', b: '2' } }), REPLACE],
    [
      'a label that every object seems to have',
      stored({ labels: {} }),
      wanted({ replace: true, labels: Object.fromEntries([['__proto__', 'x']]) }),
      REPLACE,
    ],
    ['nothing, between lz4 and gzip', stored({ compression: 'gzip' }), wanted(), KEEP],
    [
      'a config that fits, when blocks are raw now',
      stored(),
      wanted({ compression: 'none' }),
      REPLACE,
    ],
    [
      'a config that fits, when blocks are framed now',
      stored({ compression: 'none' }),
      wanted(),
      REPLACE,
    ],
  ]
  for (const [what, existing, wanted, expected] of cases) {
    it(`is ${what}`, () => {
      if (typeof expected === 'object') {
        assert.deepEqual(planCommit(existing, content, wanted), expected)
      } else {
        assert.throws(
          () => planCommit(existing, content, wanted),
          (error) => isDroverError(error, expected),
        )
      }
    })
  }

  it('is told in a conflict: what stands there, and the ways out', () => {
    assert.throws(
      () => planCommit(stored({ checksum: OTHER_SUM, sizeBytes: 42 }), content, wanted()),
      (error) => {
        assert.ok(isDroverError(error, 'NAME_CONFLICT'))
        assert.match(error.message, /^ubuntu exists .* 42 bytes, checksum 2222222222222222…/)
        assert.match(error.message, /--name, or --replace/)
        assert.deepEqual(error.details, {
          name: 'ubuntu',
          storedChecksum: OTHER_SUM,
          storedSizeBytes: 42,
          checksum: SUM,
        })
        return true
      },
    )
    assert.throws(
      () => planCommit(damaged, content, wanted()),
      (error) => isDroverError(error) && /garbage at 7/.test(error.message),
    )
  })
})

describe('the compression of a backup', () => {
  const raw: Array<[Family, string]> = [['raw', 'key-of-raw']]
  const framed: Array<[Family, string]> = [['framed', 'key-of-framed']]
  const cases: Array<[Compression, Array<[Family, string]>, Compression | 'CODEC_CONFLICT']> = [
    ['lz4', [], 'lz4'],
    ['gzip', [], 'gzip'],
    ['none', [], 'none'],
    ['lz4', framed, 'lz4'],
    ['gzip', framed, 'gzip'],
    ['none', framed, 'lz4'],
    ['none', raw, 'none'],
    ['lz4', raw, 'CODEC_CONFLICT'],
    ['gzip', raw, 'CODEC_CONFLICT'],
    ['lz4', [...raw, ...framed], 'CODEC_CONFLICT'],
    ['gzip', [...raw, ...framed], 'CODEC_CONFLICT'],
    ['none', [...raw, ...framed], 'CODEC_CONFLICT'],
  ]
  for (const [wanted, families, expected] of cases) {
    const shared = families.map(([family]) => family).join(' and ') || 'no'
    it(`is ${expected} when ${wanted} was wanted and it shares ${shared} blocks`, () => {
      const found = new Map(families)
      if (expected === 'CODEC_CONFLICT') {
        assert.throws(
          () => planCompression(wanted, found),
          (error) =>
            isDroverError(error, 'CODEC_CONFLICT') &&
            error.details['key'] === 'key-of-raw' &&
            /another target/.test(error.message) &&
            // no advice that cannot help
            /--compression none/.test(error.message) === (wanted !== 'none'),
        )
      } else {
        assert.equal(planCompression(wanted, found), expected)
      }
    })
  }
})

describe('the families of the blocks an image shares', () => {
  it('are those of its own blocks only, by length first and by their heads then', async () => {
    const store = openMemoryStore({ clock: new FakeClock() })
    const plain = noise(1, BLOCK_BYTES)
    const raw = blockIdOf(plain)
    const framedLike = Buffer.concat([Buffer.from('1f8b08', 'hex'), noise(2, BLOCK_BYTES - 3)])
    const alike = blockIdOf(framedLike)
    const bodies: Array<[BlockId, Buffer]> = [
      [raw, plain],
      [alike, framedLike],
    ]
    const pool = new BlockTable()
    for (const [id, bytes] of bodies) {
      await store.put(blockKey(id), bodyOf(bytes))
      pool.set(id, bytes.length)
    }
    pool.set(A, 100)
    pool.set(C, 300) // not a block of the image
    const families = (blocks: Content['blocks']) =>
      familiesInPool(store, { sizeBytes: SIZE, checksum: SUM, blocks }, pool)

    assert.deepEqual(await families(mapOf([[0, A]])), new Map([['framed', blockKey(A)]]))
    assert.deepEqual(await families(mapOf([[0, raw]])), new Map([['raw', blockKey(raw)]]))
    assert.deepEqual(await families(mapOf([[0, alike]])), new Map([['raw', blockKey(alike)]]))
    assert.deepEqual(await families(mapOf([[0, B]])), new Map())
  })
})

import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { after, describe, it } from 'node:test'
import type { BlockId } from '../../../src/backupstore/block.ts'
import { silentObserver } from '../../../src/backupstore/observer.ts'
import { openCompute } from '../../../src/compute/pool.ts'
import { isDroverError } from '../../../src/lib/errors.ts'
import type { VerifyLevel, VerifySummary } from '../../../src/verify/verify.ts'
import { verifyBackup } from '../../../src/verify/verify.ts'
import { BLOCK, noise, text } from '../../helpers/images.ts'
import type { MemoryBackup, MemoryBackupOptions } from '../../helpers/memory-backup.ts'
import { altered, frameOfBlock, memoryBackup, watchProofs } from '../../helpers/memory-backup.ts'

const pool = openCompute({ blockThreads: 2, slots: 4 })
after(() => pool.close())

/** Zeros at 2; the first again at 6; a short tail. */
const blocks = [
  text(0, BLOCK),
  noise(1, BLOCK),
  Buffer.alloc(BLOCK),
  text(3, BLOCK),
  text(4, BLOCK),
  text(5, BLOCK),
  text(0, BLOCK),
  noise(7, 777),
]
const STORED = 7
const at = (index: number): Buffer => blocks[index] ?? Buffer.alloc(0)
const times = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value)

/** A verification, and how each block was proven. */
async function verify(t: TestContext, backup: MemoryBackup, level: VerifyLevel) {
  const { seen, compute } = watchProofs(pool)
  const summary = await verifyBackup(
    { backup: backup.url, level, concurrentLimit: 2 },
    {
      store: backup.store,
      compute,
      clock: backup.clock,
      lock: undefined,
      signal: t.signal,
      observer: silentObserver,
    },
  )
  return { ...seen, summary }
}

/** What is bad, by the first places in the image. */
const badOf = ({ missing, corrupt }: VerifySummary) => ({
  missing: missing.map(({ offsets }) => (offsets[0] ?? NaN) / BLOCK),
  corrupt: corrupt.map(({ offsets }) => (offsets[0] ?? NaN) / BLOCK),
})

describe('a good backup', { timeout: 60_000 }, () => {
  it('is proven by the hash of the file, each block read once', async (t) => {
    const backup = memoryBackup(blocks)
    const { summary, proofs, fileHashes } = await verify(t, backup, 'full')
    assert.deepEqual([summary.ok, badOf(summary)], [true, { missing: [], corrupt: [] }])
    assert.deepEqual([summary.checksum, summary.recordedChecksum], [backup.sum, backup.sum])
    assert.deepEqual(summary.blocks, { total: STORED, checked: STORED })
    assert.deepEqual([proofs, fileHashes], [times(STORED, 'file'), 1])
    assert.equal(backup.readings.length, STORED)
  })

  it('is proven by ids alone at the level of blocks, and nothing else is hashed', async (t) => {
    const backup = memoryBackup(blocks)
    const { summary, proofs, fileHashes } = await verify(t, backup, 'blocks')
    assert.deepEqual([summary.ok, badOf(summary)], [true, { missing: [], corrupt: [] }])
    assert.deepEqual([summary.checksum, summary.recordedChecksum], [null, backup.sum])
    assert.deepEqual(summary.blocks, { total: STORED, checked: STORED })
    assert.deepEqual([proofs, fileHashes], [times(STORED, 'id'), 0])
    assert.equal(backup.readings.length, STORED)
  })

  it('that records no checksum is proven by its ids, and its hash is told', async (t) => {
    const backup = memoryBackup(blocks, { checksum: null })
    const { summary, proofs, fileHashes } = await verify(t, backup, 'full')
    assert.equal(summary.ok, true)
    assert.deepEqual([summary.checksum, summary.recordedChecksum], [backup.sum, null])
    assert.deepEqual([proofs, fileHashes], [times(STORED, 'id'), 1])
  })
})

describe('every bad block of a backup', { timeout: 60_000 }, () => {
  const damages: Record<
    string,
    { apply: (backup: MemoryBackup) => unknown; missing: number[]; corrupt: number[] }
  > = {
    'one of which a bit is another one': {
      apply: (backup) => backup.exchange(4, altered(at(4))),
      missing: [],
      corrupt: [4],
    },
    'two that changed places': {
      apply: (backup) => backup.swap(1, 5),
      missing: [],
      corrupt: [1, 5],
    },
    'the tail, of which a bit is another one': {
      apply: (backup) => backup.exchange(7, altered(at(7), 776)),
      missing: [],
      corrupt: [7],
    },
    'changed, swapped, missing and truncated ones together': {
      apply(backup) {
        backup.exchange(0, altered(at(0), BLOCK - 1))
        backup.swap(1, 5)
        backup.store.objects.delete(backup.key(3))
        backup.truncate(4)
      },
      missing: [3],
      corrupt: [0, 1, 4, 5],
    },
    'all of them, so that nothing seems wrong before the end': {
      apply: (backup) => {
        for (const index of [0, 1, 3, 4, 5, 7]) backup.exchange(index, altered(at(index), 1))
      },
      missing: [],
      corrupt: [0, 1, 3, 4, 5, 7],
    },
  }
  const recorded: Record<string, MemoryBackupOptions> = {
    'with a checksum recorded': {},
    'with none recorded': { checksum: null },
  }
  for (const [what, { apply, missing, corrupt }] of Object.entries(damages)) {
    for (const [how, options] of Object.entries(recorded)) {
      it(`is named by both levels that read blocks: ${what} (${how})`, async (t) => {
        const backup = memoryBackup(blocks, options)
        apply(backup)
        const full = await verify(t, backup, 'full')
        const byIds = await verify(t, backup, 'blocks')
        for (const { summary } of [full, byIds]) {
          assert.deepEqual([summary.ok, summary.checksum], [false, null])
          assert.deepEqual(badOf(summary), { missing, corrupt })
          assert.deepEqual(summary.blocks, { total: STORED, checked: STORED })
          for (const { id, offsets } of [...summary.missing, ...summary.corrupt]) {
            const index = (offsets[0] ?? NaN) / BLOCK
            assert.equal(id, backup.id(index))
            assert.deepEqual(offsets, index === 0 ? [0, 6 * BLOCK] : [index * BLOCK])
          }
        }
        assert.deepEqual(full.summary.corrupt, byIds.summary.corrupt)
        assert.equal(byIds.fileHashes, 0)
      })
    }
  }
})

describe('a first bad block', { timeout: 60_000 }, () => {
  it('ends the reading that the hash of the file was to prove, as nothing can be now', async (t) => {
    const backup = memoryBackup(blocks)
    backup.store.objects.delete(backup.key(0))
    const { summary, proofs } = await verify(t, backup, 'full')
    assert.deepEqual(badOf(summary), { missing: [0], corrupt: [] })
    const before = proofs.filter((proof) => proof === 'file').length
    assert.ok(before < pool.slots.length, `${before} were read on for nothing`)
    // the first stands in the image twice, and is missing both times
    assert.equal(proofs.length - before, STORED - 2)
  })
})

describe('a block that is read badly once', { timeout: 60_000 }, () => {
  const faults = {
    'other bytes': frameOfBlock(altered(at(3))),
    'a frame that is cut off': frameOfBlock(at(3)).subarray(0, -10),
    nothing: Buffer.alloc(0),
  }
  for (const [what, stored] of Object.entries(faults)) {
    it(`is not bad when it is read well after that (${what})`, async (t) => {
      const backup = memoryBackup(blocks)
      backup.readBadly(3, [1], stored)
      const { summary, proofs } = await verify(t, backup, 'full')
      assert.deepEqual([summary.ok, badOf(summary)], [true, { missing: [], corrupt: [] }])
      assert.equal(summary.checksum, backup.sum)
      assert.deepEqual(
        proofs.filter((proof) => proof === 'id'),
        times(STORED, 'id'),
      )
    })

    it(`is looked at again, and no more, by ids alone (${what})`, async (t) => {
      const backup = memoryBackup(blocks)
      backup.readBadly(3, [1], stored)
      const { summary, fileHashes } = await verify(t, backup, 'blocks')
      assert.deepEqual([summary.ok, badOf(summary)], [true, { missing: [], corrupt: [] }])
      assert.deepEqual([summary.checksum, fileHashes], [null, 0])
      assert.equal(backup.readings.length, STORED + 1)
    })

    it(`does not keep the whole from being hashed where none is recorded (${what})`, async (t) => {
      const backup = memoryBackup(blocks, { checksum: null })
      backup.readBadly(3, [1], stored)
      const { summary } = await verify(t, backup, 'full')
      assert.deepEqual([summary.ok, summary.checksum], [true, backup.sum])
    })
  }

  it('does not hide another one that is bad', async (t) => {
    const backup = memoryBackup(blocks)
    backup.readBadly(3, [1], faults['other bytes'])
    backup.exchange(5, altered(at(5)))
    const { summary } = await verify(t, backup, 'full')
    assert.deepEqual(badOf(summary), { missing: [], corrupt: [5] })
  })

  it('again and again is no verdict on the backup but on the target', async (t) => {
    const backup = memoryBackup(blocks)
    // once by the hash of the file; by its id in three passes, and well each time it is looked at
    backup.readBadly(3, [1, 2, 4, 6], faults['other bytes'])
    await assert.rejects(
      verify(t, backup, 'full'),
      (error) => isDroverError(error, 'TARGET_UNREACHABLE') && error.retryable,
    )
  })
})

describe('a block that is listed under an id that is not its hash', { timeout: 60_000 }, () => {
  const id = 'ab'.repeat(32) as BlockId

  it('is good when the whole is what was recorded, and named by ids alone', async (t) => {
    const backup = memoryBackup(blocks, { listedAs: new Map([[3, id]]) })
    const full = await verify(t, backup, 'full')
    assert.deepEqual([full.summary.ok, full.summary.checksum], [true, backup.sum])
    const byIds = await verify(t, backup, 'blocks')
    assert.equal(byIds.summary.ok, false)
    assert.deepEqual(badOf(byIds.summary), { missing: [], corrupt: [3] })
    assert.equal(byIds.summary.corrupt[0]?.id, id)
  })

  it('is named where the whole cannot be compared, or is not what was recorded', async (t) => {
    const wrong = memoryBackup(blocks, { listedAs: new Map([[3, id]]), checksum: null })
    assert.deepEqual(badOf((await verify(t, wrong, 'full')).summary).corrupt, [3])
    const other = memoryBackup(blocks, { listedAs: new Map([[3, id]]) })
    other.exchange(5, altered(at(5)))
    assert.deepEqual(badOf((await verify(t, other, 'full')).summary).corrupt, [3, 5])
  })
})

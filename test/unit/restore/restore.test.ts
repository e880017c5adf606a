import assert from 'node:assert/strict'
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { after, describe, it } from 'node:test'
import type { BlockId, Checksum } from '../../../src/backupstore/block.ts'
import type { Observer } from '../../../src/backupstore/observer.ts'
import { silentObserver } from '../../../src/backupstore/observer.ts'
import { openCompute } from '../../../src/compute/pool.ts'
import type { DroverError } from '../../../src/lib/errors.ts'
import { isDroverError } from '../../../src/lib/errors.ts'
import type { RestoreRequest } from '../../../src/restore/restore.ts'
import { restoreImage } from '../../../src/restore/restore.ts'
import { BLOCK, noise, text } from '../../helpers/images.ts'
import type { MemoryBackup } from '../../helpers/memory-backup.ts'
import { altered, frameOfBlock, memoryBackup, watchProofs } from '../../helpers/memory-backup.ts'
import { tempFolder } from '../../helpers/temp.ts'
import { idOf } from '../../helpers/workspace.ts'

const pool = openCompute({ blockThreads: 2, slots: 4 })
after(() => pool.close())

/** Zeros at 2; a short tail. */
const blocks = [
  text(0, BLOCK),
  noise(1, BLOCK),
  Buffer.alloc(BLOCK),
  text(3, BLOCK),
  text(4, BLOCK),
  noise(5, 777),
]
const STORED = 5
const at = (index: number): Buffer => blocks[index] ?? Buffer.alloc(0)
const WRONG = '0'.repeat(128) as Checksum

async function bench(t: TestContext, backup: MemoryBackup) {
  const folder = await tempFolder(t)
  const file = join(folder, 'disk.raw')
  const { seen, compute } = watchProofs(pool)
  const told: { phases: string[]; bytes: number[] } = { phases: [], bytes: [] }
  const observer: Observer = {
    ...silentObserver,
    phase(name) {
      told.phases.push(name)
      told.bytes.push(0)
    },
    advance: (bytes) => void (told.bytes[told.bytes.length - 1]! += bytes),
  }
  const restore = (request: Partial<RestoreRequest> = {}) =>
    restoreImage(
      {
        from: backup.url,
        file,
        checksum: undefined,
        verify: 'full',
        force: false,
        concurrentLimit: 2,
        ...request,
      },
      {
        store: backup.store,
        compute,
        clock: backup.clock,
        lock: undefined,
        signal: t.signal,
        observer,
      },
    )
  return {
    seen,
    told,
    restore,
    assertRestored: async () => {
      assert.ok((await readFile(file)).equals(backup.image))
      assert.deepEqual(await readdir(folder), ['disk.raw'])
    },
    /** Nothing is left behind by a restore that fails so. */
    fails: async (
      expected: { code: DroverError['code']; details: Record<string, unknown> },
      request?: Partial<RestoreRequest>,
    ) => {
      await assert.rejects(restore(request), (error) => {
        assert.ok(isDroverError(error, expected.code), String(error))
        const { details } = error
        const named = Object.fromEntries(Object.keys(expected.details).map((k) => [k, details[k]]))
        assert.deepEqual(named, expected.details)
        return true
      })
      assert.deepEqual(await readdir(folder), [])
    },
  }
}

const times = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value)

describe('a restore', { timeout: 60_000 }, () => {
  it('reads every block once and leaves its proof to the hash of the file', async (t) => {
    const backup = memoryBackup(blocks)
    const { seen, told, restore, assertRestored } = await bench(t, backup)
    const { checksum, verified } = await restore()
    assert.deepEqual([checksum, verified], [backup.sum, 'full'])
    await assertRestored()
    assert.deepEqual(seen, { proofs: times(STORED, 'file'), fileHashes: 1 })
    assert.equal(backup.readings.length, STORED)
    assert.deepEqual(told, { phases: ['restoring', 'flushing'], bytes: [backup.image.length, 0] })
  })

  for (const concurrentLimit of [1, 4]) {
    it(`asks the store once for a block that stands at many places (${concurrentLimit} at once)`, async (t) => {
      const [a, b] = [noise(1, BLOCK), text(2, BLOCK)]
      const image = [a, b, a, a, Buffer.alloc(BLOCK), b, a, noise(3, 500)]
      for (const checksum of [undefined, null]) {
        const backup = memoryBackup(image, checksum === null ? { checksum } : {})
        const { restore, assertRestored } = await bench(t, backup)
        await restore({ concurrentLimit })
        await assertRestored()
        assert.deepEqual(backup.readings.toSorted(), [0, 1, 7].map(backup.key).toSorted())
      }
    })
  }

  it('reads a block for itself that is listed at full length and as the short end', async (t) => {
    // only by a config that nobody made honestly: no block has both lengths
    const [full, end] = [noise(1, BLOCK), noise(1, BLOCK).subarray(0, 500)]
    const listedAs = new Map([[1, idOf(full) as BlockId]])
    const backup = memoryBackup([full, end], { listedAs })
    backup.exchange(0, full)
    const { fails } = await bench(t, backup)
    await fails({ code: 'BLOCK_CORRUPT', details: { offset: BLOCK } })
  })

  it('proves each block by its id when the backup records no checksum', async (t) => {
    const backup = memoryBackup(blocks, { checksum: null })
    const { seen, restore, assertRestored } = await bench(t, backup)
    const { checksum, verified } = await restore()
    assert.deepEqual([checksum, verified], [backup.sum, 'blocks'])
    await assertRestored()
    assert.deepEqual(seen, { proofs: times(STORED, 'id'), fileHashes: 1 })
  })

  it('proves by the checksum that is asked for when the backup records none', async (t) => {
    const backup = memoryBackup(blocks, { checksum: null })
    const { seen, restore, assertRestored } = await bench(t, backup)
    const { verified } = await restore({ checksum: backup.sum, verify: 'blocks' })
    assert.equal(verified, 'full')
    await assertRestored()
    assert.deepEqual(seen.proofs, times(STORED, 'file'))
  })

  it('proves by ids alone when that is asked for, and hashes nothing else', async (t) => {
    const backup = memoryBackup(blocks)
    const { seen, restore, assertRestored } = await bench(t, backup)
    const { checksum, verified } = await restore({ verify: 'blocks' })
    assert.deepEqual([checksum, verified], [null, 'blocks'])
    await assertRestored()
    assert.deepEqual(seen, { proofs: times(STORED, 'id'), fileHashes: 0 })
  })
})

describe('a restore from bad data that decodes well', { timeout: 60_000 }, () => {
  const recorded = {
    'with a checksum recorded': {},
    'with none recorded': { checksum: null },
  } as const

  for (const [how, options] of Object.entries(recorded)) {
    for (const index of [0, 4, 5]) {
      it(`names block ${index} of which one bit is another one (${how})`, async (t) => {
        const backup = memoryBackup(blocks, options)
        backup.exchange(index, altered(at(index), 99))
        const { fails } = await bench(t, backup)
        const details = {
          id: backup.id(index),
          offset: index * BLOCK,
          reason: 'does not match its id after lz4 decoding',
        }
        await fails({ code: 'BLOCK_CORRUPT', details })
        await fails({ code: 'BLOCK_CORRUPT', details }, { verify: 'blocks' })
      })
    }

    it(`names one of two blocks that changed places (${how})`, async (t) => {
      const backup = memoryBackup(blocks, options)
      backup.swap(1, 3)
      const { restore } = await bench(t, backup)
      await assert.rejects(restore(), (error) => {
        assert.ok(isDroverError(error, 'BLOCK_CORRUPT'), String(error))
        const found = [1, 3].filter((index) => error.details['id'] === backup.id(index))
        assert.deepEqual(
          found.map((index) => index * BLOCK),
          [error.details['offset']],
        )
        return true
      })
      const { fails } = await bench(t, backup)
      await fails({ code: 'BLOCK_CORRUPT', details: {} })
    })
  }

  it('says that the whole is not what was recorded when every block is what its id says', async (t) => {
    const backup = memoryBackup(blocks, { checksum: WRONG })
    const { seen, fails } = await bench(t, backup)
    const details = { name: 'disk', expected: WRONG, checksum: backup.sum }
    await fails({ code: 'IMAGE_CORRUPT', details })
    // no block was called good that its id had not proven
    assert.deepEqual(seen, {
      proofs: [...times(STORED, 'file'), ...times(STORED, 'id')],
      fileHashes: 2,
    })
  })

  it('says that it is another image when the backup records none and the one asked for is not it', async (t) => {
    const backup = memoryBackup(blocks, { checksum: null })
    const { fails } = await bench(t, backup)
    const details = { expected: WRONG, checksum: backup.sum }
    await fails({ code: 'CHECKSUM_MISMATCH', details }, { checksum: WRONG })
  })
})

describe('a restore of blocks that are read badly once', { timeout: 60_000 }, () => {
  const bad = {
    'other bytes': frameOfBlock(altered(at(3))),
    zeros: frameOfBlock(Buffer.alloc(BLOCK)),
    'raw bytes': noise(9, BLOCK),
  }
  for (const [what, stored] of Object.entries(bad)) {
    it(`succeeds when they are read well after that (${what})`, async (t) => {
      const backup = memoryBackup(blocks)
      backup.readBadly(3, [1], stored)
      const { seen, told, restore, assertRestored } = await bench(t, backup)
      const { checksum, verified } = await restore()
      assert.deepEqual([checksum, verified], [backup.sum, 'full'])
      await assertRestored()
      assert.deepEqual(seen.proofs, [...times(STORED, 'file'), ...times(STORED, 'id')])
      const { length } = backup.image
      assert.deepEqual(told, {
        phases: ['restoring', 'restoring again, each block by its id', 'flushing'],
        bytes: [length, length, 0],
      })
    })
  }

  it('looks twice at each before it is called bad', async (t) => {
    const backup = memoryBackup(blocks)
    backup.readBadly(3, [1, 2], bad['other bytes'])
    const { restore, assertRestored } = await bench(t, backup)
    assert.equal((await restore()).verified, 'full')
    await assertRestored()
    assert.equal(backup.readings.filter((key) => key === backup.key(3)).length, 3)
  })

  it('calls it bad when it reads badly as often as it is looked at', async (t) => {
    const backup = memoryBackup(blocks)
    backup.readBadly(3, [1, 2, 3], bad['other bytes'])
    const { fails } = await bench(t, backup)
    const details = { id: backup.id(3), offset: 3 * BLOCK }
    await fails({ code: 'BLOCK_CORRUPT', details })
  })

  it('needs no second pass when it is seen at once that they cannot be decoded', async (t) => {
    const backup = memoryBackup(blocks)
    backup.readBadly(3, [1], frameOfBlock(at(3)).subarray(0, -10))
    const { told, restore, assertRestored } = await bench(t, backup)
    await restore()
    await assertRestored()
    assert.deepEqual(told.phases, ['restoring', 'flushing'])
    assert.equal(backup.readings.length, STORED + 1)
  })
})

describe('a block that is listed under an id that is not its hash', { timeout: 60_000 }, () => {
  it('is restored when the whole is what was recorded, and not by its id alone', async (t) => {
    const id = 'ab'.repeat(32) as BlockId
    const backup = memoryBackup(blocks, { listedAs: new Map([[3, id]]) })
    const byId = await bench(t, backup)
    const details = { id, offset: 3 * BLOCK }
    await byId.fails({ code: 'BLOCK_CORRUPT', details }, { verify: 'blocks' })
    const byFile = await bench(t, backup)
    assert.equal((await byFile.restore()).verified, 'full')
    await byFile.assertRestored()
  })
})

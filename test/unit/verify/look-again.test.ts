import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { BlockCompute, Slot } from '../../../src/backupstore/compute.ts'
import { blockKey, configKey } from '../../../src/backupstore/layout.ts'
import { readableName } from '../../../src/backupstore/names.ts'
import { silentObserver } from '../../../src/backupstore/observer.ts'
import { parseBackupUrl } from '../../../src/backupstore/target-url.ts'
import { verifyBackup } from '../../../src/verify/verify.ts'
import { measure } from '../../helpers/measure.ts'
import { blockId, configBytes, world } from '../prune/world.ts'

const BLOCK = 2 * 1024 * 1024

/** Blocks that say `bad …` are bad, for the reason that they give. */
function computeThatReads(lanes: number): BlockCompute {
  const slots = Array.from({ length: lanes }, (_, index): Slot => ({
    index,
    raw: Buffer.alloc(0),
    stored: Buffer.alloc(100),
  }))
  const unused = () => Promise.reject(new Error('not of use here'))
  return {
    slots,
    identify: unused,
    identifySealed: unused,
    isSealed: unused,
    encodeWithMd5: unused,
    isBusy: () => false,
    encode: unused,
    decode({ stored }, length) {
      const text = stored.toString('utf8', 0, length)
      return Promise.resolve(
        text.startsWith('bad') ? { ok: false, reason: text } : { ok: true, stored: 'lz4' },
      )
    },
    openFileHash: () => ({
      addAndSeal: unused,
      addBlock: () => Promise.resolve(),
      addZeros: () => Promise.resolve(),
      digest: unused,
    }),
  }
}

describe('bad blocks', () => {
  it('are told once each, in the order of the image, with all places and the reason', async () => {
    const { store, clock, addBlocks, put, stop } = world()
    put(configKey(readableName('disk')), configBytes('disk', [5, 1, 2, 3, 1, 4, 5, 6, 2, 1]))
    addBlocks(3, 6)
    put(blockKey(blockId(1)), Buffer.from('bad luck'))
    put(blockKey(blockId(2)), Buffer.from('bad'))
    put(blockKey(blockId(4)), Buffer.from('bad luck'))
    const { ok, missing, corrupt } = await verifyBackup(
      {
        backup: parseBackupUrl('vfs:///store?backingImage=disk'),
        level: 'full',
        concurrentLimit: 2,
      },
      {
        store,
        clock,
        compute: computeThatReads(3),
        lock: undefined,
        signal: stop.signal,
        observer: silentObserver,
      },
    )
    assert.equal(ok, false)
    const at = (...places: number[]) => places.map((place) => place * BLOCK)
    assert.deepEqual(missing, [{ id: blockId(5), offsets: at(0, 6) }])
    assert.deepEqual(corrupt, [
      { id: blockId(1), offsets: at(1, 4, 9), reason: 'bad luck' },
      { id: blockId(2), offsets: at(2, 8), reason: 'bad' },
      { id: blockId(4), offsets: at(5), reason: 'bad luck' },
    ])
  })

  it('take little memory even when they are all blocks of 1 TiB', async () => {
    const { missing, residentMiB } = await measure<{ missing: number; residentMiB: number }>(
      'measure-missing.ts',
    )
    assert.equal(missing, 512 * 1024)
    assert.ok(residentMiB < 340, `${residentMiB} MiB`)
  })
})

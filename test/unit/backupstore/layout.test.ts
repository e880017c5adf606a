import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import type { BlockId } from '../../../src/backupstore/block.ts'
import type { RunId } from '../../../src/backupstore/layout.ts'
import {
  BLOCKS_PREFIX,
  CONFIGS_PREFIX,
  LOCKS_PREFIX,
  STAGING_PREFIX,
  blockKey,
  configKey,
  idOfBlockKey,
  isLockKey,
  isRunId,
  lockKey,
  nameOfConfigKey,
  nameOfLockKey,
  runOfStagingKey,
  stagingKey,
} from '../../../src/backupstore/layout.ts'
import type { BackupName } from '../../../src/backupstore/names.ts'
import { blockIds, readableNames } from '../../helpers/arbitraries.ts'

const ID = `0123${'456789abcdef'.repeat(5)}` as BlockId
const RUN = '00ff00ff00ff00ff' as RunId
const runIds = fc.stringMatching(/^[0-9a-f]{16}$/) as fc.Arbitrary<RunId>

describe('the keys of a store', () => {
  it('are those of Longhorn', () => {
    const images = 'backupstore/backing-images'
    assert.equal(
      configKey('ubuntu' as BackupName),
      `${images}/backing-images/ubuntu/backing-image.cfg`,
    )
    assert.equal(blockKey(ID), `${images}/blocks/01/23/${ID}.blk`)
    assert.equal(
      lockKey(RUN),
      'backupstore/volumes/22/fc/BACKINGIMAGE/locks/lock-00ff00ff00ff00ff.lck',
    )
  })

  it('have the lock folder where the hash of its name puts it', () => {
    const hash = createHash('sha512').update('BACKINGIMAGE').digest('hex')
    assert.equal(
      LOCKS_PREFIX,
      `backupstore/volumes/${hash.slice(0, 2)}/${hash.slice(2, 4)}/BACKINGIMAGE/locks/`,
    )
  })

  it('keep staging where Longhorn looks for nothing', () => {
    for (const prefix of ['backupstore/backing-images/', 'backupstore/volumes/']) {
      assert.equal(STAGING_PREFIX.startsWith(prefix), false)
      assert.equal(prefix.startsWith(STAGING_PREFIX), false)
    }
  })

  it('are recognised by their inverse', () => {
    fc.assert(
      fc.property(
        readableNames,
        blockIds,
        runIds,
        fc.stringMatching(/^[a-z0-9.]{1,12}$/),
        (name, id, run, file) => {
          assert.equal(nameOfConfigKey(configKey(name)), name)
          assert.equal(idOfBlockKey(blockKey(id)), id)
          assert.equal(isLockKey(lockKey(run)), true)
          assert.equal(nameOfLockKey(lockKey(run)), `lock-${run}`)
          assert.equal(runOfStagingKey(stagingKey(run, file)), run)
          assert.equal(isRunId(run), true)
        },
      ),
    )
  })

  it('are each of one kind only', () => {
    fc.assert(
      fc.property(readableNames, blockIds, runIds, (name, id, run) => {
        const kinds = [configKey(name), blockKey(id), lockKey(run), stagingKey(run, 'x')].map(
          (key) => [
            nameOfConfigKey(key) !== undefined,
            idOfBlockKey(key) !== undefined,
            isLockKey(key),
            runOfStagingKey(key) !== undefined,
          ],
        )
        assert.deepEqual(kinds, [
          [true, false, false, false],
          [false, true, false, false],
          [false, false, true, false],
          [false, false, false, true],
        ])
      }),
    )
  })

  it('never begin with the whole of another one', () => {
    fc.assert(
      fc.property(fc.uniqueArray(readableNames, { minLength: 2, maxLength: 6 }), (names) => {
        const keys = names.map(configKey)
        for (const a of keys) {
          for (const b of keys) assert.equal(a !== b && a.startsWith(b), false)
        }
      }),
    )
  })
})

describe('what is no block', () => {
  for (const [what, key] of [
    ['a block in the wrong folder', `${BLOCKS_PREFIX}01/24/${ID}.blk`],
    ['a block one folder up', `${BLOCKS_PREFIX}01/${ID}.blk`],
    ['a block one folder down', `${BLOCKS_PREFIX}01/23/x/${ID}.blk`],
    ['a temporary file', `${BLOCKS_PREFIX}01/23/${ID}.blk.tmp`],
    ['an id in upper case', `${BLOCKS_PREFIX}01/23/${ID.toUpperCase()}.blk`],
    ['an id that is too short', `${BLOCKS_PREFIX}01/23/${ID.slice(1)}.blk`],
    ['an id that is too long', `${BLOCKS_PREFIX}01/23/${ID}0.blk`],
    ['another suffix', `${BLOCKS_PREFIX}01/23/${ID}.txt`],
    ['a block elsewhere', `backupstore/volumes/01/23/${ID}.blk`],
    ['the folder', BLOCKS_PREFIX],
    ['nothing', ''],
  ] as const) {
    it(`is told: ${what}`, () => assert.equal(idOfBlockKey(key), undefined))
  }
})

describe('what is no config', () => {
  for (const [what, key] of [
    ['a temporary file', `${CONFIGS_PREFIX}ubuntu/backing-image.cfg.tmp`],
    ['another file in the folder', `${CONFIGS_PREFIX}ubuntu/other.cfg`],
    ['a config without a folder', `${CONFIGS_PREFIX}backing-image.cfg`],
    ['a config in a folder without a name', `${CONFIGS_PREFIX}/backing-image.cfg`],
    ['a config one folder down', `${CONFIGS_PREFIX}a/b/backing-image.cfg`],
    ['a config elsewhere', 'backupstore/volumes/ubuntu/backing-image.cfg'],
  ] as const) {
    it(`is told: ${what}`, () => assert.equal(nameOfConfigKey(key), undefined))
  }

  it('is not confused with a config whose name is not legal: that one must be seen', () => {
    assert.equal(nameOfConfigKey(`${CONFIGS_PREFIX}bad name/backing-image.cfg`), 'bad name')
  })
})

describe('what is no run of ours in staging', () => {
  for (const key of [
    `${STAGING_PREFIX}00ff/x`,
    `${STAGING_PREFIX}${RUN.toUpperCase()}/x`,
    `${STAGING_PREFIX}${RUN}0/x`,
    `backupstore/drover/other/${RUN}/x`,
    STAGING_PREFIX,
  ]) {
    it(`is told: ${key}`, () => assert.equal(runOfStagingKey(key), undefined))
  }
})

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { listBackups } from '../../../src/backupstore/catalog.ts'
import type { RunId } from '../../../src/backupstore/layout.ts'
import {
  CONFIGS_PREFIX,
  STAGING_PREFIX,
  configKey,
  stagingKey,
} from '../../../src/backupstore/layout.ts'
import { readableName } from '../../../src/backupstore/names.ts'
import type { PruneStore } from '../../../src/backupstore/object-store.ts'
import { DroverError } from '../../../src/lib/errors.ts'
import { configBytes, world } from './world.ts'

const LONGER_THAN_A_LOCK_MS = 200_000

describe('collecting garbage', () => {
  it('removes many blocks with one call where the store has a way, and asks before it', async () => {
    const here = world()
    here.addBackup('disk', 1, 2)
    here.addBlocks(3, 4, 5)
    const batches: number[] = []
    let asked = 0
    const store: PruneStore = {
      ...here.store,
      async removeAll(keys, options = {}) {
        batches.push(keys.length)
        options.before?.()
        asked += options.before ? 1 : 0
        for (const key of keys) await here.store.remove(key)
        return { removed: keys }
      },
    }
    const { removed, freedBytes } = await here.gc({}, store)
    assert.deepEqual([removed, freedBytes], [3, 3 * 'block 3'.length])
    assert.deepEqual(batches, [3])
    assert.equal(asked, 1)
    assert.deepEqual(here.blocks(), [1, 2])
  })

  it('counts what a call removed before the rest was refused, and fails with the reason', async () => {
    const here = world()
    here.addBackup('disk', 1)
    here.addBackup('other', 2, 3, 4)
    const store: PruneStore = {
      ...here.store,
      async removeAll([first = '', ...rest]) {
        assert.equal(rest.length, 2)
        await here.store.remove(first)
        return { removed: [first], failure: new DroverError('TARGET_FORBIDDEN', 'denied') }
      },
    }
    const told = await here.delete('other', store)
    assert.equal(told.removedBlocks, 1)
    assert.match(told.blocksKept ?? '', /denied/)
    assert.equal(here.blocks().length, 3)
  })

  it('removes no block more once it was frozen for longer than its lock lives', async () => {
    const here = world()
    here.addBackup('disk', 1)
    here.addBlocks(2, 3)
    here.faults.now = (call, key) => {
      if (call === 'remove' && key.endsWith('.blk')) here.clock.jump(LONGER_THAN_A_LOCK_MS)
    }
    await assert.rejects(here.gc(), { code: 'LOCK_LOST' })
    assert.deepEqual(here.blocks(), [1, 2, 3])
  })

  it('removes nothing of dead runs once it was frozen for longer than its lock lives', async () => {
    const here = world()
    here.addPlaceholder('begun')
    here.faults.now = (call, key) => {
      if (call === 'remove' && key.endsWith('.cfg')) here.clock.jump(LONGER_THAN_A_LOCK_MS)
    }
    await assert.rejects(here.gc(), { code: 'LOCK_LOST' })
    assert.equal(here.has('begun'), true)
  })

  for (const [what, key] of Object.entries({
    'whose config somebody renamed': 'disk/backing-image.cfg.bak',
    'with a folder in place of its config': 'disk/backing-image.cfg/x',
    'that is a mere file': 'disk',
  })) {
    it(`removes no block beside a backup ${what}, which a listing names`, async () => {
      const here = world()
      here.addBackup('other', 1)
      here.addBlocks(2)
      here.put(CONFIGS_PREFIX + key, configBytes('disk', [2]))
      const says = { code: 'CONFIG_INVALID', message: /no block is removed, because .*\/disk"/ }
      await assert.rejects(here.gc(), says)
      await assert.rejects(here.gc({ dryRun: true, allowEmpty: true }), says)
      assert.deepEqual(here.blocks(), [1, 2])
      const { backups, unreadable } = await listBackups(here.store)
      assert.deepEqual(
        backups.map(({ name }) => name),
        ['other'],
      )
      assert.equal(unreadable.length, 1)
      assert.equal(unreadable[0]?.name, 'disk')
      assert.match(unreadable[0].reason, /no backing-image\.cfg|is a file where/)
    })
  }

  it('does not mind what else lies beside a config', async () => {
    const here = world()
    here.addBackup('disk', 1)
    here.addBlocks(2)
    here.put(`${CONFIGS_PREFIX}disk/backing-image.cfg.bak`, Buffer.from('x'))
    assert.equal((await here.gc()).removed, 1)
    assert.deepEqual((await listBackups(here.store)).unreadable, [])
  })

  it('removes no block of a store without any backup, unless that is wanted', async () => {
    const here = world()
    here.addBlocks(1, 2)
    const says = { code: 'STORE_CHANGED', message: /has 2 blocks and no backup at all/ }
    await assert.rejects(here.gc(), says)
    await assert.rejects(here.gc({ dryRun: true }), says)
    here.addPlaceholder('begun', 1)
    await assert.rejects(here.gc(), says)
    assert.deepEqual(here.blocks(), [1, 2])
    assert.equal((await here.gc({ allowEmpty: true })).removed, 2)
    assert.equal((await here.gc()).removed, 0)
  })

  it('removes no block when all backups vanish before its eyes, whatever is wanted', async () => {
    const here = world()
    here.addBackup('one', 1)
    here.addBackup('two', 2)
    here.faults.now = (call) => {
      if (call !== 'put') return
      for (const name of ['one', 'two']) here.store.objects.delete(configKey(readableName(name)))
    }
    await assert.rejects(here.gc({ allowEmpty: true }), { code: 'STORE_CHANGED' })
    assert.deepEqual(here.blocks(), [1, 2])
  })

  it('clears away a dead run that staged 130,000 files', { timeout: 60_000 }, async () => {
    const here = world()
    const files = 130_000
    for (let n = 0; n < files; n++) here.put(stagingKey('00000000000000bb' as RunId, `${n}`), BYTE)
    here.put(stagingKey('00000000000000cc' as RunId, '0'), BYTE, 1000)
    const { stagingFiles, freedBytes } = await here.gc()
    assert.deepEqual([stagingFiles, freedBytes], [files, files])
    const left = [...here.store.objects.keys()].filter((key) => key.startsWith(STAGING_PREFIX))
    assert.deepEqual(left, [stagingKey('00000000000000cc' as RunId, '0')])
  })

  it('is told by a dry run, the blocks of dead placeholders included', async () => {
    const here = world()
    here.addBackup('disk', 1)
    here.addPlaceholder('begun', 1, 2, 3)
    const { dryRun: _, seconds: _dry, ...told } = await here.gc({ dryRun: true })
    assert.deepEqual(here.blocks(), [1, 2, 3])
    const { dryRun: __, seconds: _wet, ...done } = await here.gc()
    assert.deepEqual(told, done)
    assert.deepEqual([done.removed, done.placeholders], [2, ['begun']])
    assert.deepEqual(here.blocks(), [1])
  })

  it('reads a long config whole only once', async () => {
    const here = world()
    const blocks = Array.from({ length: 2000 }, (_, n) => n)
    here.put(configKey(readableName('long')), configBytes('long', blocks))
    here.addBlocks(1)
    const whole: string[] = []
    const watched: PruneStore = {
      ...here.store,
      open(key, options) {
        if (key.endsWith('.cfg') && options?.firstBytes === undefined) whole.push(key)
        return here.store.open(key, options)
      },
    }
    await here.gc({}, watched)
    assert.deepEqual(whole, [configKey(readableName('long'))])
  })
})

describe('a listing of backups', () => {
  it('keeps no blocks of any', async () => {
    const here = world()
    here.addBackup('short', 1)
    const blocks = Array.from({ length: 2000 }, (_, n) => n)
    here.put(configKey(readableName('long')), configBytes('long', blocks))
    const { ProcessingBlocks, ...others } = JSON.parse(configBytes('odd', blocks).toString())
    here.put(
      configKey(readableName('odd')),
      Buffer.from(JSON.stringify({ ...others, ProcessingBlocks })),
    )
    const { backups } = await listBackups(here.store)
    assert.deepEqual(
      backups.map((facts) => [facts.name, 'blocks' in facts]),
      [
        ['long', false],
        ['odd', false],
        ['short', false],
      ],
    )
  })
})

const BYTE = Buffer.from('x')

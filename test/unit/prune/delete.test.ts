import assert from 'node:assert/strict'
import { access, mkdir, rename, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { CONFIGS_PREFIX, configKey } from '../../../src/backupstore/layout.ts'
import { readableName } from '../../../src/backupstore/names.ts'
import { DroverError, interrupted } from '../../../src/lib/errors.ts'
import { openFsStore } from '../../../src/storage/fs/fs-store.ts'
import type { StoreCall } from '../../../src/storage/memory/memory-store.ts'
import { tempFolder } from '../../helpers/temp.ts'
import { RUN, configBytes, world } from './world.ts'

const KEY = configKey(readableName('disk'))
const LONGER_THAN_A_LOCK_MS = 200_000

/** Does something at the n-th removal of a block. */
function atRemoval(n: number, fault: () => void) {
  let seen = 0
  return (call: StoreCall, key: string) => {
    if (call === 'remove' && key.endsWith('.blk') && ++seen === n) fault()
  }
}

describe('deleting a backup', () => {
  it('does not remove its config once it was frozen for longer than its lock lives', async () => {
    const here = world()
    here.addBackup('disk', 1)
    here.faults.now = (call, key) => {
      if (call === 'remove' && key.endsWith('.cfg')) here.clock.jump(LONGER_THAN_A_LOCK_MS)
    }
    await assert.rejects(here.delete('disk'), { code: 'LOCK_LOST' })
    assert.equal(here.has('disk'), true)
  })

  const failures: Record<string, [RegExp, (here: ReturnType<typeof world>) => void]> = {
    'the target goes away': [
      /it is gone/,
      () => {
        throw new DroverError('TARGET_UNREACHABLE', 'it is gone')
      },
    ],
    'the lock is lost': [/lock/, ({ clock }) => clock.jump(LONGER_THAN_A_LOCK_MS)],
  }
  for (const [what, [says, fail]] of Object.entries(failures)) {
    it(`tells what became of its blocks when ${what} between two of them`, async () => {
      const here = world()
      here.addBackup('disk', 1, 2, 3)
      here.faults.now = atRemoval(3, () => fail(here))
      const { removedBlocks, freedBytes, blocksKept } = await here.delete('disk')
      assert.deepEqual([removedBlocks, freedBytes], [2, 2 * 'block 1'.length])
      assert.match(blocksKept ?? '', says)
      assert.equal(here.blocks().length, 1)
      assert.equal(here.has('disk'), false)
    })
  }

  it('is interrupted all the same when it is stopped between two blocks', async () => {
    const here = world()
    here.addBackup('disk', 1, 2, 3)
    here.faults.now = atRemoval(2, () => here.stop.abort(interrupted()))
    await assert.rejects(here.delete('disk'), { code: 'INTERRUPTED' })
    assert.equal(here.blocks().length, 2)
  })

  it('removes the blocks of the last one, which nobody else needs', async () => {
    const here = world()
    here.addBackup('disk', 1, 2)
    const { removedBlocks, blocksKept } = await here.delete('disk')
    assert.deepEqual([removedBlocks, blocksKept], [2, null])
    assert.deepEqual(here.blocks(), [])
  })

  it('keeps its blocks when all others vanish before its eyes', async () => {
    const here = world()
    here.addBackup('disk', 1)
    here.addBackup('other', 1)
    here.faults.now = (call) => {
      if (call === 'put') here.store.objects.delete(configKey(readableName('other')))
    }
    const { removedBlocks, blocksKept } = await here.delete('disk')
    assert.equal(removedBlocks, 0)
    assert.match(blocksKept ?? '', /all backups .* are gone/)
    assert.deepEqual(here.blocks(), [1])
  })

  it('works when its config may not be read', async () => {
    const here = world()
    here.addBackup('disk', 1)
    here.faults.now = (call, key) => {
      if (call === 'open' && key === KEY) throw new DroverError('TARGET_FORBIDDEN', 'not for you')
    }
    const { blocksKept } = await here.delete('disk')
    assert.match(blocksKept ?? '', /could not be read: not for you/)
    assert.equal(here.has('disk'), false)
  })

  it('removes the link that stands for a config, and not what it leads to', async (t) => {
    const { folder, store, elsewhere } = await onDisk(t)
    const path = join(folder, KEY)
    await mkdir(dirname(path), { recursive: true })
    await symlink(elsewhere, path)
    const { blocksKept } = await world().delete('disk', store)
    assert.match(blocksKept ?? '', /link/)
    await assert.rejects(access(dirname(path)))
    await access(elsewhere)
  })

  it('says what to remove by hand when its folder is a link', async (t) => {
    const { folder, store, elsewhere } = await onDisk(t)
    const path = dirname(join(folder, KEY))
    await mkdir(dirname(path), { recursive: true })
    await symlink(dirname(elsewhere), path)
    await assert.rejects(world().delete('disk', store), {
      code: 'UNSAFE_PATH',
      message: new RegExp(`Remove "${CONFIGS_PREFIX}disk" in the target by hand`),
    })
    await access(elsewhere)
  })
})

/** A store in a folder, and a config that lies outside of it. */
async function onDisk(t: Parameters<typeof tempFolder>[0]) {
  const folder = await tempFolder(t)
  const outside = await tempFolder(t)
  const elsewhere = join(outside, 'backing-image.cfg')
  await writeFile(`${elsewhere}.new`, configBytes('disk', [1]))
  await rename(`${elsewhere}.new`, elsewhere)
  const store = await openFsStore(folder, RUN)
  t.after(() => store.close())
  return { folder, store, elsewhere }
}

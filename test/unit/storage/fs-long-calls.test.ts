/** Calls that take long where a server is slow: they show that they go on. */
import assert from 'node:assert/strict'
import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { BLOCKS_PREFIX } from '../../../src/backupstore/layout.ts'
import type { Key, RunId } from '../../../src/backupstore/layout.ts'
import { openFsStore } from '../../../src/storage/fs/fs-store.ts'
import { removeTree } from '../../../src/storage/fs/remove-tree.ts'
import { filesBelow } from '../../helpers/stores.ts'
import { tempFolder } from '../../helpers/temp.ts'

const RUN = '0123456789abcdef' as RunId
const OBJECTS = 50
const keyOf = (n: number): Key => `${BLOCKS_PREFIX}aa/${n % 10}/${n}.blk`

function signs() {
  const counted = { signs: 0 }
  return { counted, alive: () => void (counted.signs += 1) }
}

describe('signs of life come from', () => {
  test('a publication, for each step of each object', async (t) => {
    const store = await openFsStore(await tempFolder(t), RUN, { placers: 4 })
    const area = await store.openStaging()
    for (let n = 0; n < OBJECTS; n++) await area.add(keyOf(n), Buffer.from('x'))
    const { counted, alive } = signs()
    const { created } = await area.publish(() => undefined, { alive })
    assert.equal(created.length, OBJECTS)
    assert.ok(counted.signs >= 3 * OBJECTS, `${counted.signs}: flushed, named, names removed`)
    await store.close()
  })

  test('discarding, and it waits for a publication that goes on', async (t) => {
    const folder = await tempFolder(t)
    const store = await openFsStore(folder, RUN, { placers: 4 })
    const area = await store.openStaging()
    for (let n = 0; n < OBJECTS; n++) await area.add(keyOf(n), Buffer.from('x'))
    const publishing = area.publish(() => {
      throw new Error('no')
    })
    const { counted, alive } = signs()
    const discarding = area.discard({ alive })
    await assert.rejects(publishing)
    await discarding
    assert.equal(counted.signs, OBJECTS)
    assert.deepEqual(await filesBelow(folder), [])
    await store.close()
  })

  test('closing, for each file that is left', async (t) => {
    const folder = await tempFolder(t)
    const store = await openFsStore(folder, RUN, { placers: 4 })
    const area = await store.openStaging()
    for (let n = 0; n < OBJECTS; n++) await area.add(keyOf(n), Buffer.from('x'))
    const { counted, alive } = signs()
    await store.close({ alive })
    assert.ok(counted.signs >= OBJECTS)
    assert.deepEqual(await readdir(folder), [])
  })
})

describe('a folder that is removed', () => {
  test('takes no more along than what is in it', async (t) => {
    const folder = await tempFolder(t)
    const outside = join(folder, 'outside')
    const inside = join(folder, 'inside')
    await mkdir(outside)
    await writeFile(join(outside, 'kept'), '')
    await mkdir(join(inside, 'deep/deeper'), { recursive: true })
    await writeFile(join(inside, 'deep/deeper/file'), '')
    await symlink(outside, join(inside, 'deep/link'))
    await symlink(outside, join(folder, 'link'))
    for (const name of ['inside', 'link', 'missing']) {
      await removeTree(join(folder, name), () => undefined)
    }
    assert.deepEqual(await readdir(folder), ['outside'])
    assert.deepEqual(await readdir(outside), ['kept'])
  })
})

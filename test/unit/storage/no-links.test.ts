/**
 * File systems without hard links (CIFS, FAT) cannot be made here, so `link` is made to answer as
 * they do; all else is a real folder.
 */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { BlockId } from '../../../src/backupstore/block.ts'
import type { RunId } from '../../../src/backupstore/layout.ts'
import { blockKey } from '../../../src/backupstore/layout.ts'
import { bodyOf } from '../../../src/backupstore/object-store.ts'
import { openFsStore } from '../../../src/storage/fs/fs-store.ts'
import { tempFolder } from '../../helpers/temp.ts'

const KEY = blockKey('ab'.repeat(32) as BlockId)
const OURS = Buffer.from('ours')

describe('without hard links', () => {
  const { linkSync } = fs
  before(() => {
    fs.linkSync = () => {
      throw Object.assign(new Error('no links here'), { code: 'EPERM' })
    }
    syncBuiltinESMExports()
  })
  after(() => {
    fs.linkSync = linkSync
    syncBuiltinESMExports()
  })

  for (const [what, there, mine] of [
    ['nothing is there', undefined, true],
    ['an empty block is there', '', true],
    ['a block is there', 'theirs', false],
  ] as const) {
    test(`a block is ${mine ? 'published' : 'left to its writer'} where ${what}`, async (t) => {
      const folder = await tempFolder(t)
      const path = join(folder, KEY)
      if (there !== undefined) {
        await mkdir(dirname(path), { recursive: true })
        await writeFile(path, there)
      }
      const store = await openFsStore(folder, '00000000000000aa' as RunId)
      const area = await store.openStaging()
      await area.add(KEY, OURS)
      const published = await area.publish(() => undefined)
      const [created, existed] = mine ? [[KEY], []] : [[], [KEY]]
      assert.deepEqual(published, { created, existed })
      assert.equal(await readFile(path, 'utf8'), mine ? 'ours' : there)
      await store.close()
    })
  }

  test('a put that expects absence leaves what is there', async (t) => {
    const store = await openFsStore(await tempFolder(t), '00000000000000aa' as RunId)
    assert.ok((await store.put(KEY, bodyOf(OURS), { expect: 'absent' })).written)
    const second = await store.put(KEY, bodyOf(Buffer.from('second')), { expect: 'absent' })
    assert.deepEqual(second, { written: false })
    await store.close()
  })
})

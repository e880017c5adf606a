/** Both drivers against the one suite, and what only the in-memory one can be made to do. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { test } from 'node:test'
import type { RunId } from '../../src/backupstore/layout.ts'
import { bodyOf } from '../../src/backupstore/object-store.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { DroverError } from '../../src/lib/errors.ts'
import { openFsStore } from '../../src/storage/fs/fs-store.ts'
import type { StoreCall } from '../../src/storage/memory/memory-store.ts'
import { openMemoryStore } from '../../src/storage/memory/memory-store.ts'
import { FakeClock } from '../helpers/fake-clock.ts'
import { filesBelow } from '../helpers/stores.ts'
import { tempFolder } from '../helpers/temp.ts'
import type { Opened } from './object-store.ts'
import { testObjectStore } from './object-store.ts'

const inMemory = async (): Promise<Opened> => {
  let broken = false
  const faults = () => {
    if (broken) throw new DroverError('TARGET_UNREACHABLE', 'no answer', { retryable: true })
  }
  const store = openMemoryStore({ clock: systemClock, faults })
  return {
    store,
    another: async () => store,
    everything: async () => [...store.objects.keys()].sort(),
    breakTarget: async () => {
      broken = true
    },
  }
}

const inFolder = async (t: TestContext): Promise<Opened> => {
  const folder = join(await tempFolder(t), 'target')
  await mkdir(folder)
  const openRun = () => openFsStore(folder, randomBytes(8).toString('hex') as RunId)
  const store = await openRun()
  t.after(() => store.close())
  return {
    store,
    another: openRun,
    everything: () => filesBelow(folder),
    /** As an unmounted share: the folder is another, empty one. */
    async breakTarget() {
      await rename(folder, `${folder}-unmounted`)
      await mkdir(folder)
    },
  }
}

const exact = { tellsRemoved: true, exactTimes: true }
testObjectStore('a store in memory', inMemory, { staging: false, ...exact })
testObjectStore('a folder', inFolder, { staging: true, ...exact })

test('a store in memory fails at any call it is told to', async () => {
  const asked: string[] = []
  let failing: StoreCall | undefined
  const store = openMemoryStore({
    clock: new FakeClock(),
    faults: (call, key) => {
      asked.push(`${call} ${key}`)
      if (call === failing) throw new DroverError('TARGET_UNREACHABLE', 'no answer')
    },
  })
  const calls: ReadonlyArray<readonly [StoreCall, () => Promise<unknown>]> = [
    ['put', () => store.put('a', bodyOf(Buffer.from('x')))],
    ['stat', () => store.stat('a')],
    ['open', () => store.open('a')],
    ['readInto', () => store.readInto('a', Buffer.alloc(1))],
    ['list', async () => store.list('b/')[Symbol.asyncIterator]().next()],
    ['remove', () => store.remove('a')],
  ]
  for (const [call, run] of calls) {
    failing = call
    await assert.rejects(run(), (error) => error instanceof DroverError)
    failing = undefined
    await run()
  }
  assert.deepEqual(
    asked,
    calls.flatMap(([call]) => {
      const key = call === 'list' ? 'b/' : 'a'
      return [`${call} ${key}`, `${call} ${key}`]
    }),
  )
})

test('a store in memory tells the time of the clock it was given', async () => {
  const clock = new FakeClock()
  const store = openMemoryStore({ clock })
  const put = await store.put('a', bodyOf(Buffer.from('x')))
  clock.jump(150_000)
  const again = await store.put('b', bodyOf(Buffer.from('x')))
  assert.ok(put.written && again.written)
  assert.equal(again.info.modifiedAtMs - put.info.modifiedAtMs, 150_000)
})

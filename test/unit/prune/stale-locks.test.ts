import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { RunId } from '../../../src/backupstore/layout.ts'
import { lockKey } from '../../../src/backupstore/layout.ts'
import { readLocks } from '../../../src/backupstore/lock-file.ts'
import type { ReadStore } from '../../../src/backupstore/object-store.ts'
import { world } from './world.ts'

const LOCK = Buffer.from(JSON.stringify({ Name: 'lock', Type: 2, Acquired: true }))
const runId = (n: number) => n.toString(16).padStart(16, '0') as RunId

/** A store that counts how many of its objects are open at once, and in all. */
function counting(store: ReadStore) {
  const count = { now: 0, most: 0, all: 0 }
  const counted: ReadStore = {
    ...store,
    async open(key, options) {
      count.all += 1
      count.most = Math.max(count.most, ++count.now)
      await new Promise((resolve) => setImmediate(resolve))
      count.now -= 1
      return store.open(key, options)
    },
  }
  return { count, store: counted }
}

describe('thousands of locks that nobody tidied up', () => {
  const files = 3000

  it('are read a few at a time', async () => {
    const here = world()
    for (let n = 0; n < files; n++) here.put(lockKey(runId(n)), LOCK)
    const { store, count } = counting(here.store)
    const locks = await readLocks(store)
    assert.equal(locks.length, files)
    assert.ok(locks.every(({ type, acquired }) => type === 'deletion' && acquired))
    assert.ok(count.most <= 32, `${count.most} at once`)
  })

  it('are not opened at all by who knows the time', async () => {
    const here = world()
    for (let n = 1; n < files; n++) here.put(lockKey(runId(n)), LOCK, 150_001)
    here.put(lockKey(runId(0)), LOCK, 150_000)
    const { store, count } = counting(here.store)
    const locks = await readLocks(store, undefined, here.clock.wallMs())
    assert.equal(count.all, 1)
    const [live, ...expired] = locks
    assert.deepEqual([live?.type, live?.acquired], ['deletion', true])
    assert.equal(expired.length, files - 1)
    assert.ok(expired.every(({ type, acquired }) => type === 'unknown' && !acquired))
  })
})

import assert from 'node:assert/strict'
import { readdir, rm } from 'node:fs/promises'
import type { TestContext } from 'node:test'
import { describe, it } from 'node:test'
import type { Key } from '../../../src/backupstore/layout.ts'
import type { StagingArea } from '../../../src/backupstore/object-store.ts'
import { DroverError } from '../../../src/lib/errors.ts'
import type { MemoryStoreOptions } from '../../../src/storage/memory/memory-store.ts'
import { openMemoryStore } from '../../../src/storage/memory/memory-store.ts'
import { withSpool } from '../../../src/storage/spool.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'
import { noise } from '../../helpers/images.ts'
import { tempFolder } from '../../helpers/temp.ts'

const never = () => undefined
const hasRoom = (area: StagingArea) => area.hasRoom?.()
const key = (n: number): Key => `blocks/${n}`

interface Setting {
  readonly maxBytes?: number
  readonly folder?: string
  readonly faults?: MemoryStoreOptions['faults']
  readonly isWhole?: (key: Key, sizeBytes: number) => boolean
}

async function spool(t: TestContext, { faults, isWhole, ...setting }: Setting = {}) {
  const folder = await tempFolder(t)
  const memory = openMemoryStore({ clock: new FakeClock(), ...(faults ? { faults } : {}) })
  const store = withSpool(memory, { concurrency: 3, folder, ...setting })
  const area = await store.openStaging?.(isWhole)
  assert.ok(area)
  t.after(() => area.discard())
  return { folder, area, objects: memory.objects }
}

const addAll = async (area: StagingArea, blocks: readonly Buffer[]) => {
  for (const [n, bytes] of blocks.entries()) await area.add(key(n), bytes)
}

describe('a spool', () => {
  it('keeps what is added out of the store until it is published, and then all of it', async (t) => {
    const { area, objects } = await spool(t)
    const blocks = [3000, 1, 2_097_152, 0, 70_000].map((size, seed) => noise(seed, size))
    await addAll(area, blocks)
    assert.equal(objects.size, 0)
    const { created, existed } = await area.publish(never)
    assert.deepEqual([created.length, existed.length], [5, 0])
    for (const [n, bytes] of blocks.entries()) assert.ok(objects.get(key(n))?.bytes.equals(bytes))
  })

  it('is a copy: the bytes may be reused when they are added', async (t) => {
    const { area, objects } = await spool(t)
    const bytes = Buffer.alloc(5000, 'a')
    await area.add(key(1), bytes)
    bytes.fill('b')
    await area.add(key(2), bytes)
    bytes.fill('c')
    await area.publish(never)
    assert.equal(objects.get(key(1))?.bytes[0], 'a'.charCodeAt(0))
    assert.equal(objects.get(key(2))?.bytes[0], 'b'.charCodeAt(0))
  })

  it('leaves no name on the disk, so that no crash leaves a file', async (t) => {
    const { area, folder } = await spool(t)
    await addAll(area, [noise(1, 100_000)])
    assert.deepEqual(await readdir(folder), [])
  })

  it('has no room beyond its bound, and keeps what is added all the same', async (t) => {
    const { area, objects } = await spool(t, { maxBytes: 10_000 })
    const blocks = [noise(1, 6000), noise(2, 6000), noise(3, 6000)]
    assert.equal(hasRoom(area), true)
    await addAll(area, blocks)
    assert.equal(hasRoom(area), false)
    await area.publish(never)
    for (const [n, bytes] of blocks.entries()) assert.ok(objects.get(key(n))?.bytes.equals(bytes))
  })

  it('has no room where there is no folder, and none where the folder is memory', async (t) => {
    const nowhere = await spool(t, { folder: '/nowhere/at/all' })
    assert.equal(hasRoom(nowhere.area), false)
    const { area } = await spool(t, { folder: '/dev/shm' })
    assert.equal(hasRoom(area), false)
  })

  it('keeps what its disk could not take', async (t) => {
    // the folder goes between the look at its space and the first write
    const folder = await tempFolder(t)
    const { area, objects } = await spool(t, { folder })
    await rm(folder, { recursive: true })
    const bytes = noise(1, 9000)
    await area.add(key(1), bytes)
    assert.equal(hasRoom(area), false)
    await area.publish(never)
    assert.ok(objects.get(key(1))?.bytes.equals(bytes))
  })

  it('leaves what is there already, and tells', async (t) => {
    const { area, objects } = await spool(t)
    const theirs = { bytes: Buffer.from('theirs'), modifiedAtMs: 0, generation: 0 }
    objects.set(key(1), theirs)
    await addAll(area, [noise(1, 10), noise(2, 10)])
    assert.deepEqual(await area.publish(never), { created: [key(0)], existed: [key(1)] })
    assert.equal(objects.get(key(1)), theirs)
  })

  it('replaces what is there and not whole', async (t) => {
    const { area, objects } = await spool(t, { isWhole: (_key, size) => size > 100 })
    objects.set(key(0), { bytes: Buffer.from('half'), modifiedAtMs: 0, generation: 0 })
    await addAll(area, [noise(1, 1000)])
    assert.deepEqual((await area.publish(never)).created, [key(0)])
    assert.equal(objects.get(key(0))?.bytes.length, 1000)
  })

  it('asks before each object, and stops at the first that may not appear', async (t) => {
    const { area, objects } = await spool(t)
    await addAll(
      area,
      Array.from({ length: 20 }, (_, n) => noise(n, 1000)),
    )
    let asked = 0
    const before = () => {
      if (++asked > 5) throw new DroverError('LOCK_LOST', 'lost')
    }
    await assert.rejects(area.publish(before), { code: 'LOCK_LOST' })
    assert.equal(objects.size, 5)
  })

  it('fails with what the store says, when nothing is under way any more', async (t) => {
    let running = 0
    const faults = async (call: string, at: Key) => {
      if (call !== 'put') return
      running += 1
      await new Promise(setImmediate)
      running -= 1
      if (at === key(3)) throw new DroverError('TARGET_UNREACHABLE', 'no answer')
    }
    const { area } = await spool(t, { faults })
    await addAll(
      area,
      Array.from({ length: 10 }, (_, n) => noise(n, 1000)),
    )
    await assert.rejects(area.publish(never), { code: 'TARGET_UNREACHABLE' })
    assert.equal(running, 0)
  })

  it('takes more after it was emptied, and forgets what is discarded', async (t) => {
    const { area, objects } = await spool(t)
    await area.add(key(1), noise(1, 1000))
    await area.publish(never)
    await area.add(key(2), noise(2, 1000))
    assert.deepEqual((await area.publish(never)).created, [key(2)])
    await area.add(key(3), noise(3, 1000))
    await area.discard()
    assert.deepEqual(await area.publish(never), { created: [], existed: [] })
    assert.equal(objects.size, 2)
  })

  it('gives every block its own bytes, however adding and publishing go side by side', async (t) => {
    const { area, objects } = await spool(t)
    const blocks = Array.from({ length: 60 }, (_, n) => noise(n, 200_000 + n))
    const adding = blocks.map(async (bytes, n) => {
      for (let turns = n % 7; turns > 0; turns--) await new Promise(setImmediate)
      await area.add(key(n), bytes)
    })
    for (let times = 0; times < 40; times++) {
      await area.publish(never)
      await new Promise(setImmediate)
    }
    await Promise.all(adding)
    await area.publish(never)
    for (const [n, bytes] of blocks.entries()) {
      assert.ok(objects.get(key(n))?.bytes.equals(bytes), `block ${n}`)
    }
  })
})

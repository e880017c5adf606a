/** Servers that cannot be had here, played by the proxy: everything works on them, and how. */
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import { bodyOf } from '../../src/backupstore/object-store.ts'
import { sha512 } from '../helpers/images.ts'
import { makeKnownImage } from '../helpers/known-image.ts'
import { openSpace, strays } from '../helpers/s3/bucket-space.ts'
import { cephForAll, noCeph } from '../helpers/s3/ceph.ts'
import { startFaultProxy } from '../helpers/s3/fault-proxy.ts'
import type { ProfileName } from '../helpers/s3/profiles.ts'
import { profiles } from '../helpers/s3/profiles.ts'
import { openTarget } from '../helpers/s3/target.ts'

const KEY = 'backupstore/some/object.cfg'
const names = Object.keys(profiles) as ProfileName[]

describe('a server with its own mind', { skip: noCeph, concurrency: 3 }, () => {
  const ceph = cephForAll()

  const openOn = async (t: TestContext, name: ProfileName) => {
    const { admin, port, keys } = ceph()
    const bucket = await admin.makeBucket()
    const proxy = await startFaultProxy(port, { profile: profiles[name] })
    t.after(() => proxy.stop())
    const store = openTarget(`s3://${bucket}/`, { url: proxy.url, keys })
    t.after(() => store.close())
    return { bucket, proxy, store }
  }

  for (const name of names) {
    test(`serves every call: ${name}`, async (t) => {
      const { bucket, proxy, store } = await openOn(t, name)
      await store.put(KEY, bodyOf(Buffer.from('first')))
      assert.equal((await store.stat(KEY))?.sizeBytes, 5)
      const into = Buffer.alloc(5)
      assert.equal(await store.readInto(KEY, into), 5)
      assert.equal(into.toString(), 'first')
      for await (const page of store.list('backupstore/')) assert.equal(page.length, 1)
      const again = await store.put(KEY, bodyOf(Buffer.from('second')), { expect: 'absent' })
      assert.equal(again.written, false, 'it is there already')
      const fresh = await store.put(`${KEY}.x`, bodyOf(Buffer.from('x')), { expect: 'absent' })
      assert.equal(fresh.written, true)
      const version = (await store.stat(KEY))?.version ?? ''
      const over = await store.put(KEY, bodyOf(Buffer.from('third')), { expect: { version } })
      assert.equal(over.written, true)
      const late = await store.put(KEY, bodyOf(Buffer.from('fourth')), { expect: { version } })
      assert.equal(late.written, false, 'it is another one by now')
      assert.equal(String(await ceph().admin.get(bucket, KEY)), 'third')
      const removed = await store.removeAll?.([KEY, `${KEY}.x`])
      assert.deepEqual(removed, { removed: [KEY, `${KEY}.x`] })
      assert.deepEqual(await ceph().admin.keys(bucket), [], 'no trace is left of trying out')
      const refused = proxy.seen.filter(({ fault }) => fault === 'answer')
      assert.ok(refused.length <= 3, `asked in vain only to find out: ${refused.length}`)
    })

    test(`holds backups: ${name}`, async (t) => {
      const space = await openSpace(t, ceph(), { profile: profiles[name] })
      const image = await makeKnownImage(space.path('disk.raw'), [
        { kind: 'noise', seed: 1 },
        { kind: 'text', seed: 2 },
        { kind: 'zeros' },
        { kind: 'noise', seed: 1 },
      ])
      const made = await space.run('backup', image.file, '--target', space.target)
      assert.equal(made.checksum, image.sha512)
      await space.run('restore', space.url('disk'), space.path('again.raw'))
      assert.equal(await sha512(space.path('again.raw')), image.sha512)
      assert.deepEqual(strays(await space.keys()), [])
      await space.run('delete', space.url('disk'))
      const collected = await space.run('gc', '--target', space.target, '--min-age', '0s')
      assert.equal(collected.removed, 2)
      assert.deepEqual(await space.keys(), [])
    })
  }

  test('is asked once for a batch of removals that it does not know', async (t) => {
    const { proxy, store } = await openOn(t, 'no-delete-objects')
    const keys = Array.from({ length: 20 }, (_, n) => `backupstore/x/${n}`)
    for (let round = 0; round < 2; round++) {
      await Promise.all(keys.map((key) => store.put(key, bodyOf(Buffer.from(key)))))
      await store.removeAll?.(keys)
    }
    assert.deepEqual(proxy.counts(), { PutObject: 40, DeleteObjects: 1, DeleteObject: 40 })
  })

  test('is not asked for conditions that it refused or ignored before', async (t) => {
    for (const name of [
      'no-conditional-writes-refused',
      'no-conditional-writes-ignored',
    ] as const) {
      const { proxy, store } = await openOn(t, name)
      for (let n = 0; n < 5; n++) {
        const key = `backupstore/x/${n}`
        const put = await store.put(key, bodyOf(Buffer.from(key)), { expect: 'absent' })
        assert.ok(put.written)
      }
      const conditional = proxy.seen.filter(({ headers }) => headers['if-none-match'] !== undefined)
      assert.equal(conditional.length, 1)
    }
  })
})

/** How the driver speaks to a server: what it sends, repeats, gives up, and lets go of. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import type { Body, ObjectStore } from '../../src/backupstore/object-store.ts'
import { bodyOf } from '../../src/backupstore/object-store.ts'
import { DroverError } from '../../src/lib/errors.ts'
import { noise } from '../helpers/images.ts'
import { cephForAll, noCeph } from '../helpers/s3/ceph.ts'
import type { Fault, Rule } from '../helpers/s3/faults.ts'
import { firstOf, operation, slowDown } from '../helpers/s3/faults.ts'
import type { FaultProxy, SeenRequest } from '../helpers/s3/fault-proxy.ts'
import { startFaultProxy } from '../helpers/s3/fault-proxy.ts'
import { startForwardProxy } from '../helpers/s3/forward-proxy.ts'
import { DNS_NAME } from '../helpers/s3/names.ts'
import type { Overrides } from '../helpers/s3/target.ts'
import { openTarget } from '../helpers/s3/target.ts'
import { buildVersity, startVersity } from '../helpers/s3/versity.ts'
import { waitUntil } from '../helpers/wait-until.ts'

const KEY = 'backupstore/some/object.cfg'
const SIZE = 1_500_000
const BYTES = noise(1, SIZE)

interface Bench {
  readonly bucket: string
  readonly proxy: FaultProxy
  readonly store: ObjectStore
}

const ceph = cephForAll({ tls: true })

/** A bucket with an object, and a store that sees it through a proxy. */
async function openBench(t: TestContext, overrides?: Overrides): Promise<Bench> {
  const { admin, port, keys } = ceph()
  const bucket = await admin.makeBucket()
  await admin.put(bucket, KEY, BYTES)
  const proxy = await startFaultProxy(port)
  t.after(() => proxy.stop())
  const store = openTarget(`s3://${bucket}/`, { url: proxy.url, keys }, overrides)
  t.after(() => store.close())
  return { bucket, proxy, store }
}

async function readAll(store: ObjectStore, key = KEY): Promise<Buffer> {
  const parts: Uint8Array[] = []
  const object = await store.open(key)
  for await (const chunk of object?.chunks ?? []) parts.push(chunk)
  return Buffer.concat(parts)
}

async function readInto(store: ObjectStore, key = KEY): Promise<Buffer> {
  const into = Buffer.alloc(SIZE + 100)
  const length = await store.readInto(key, into)
  assert.ok(length !== undefined)
  return into.subarray(0, length)
}

const inPieces = (bytes: Buffer): Body => ({
  sizeBytes: bytes.length,
  *chunks() {
    for (let at = 0; at < bytes.length; at += 100_000) yield bytes.subarray(at, at + 100_000)
  },
})

const headerOf = ({ rawHeaders }: SeenRequest, wanted: string): string | undefined => {
  const at = rawHeaders.findIndex((name, n) => n % 2 === 0 && name.toLowerCase() === wanted)
  return at === -1 ? undefined : rawHeaders[at + 1]
}

describe('a call that meets a fault', { skip: noCeph, concurrency: 4 }, () => {
  const passing: Record<string, Fault> = {
    'is answered with 500': { kind: 'answer', status: 500, code: 'InternalError' },
    'is answered with 503': { kind: 'answer', status: 503, code: 'ServiceUnavailable' },
    'is throttled': slowDown(),
    'is throttled with 429': { kind: 'answer', status: 429, code: 'TooManyRequests' },
    'is reset at its first byte': { kind: 'reset', direction: 'response', atByte: 0 },
    'is reset in the middle of its answer': { kind: 'reset', direction: 'response', atByte: 90 },
    'ends in the middle of its answer': { kind: 'cut', direction: 'response', atByte: 50 },
    'is answered with 500 when it was done': {
      kind: 'answer-after',
      status: 500,
      code: 'InternalError',
    },
  }
  for (const [what, fault] of Object.entries(passing)) {
    test(`and ${what} is made again`, async (t) => {
      const { store, proxy, bucket } = await openBench(t)
      const once = (name: string) => proxy.setRule(firstOf(operation(name), [fault]))
      once('GetObject')
      assert.ok((await readInto(store)).equals(BYTES), 'readInto')
      once('GetObject')
      assert.ok((await readAll(store)).equals(BYTES), 'open')
      once('ListObjectsV2')
      const keys: string[] = []
      for await (const page of store.list('backupstore/')) keys.push(...page.map(({ key }) => key))
      assert.deepEqual(keys, [KEY])
      once('PutObject')
      const put = await store.put(`${KEY}.new`, inPieces(BYTES))
      assert.ok(put.written)
      assert.ok((await ceph().admin.get(bucket, `${KEY}.new`)).equals(BYTES), 'put')
      once('DeleteObject')
      await store.remove(`${KEY}.new`)
      once('DeleteObjects')
      const removed = await store.removeAll?.([KEY])
      assert.deepEqual(removed, { removed: [KEY] })
      assert.deepEqual(await ceph().admin.keys(bucket), [])
      const struck = proxy.seen.filter(({ fault: met }) => met !== undefined)
      assert.equal(struck.length, 6)
    })
  }

  for (const kind of ['reset', 'cut'] as const) {
    for (const atByte of [0, 1, 70_000, SIZE - 1]) {
      test(`goes on when an answer is ${kind} at byte ${atByte}`, async (t) => {
        const { store, proxy } = await openBench(t)
        const fault: Fault = { kind, direction: 'response', atByte }
        proxy.setRule(firstOf(operation('GetObject'), [fault, fault]))
        assert.ok((await readInto(store)).equals(BYTES))
        proxy.setRule(firstOf(operation('GetObject'), [fault]))
        assert.ok((await readAll(store)).equals(BYTES))
      })

      test(`goes on when a request is ${kind} at byte ${atByte}`, async (t) => {
        const { store, proxy, bucket } = await openBench(t)
        const fault: Fault = { kind, direction: 'request', atByte }
        proxy.setRule(firstOf(operation('PutObject'), [fault, fault]))
        const put = await store.put(`${KEY}.new`, bodyOf(BYTES))
        assert.ok(put.written)
        assert.ok((await ceph().admin.get(bucket, `${KEY}.new`)).equals(BYTES))
        assert.deepEqual(await ceph().admin.keys(bucket), [KEY, `${KEY}.new`])
      })
    }
  }

  test('does not store bytes that changed on the way', async (t) => {
    const { store, proxy, bucket } = await openBench(t)
    const flip: Fault = { kind: 'flip', direction: 'request', atByte: 1000 }
    proxy.setRule(firstOf(operation('PutObject'), [flip]))
    await store.put(`${KEY}.new`, bodyOf(BYTES))
    assert.ok((await ceph().admin.get(bucket, `${KEY}.new`)).equals(BYTES), 'sent once more')
    proxy.setRule((request) => (request.operation === 'PutObject' ? flip : undefined))
    const always = store.put(`${KEY}.never`, bodyOf(BYTES))
    await assert.rejects(always, { code: 'TARGET_UNREACHABLE' })
    assert.deepEqual(await ceph().admin.keys(bucket), [KEY, `${KEY}.new`])
  })

  test('still knows its own success when the answer got lost', async (t) => {
    const { store, proxy, bucket } = await openBench(t)
    const lost: Fault[] = [
      { kind: 'reset', direction: 'response', atByte: 0 },
      { kind: 'answer-after', status: 500, code: 'InternalError' },
    ]
    for (const [n, fault] of lost.entries()) {
      const key = `${KEY}.${n}`
      proxy.setRule(firstOf((request) => request.key === key, [fault]))
      const put = await store.put(key, bodyOf(Buffer.from('mine')), { expect: 'absent' })
      assert.equal(put.written, true)
      const theirs = await store.put(key, bodyOf(Buffer.from('yours')), { expect: 'absent' })
      assert.equal(theirs.written, false)
      assert.equal(String(await ceph().admin.get(bucket, key)), 'mine')
    }
  })

  test('is asked before each repetition whether it may still be made', async (t) => {
    const { store, proxy, bucket } = await openBench(t)
    const lost = new DroverError('LOCK_LOST', 'lost')
    let asked = 0
    const before = () => {
      asked += 1
      if (asked === 2) throw lost
    }
    const fault: Fault = { kind: 'answer', status: 500, code: 'InternalError' }
    proxy.setRule(firstOf(operation('PutObject'), [fault]))
    const put = store.put(`${KEY}.new`, bodyOf(BYTES), { before })
    await assert.rejects(put, (error) => error === lost)
    assert.deepEqual(await ceph().admin.keys(bucket), [KEY])
  })

  test('waits as long as the server asks for', async (t) => {
    const { store, proxy } = await openBench(t)
    proxy.setRule(firstOf(() => true, [slowDown(2)]))
    assert.equal((await store.stat(KEY))?.sizeBytes, SIZE)
    const [first, second] = proxy.seen
    const waitedMs = (second?.atMs ?? 0) - (first?.atMs ?? 0)
    assert.ok(waitedMs >= 1950, `${waitedMs} ms`)
  })
})

describe('a call that gets no answer', { skip: noCeph, concurrency: 4 }, () => {
  const stall = (direction: 'request' | 'response', atByte: number): Rule => {
    return () => ({ kind: 'stall', direction, atByte })
  }
  const silence: Rule = () => ({ kind: 'delay', direction: 'response', ms: 60_000 })
  const calls: Record<
    string,
    readonly [Rule, (store: ObjectStore, signal?: AbortSignal) => Promise<unknown>]
  > = {
    'a put': [
      stall('request', 100_000),
      (store, signal) => store.put(`${KEY}.new`, bodyOf(BYTES), { ...(signal && { signal }) }),
    ],
    'a put that is not acknowledged': [
      silence,
      (store, signal) => store.put(KEY, bodyOf(BYTES), { ...(signal && { signal }) }),
    ],
    'a read': [
      stall('response', 0),
      (store, signal) => store.readInto(KEY, Buffer.alloc(SIZE), { ...(signal && { signal }) }),
    ],
    'a stat': [silence, (store, signal) => store.stat(KEY, { ...(signal && { signal }) })],
    'a listing': [
      stall('response', 10),
      async (store, signal) => {
        for await (const page of store.list('backupstore/', { ...(signal && { signal }) }))
          assert.ok(page)
      },
    ],
    'a batch of removals': [
      stall('response', 0),
      async (store, signal) => {
        const answer = await store.removeAll?.([KEY], { ...(signal && { signal }) })
        if (answer?.failure) throw answer.failure
      },
    ],
  }
  for (const [what, [rule, run]] of Object.entries(calls)) {
    test(`ends within its deadline: ${what}`, async (t) => {
      const { store, proxy } = await openBench(t, { callTimeoutMs: 2000 })
      proxy.setRule(rule)
      const startedMs = performance.now()
      await assert.rejects(run(store), { code: 'TARGET_UNREACHABLE', retryable: true })
      const tookMs = performance.now() - startedMs
      // the deadline of a call grows with what it may have to transfer
      assert.ok(tookMs < (/put|read/.test(what) ? 12_000 : 4000), `${tookMs} ms`)
      await waitUntil(() => proxy.underWay() === 0, 'nothing is left hanging', 1000)
    })

    test(`is cancelled down to its socket: ${what}`, async (t) => {
      const { store, proxy } = await openBench(t)
      await store.stat(KEY)
      proxy.setRule(rule)
      const abort = new AbortController()
      const reason = new DroverError('LOCK_LOST', 'the reason')
      const call = run(store, abort.signal)
      const settled = call.catch(() => undefined)
      await waitUntil(() => proxy.seen.some(({ fault }) => fault !== undefined), 'it hangs')
      const startedMs = performance.now()
      abort.abort(reason)
      await assert.rejects(call, (error) => error === reason)
      assert.ok(performance.now() - startedMs < 1000, 'at once')
      await waitUntil(() => proxy.underWay() === 0, 'its socket is closed', 1000)
      assert.equal(proxy.seen.at(-1)?.abandoned, true)
      await settled
    })
  }

  test('is given up in the middle of a stream that is read no further', async (t) => {
    const { store, proxy } = await openBench(t)
    const object = await store.open(KEY)
    for await (const chunk of object?.chunks ?? []) {
      assert.ok(chunk.length > 0)
      break
    }
    await waitUntil(() => proxy.underWay() === 0, 'the rest is not waited for', 2000)
  })

  test('ends a stream that stalls in its middle', async (t) => {
    const { store, proxy } = await openBench(t, { callTimeoutMs: 2000 })
    let reads = 0
    const rule: Rule = () => ({
      kind: 'stall',
      direction: 'response',
      atByte: reads++ === 0 ? 100_000 : 0,
    })
    proxy.setRule(rule)
    await assert.rejects(readAll(store), { code: 'TARGET_UNREACHABLE' })
    await waitUntil(() => proxy.underWay() === 0, 'nothing is left hanging', 1000)
  })
})

describe('what is sent', { skip: noCeph, concurrency: 4 }, () => {
  test('is plain: known lengths, MD5, no other checksum, nothing signed that proxies change', async (t) => {
    const { store, proxy, bucket } = await openBench(t)
    await store.put(`${KEY}.pieces`, inPieces(BYTES))
    await store.put(`${KEY}.empty`, bodyOf(Buffer.alloc(0)))
    await store.put(`${KEY}.new`, bodyOf(Buffer.from('x')), { expect: 'absent' })
    await store.stat(KEY)
    await store.stat(`${KEY}.empty`)
    await readInto(store)
    await readAll(store)
    for await (const page of store.list('backupstore/')) assert.equal(page.length, 4)
    await store.remove(KEY)
    await store.removeAll?.([`${KEY}.empty`, `${KEY}.new`, `${KEY}.pieces`])
    assert.deepEqual(await ceph().admin.keys(bucket), [])
    for (const request of proxy.seen) {
      const what = `${request.method} ${request.url}`
      assert.equal(headerOf(request, 'transfer-encoding'), undefined, what)
      assert.doesNotMatch(headerOf(request, 'content-encoding') ?? '', /aws-chunked/, what)
      assert.equal(headerOf(request, 'expect'), undefined, what)
      const signed = /SignedHeaders=([^,]+)/.exec(headerOf(request, 'authorization') ?? '')?.[1]
      assert.ok(signed !== undefined && signed.includes('host'), what)
      assert.doesNotMatch(signed, /accept-encoding|;user-agent|connection/, what)
      for (const name of request.rawHeaders) {
        assert.doesNotMatch(name, /^x-amz-(checksum|sdk-checksum|trailer|decoded)/i, what)
      }
      if (request.operation === 'PutObject' || request.operation === 'DeleteObjects') {
        assert.match(headerOf(request, 'content-length') ?? '', /^\d+$/, what)
        assert.match(headerOf(request, 'content-md5') ?? '', /^[A-Za-z0-9+/]{22}==$/, what)
      }
    }
    const whole = proxy.seen.find(({ key }) => key === `${KEY}.pieces`)
    assert.ok(whole)
    assert.equal(headerOf(whole, 'content-length'), String(SIZE))
    assert.equal(headerOf(whole, 'content-md5'), createHash('md5').update(BYTES).digest('base64'))
  })

  test('is counted as the server counts it', async (t) => {
    const { store, proxy } = await openBench(t)
    proxy.setRule(firstOf(operation('GetObject'), [{ kind: 'answer', status: 500, code: 'X' }]))
    await store.stat(KEY)
    await store.put(`${KEY}.new`, bodyOf(BYTES), { expect: 'absent' })
    await store.remove(KEY)
    for await (const page of store.list('backupstore/')) assert.ok(page)
    await store.removeAll?.([KEY])
    assert.deepEqual(store.requests?.(), proxy.counts())
  })

  test('goes over few connections, which are used again and closed in the end', async (t) => {
    const { store, proxy } = await openBench(t, { concurrency: 4 })
    const round = () =>
      Promise.all([
        ...Array.from({ length: 30 }, (_, n) => store.put(`backupstore/x/${n}`, bodyOf(BYTES))),
        ...Array.from({ length: 30 }, () => readInto(store)),
        ...Array.from({ length: 30 }, () => store.stat(KEY)),
      ])
    await round()
    await round()
    const { accepted, peak } = proxy.sockets()
    assert.ok(peak <= 4 + 4, `${peak} at once`)
    assert.ok(accepted <= peak + 4, `${accepted} in all`)
    await store.close()
    await waitUntil(() => proxy.sockets().open === 0, 'all are closed', 5000)
  })

  test('removes many by few requests, and tells which could not be removed', async (t) => {
    const { store, proxy, bucket } = await openBench(t)
    const keys = Array.from({ length: 300 }, (_, n) => `backupstore/many/${n} & <${n}>`)
    await Promise.all(keys.map((key) => ceph().admin.put(bucket, key, 'x')))
    const answer = await store.removeAll?.([...keys, 'backupstore/many/absent'])
    assert.equal(answer?.failure, undefined)
    assert.equal(answer?.removed.length, 301)
    assert.deepEqual(proxy.counts(), { DeleteObjects: 2 }, '250 keys a request')
    assert.deepEqual(await ceph().admin.keys(bucket), [KEY])
  })

  test('reaches buckets by their own host names', async (t) => {
    const forward = await startForwardProxy()
    t.after(() => forward.stop())
    const { bucket, proxy } = await openBench(t)
    const store = openTarget(
      `s3://${bucket}/`,
      { url: `http://${DNS_NAME}:${proxy.port}`, keys: ceph().keys },
      { virtualHosted: true, proxy: { HTTP_PROXY: forward.url } },
    )
    t.after(() => store.close())
    assert.ok((await readInto(store)).equals(BYTES))
    for await (const page of store.list('backupstore/')) assert.equal(page.length, 1)
    for (const request of proxy.seen) {
      assert.equal(request.headers.host, `${bucket}.${DNS_NAME}:${proxy.port}`)
      assert.ok(!request.url.includes(bucket))
    }
    const { secure } = ceph()
    assert.ok(secure)
    const tls = openTarget(
      `s3://${bucket}/`,
      { url: `https://${DNS_NAME}:${secure.port}`, keys: ceph().keys },
      { virtualHosted: true, ca: secure.caPem, proxy: { HTTPS_PROXY: forward.url } },
    )
    t.after(() => tls.close())
    assert.ok((await readInto(tls)).equals(BYTES))
    assert.deepEqual([...new Set(forward.tunnels)], [`${bucket}.${DNS_NAME}:${secure.port}`])
  })

  test('goes through the proxy of the environment, unless its host is excepted', async (t) => {
    const forward = await startForwardProxy('drover:pass word'.replace(' ', ''))
    t.after(() => forward.stop())
    const { secure, url, keys, port } = ceph()
    assert.ok(secure)
    const { bucket } = await openBench(t)
    const read = async (server: string, overrides: Overrides) => {
      const store = openTarget(`s3://${bucket}/`, { url: server, keys }, overrides)
      t.after(() => store.close())
      assert.ok((await readInto(store)).equals(BYTES))
      await store.put(`${KEY}.new`, bodyOf(BYTES))
    }
    const both = { HTTP_PROXY: forward.url, HTTPS_PROXY: forward.url }
    await read(url, { proxy: both })
    assert.equal(forward.requests.length, 2)
    await read(secure.url, { proxy: both, ca: secure.caPem })
    assert.ok(forward.tunnels.length >= 1)
    const [requests, tunnels] = [forward.requests.length, forward.tunnels.length]
    for (const NO_PROXY of [
      '127.0.0.1',
      `localhost,127.0.0.1:${port},127.0.0.1:${secure.port}`,
      '*',
    ]) {
      await read(url, { proxy: { ...both, NO_PROXY } })
      await read(secure.url, { proxy: { ...both, NO_PROXY }, ca: secure.caPem })
    }
    assert.deepEqual([forward.requests.length, forward.tunnels.length], [requests, tunnels])
  })
})

const versity = await buildVersity()
test(
  'encryption and storage class are asked for where they are set, and only there',
  { skip: typeof versity === 'string' && versity },
  async (t) => {
    assert.ok(typeof versity === 'object')
    const server = await startVersity(versity)
    t.after(() => server.stop())
    t.after(() => server.admin.close())
    const proxy = await startFaultProxy(server.port)
    t.after(() => proxy.stop())
    const bucket = await server.admin.makeBucket()
    const block = 'backupstore/backing-images/blocks/aa/bb/aabb.blk'
    const config = 'backupstore/backing-images/backing-images/disk/backing-image.cfg'
    const lock = 'backupstore/volumes/22/fc/BACKINGIMAGE/locks/lock-0123456789abcdef.lck'
    const sent = async (overrides: Overrides) => {
      const store = openTarget(`s3://${bucket}/`, { url: proxy.url, keys: server.keys }, overrides)
      t.after(() => store.close())
      proxy.forget()
      await store.put(block, bodyOf(BYTES))
      await store.put(config, bodyOf(Buffer.from('config')))
      await store.put(lock, bodyOf(Buffer.from('lock')))
      return proxy.seen.map((request) => [
        headerOf(request, 'x-amz-server-side-encryption'),
        headerOf(request, 'x-amz-server-side-encryption-aws-kms-key-id'),
        headerOf(request, 'x-amz-storage-class'),
      ])
    }
    const none = [undefined, undefined, undefined]
    assert.deepEqual(await sent({}), [none, none, none])
    assert.deepEqual(await sent({ encryption: { kind: 'AES256' } }), [
      ['AES256', undefined, undefined],
      ['AES256', undefined, undefined],
      ['AES256', undefined, undefined],
    ])
    // asserted on the headers only: no server here has a key service
    assert.deepEqual(await sent({ encryption: { kind: 'aws:kms', keyId: 'key-1' } }), [
      ['aws:kms', 'key-1', undefined],
      ['aws:kms', 'key-1', undefined],
      ['aws:kms', 'key-1', undefined],
    ])
    assert.deepEqual(await sent({ encryption: { kind: 'aws:kms', keyId: undefined } }), [
      ['aws:kms', undefined, undefined],
      ['aws:kms', undefined, undefined],
      ['aws:kms', undefined, undefined],
    ])
    assert.deepEqual(await sent({ storageClass: 'STANDARD_IA' }), [
      [undefined, undefined, 'STANDARD_IA'],
      none,
      none,
    ])
  },
)

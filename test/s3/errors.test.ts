/** What goes wrong with a target gets its own code each, from every call, and never looks like absence. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import type { ObjectStore } from '../../src/backupstore/object-store.ts'
import { bodyOf } from '../../src/backupstore/object-store.ts'
import type { ErrorCode } from '../../src/lib/errors.ts'
import { DroverError } from '../../src/lib/errors.ts'
import type { S3Keys } from '../helpers/s3/admin.ts'
import { cephForAll, noCeph } from '../helpers/s3/ceph.ts'
import type { Rule } from '../helpers/s3/faults.ts'
import { slowDown } from '../helpers/s3/faults.ts'
import { startFaultProxy } from '../helpers/s3/fault-proxy.ts'
import { startForwardProxy } from '../helpers/s3/forward-proxy.ts'
import { freePort } from '../helpers/s3/ports.ts'
import type { Overrides, Server } from '../helpers/s3/target.ts'
import { openTarget } from '../helpers/s3/target.ts'
import { countSockets } from '../helpers/s3/tcp-proxy.ts'
import { buildVersity, startVersity } from '../helpers/s3/versity.ts'

const KEY = 'backupstore/some/object.cfg'
const SECRET = 'a-very-secret-thing'

const calls: Record<string, (store: ObjectStore, key: string) => Promise<unknown>> = {
  stat: (store, key) => store.stat(key),
  open: (store, key) => store.open(key),
  'open of a beginning': (store, key) => store.open(key, { firstBytes: 10 }),
  readInto: (store, key) => store.readInto(key, Buffer.alloc(100)),
  put: (store, key) => store.put(key, bodyOf(Buffer.from('x'))),
  'conditional put': (store, key) => store.put(key, bodyOf(Buffer.from('x')), { expect: 'absent' }),
  remove: (store, key) => store.remove(key),
  removeAll: async (store, key) => {
    const answer = await store.removeAll?.([key])
    if (answer?.failure) throw answer.failure
  },
  list: async (store) => {
    for await (const page of store.list('backupstore/')) assert.ok(page)
  },
}

const everyCall = Object.keys(calls)

/** Fails unless each call fails with this code, for an object that is there and one that is not. */
async function eachFails(
  store: ObjectStore,
  code: ErrorCode,
  wanted: readonly string[] = everyCall,
): Promise<DroverError[]> {
  const errors: DroverError[] = []
  const attempts = wanted.flatMap((name) => [KEY, `${KEY}.absent`].map((key) => ({ name, key })))
  await Promise.all(
    attempts.map(async ({ name, key }) => {
      const what = `${name} ${key}`
      const error = await calls[name]?.(store, key).then(
        (value) => assert.fail(`${what} answered ${inspect(value)}`),
        (reason: unknown) => reason,
      )
      assert.ok(error instanceof DroverError, `${what}: ${inspect(error)}`)
      assert.equal(error.code, code, `${what}: ${inspect(error)}`)
      assert.ok(!inspect(error, { depth: 9 }).includes(SECRET), `${what} tells a secret`)
      errors.push(error)
    }),
  )
  return errors
}

describe('an error of a target', { skip: noCeph, concurrency: 4 }, () => {
  const ceph = cephForAll({ tls: true })

  interface Bench {
    readonly bucket: string
    readonly open: (server?: Partial<Server>, overrides?: Overrides) => ObjectStore
  }

  /** A bucket with an object, and stores that see it. */
  const openBench = async (t: TestContext): Promise<Bench> => {
    const bucket = await ceph().admin.makeBucket()
    await ceph().admin.put(bucket, KEY, 'there')
    return {
      bucket,
      open(server, overrides) {
        const { url, keys } = ceph()
        const store = openTarget(
          `s3://${bucket}/`,
          { url, keys, ...server },
          { callTimeoutMs: 5000, ...overrides },
        )
        t.after(() => store.close())
        return store
      },
    }
  }

  const openBehind = async (t: TestContext, rule: Rule, overrides?: Overrides) => {
    const proxy = await startFaultProxy(ceph().port, { rule })
    t.after(() => proxy.stop())
    const bench = await openBench(t)
    return { proxy, store: bench.open({ url: proxy.url }, overrides) }
  }

  test('says that a bucket does not exist', async (t) => {
    const { url, keys } = ceph()
    const store = openTarget('s3://nothing-of-this-name/', { url, keys })
    t.after(() => store.close())
    const [error] = await eachFails(store, 'TARGET_NOT_FOUND')
    assert.match(error?.message ?? '', /bucket/)
  })

  test('says that the access key is unknown', async (t) => {
    const keys: S3Keys = { accessKeyId: 'AKSTRANGER', secretAccessKey: SECRET }
    const { open } = await openBench(t)
    await eachFails(open({ keys }), 'TARGET_CREDENTIALS')
  })

  test('says that the secret key is wrong', async (t) => {
    const keys: S3Keys = { ...ceph().keys, secretAccessKey: SECRET }
    const { open } = await openBench(t)
    await eachFails(open({ keys }), 'TARGET_SIGNATURE')
  })

  test('says that access is denied, where nothing is allowed', async (t) => {
    const keys = await ceph().makeUser('nobody')
    const { open } = await openBench(t)
    await eachFails(open({ keys }), 'TARGET_FORBIDDEN')
  })

  test('says that writing is denied, where reading is allowed', async (t) => {
    const { bucket, open } = await openBench(t)
    const keys = await ceph().makeUser('reader')
    await ceph().admin.allow(bucket, 'reader', ['s3:GetObject', 's3:ListBucket'])
    const store = open({ keys })
    assert.equal((await store.stat(KEY))?.sizeBytes, 5)
    assert.equal(await store.stat(`${KEY}.absent`), undefined)
    await eachFails(store, 'TARGET_FORBIDDEN', ['put', 'conditional put', 'remove', 'removeAll'])
    assert.equal(String(await ceph().admin.get(bucket, KEY)), 'there')
  })

  test('never takes for absent what may not be looked at', async (t) => {
    const { bucket, open } = await openBench(t)
    await ceph().admin.put(bucket, KEY, '')
    const keys = await ceph().makeUser('writer')
    await ceph().admin.allow(bucket, 'writer', ['s3:PutObject', 's3:GetObject'])
    const store = open({ keys })
    // without the right to list, a server answers 403 for what is not there
    for (const name of ['stat', 'open', 'open of a beginning', 'readInto']) {
      const call = calls[name]?.(store, `${KEY}.absent`)
      await assert.rejects(call ?? Promise.resolve(), { code: 'TARGET_FORBIDDEN' }, name)
    }
    assert.equal((await store.stat(KEY))?.sizeBytes, 0)
  })

  const refusals: Record<string, readonly [status: number, said: string, code: ErrorCode]> = {
    'the clock is wrong': [403, 'RequestTimeTooSkewed', 'TARGET_CLOCK_SKEW'],
    'a token is out of date': [400, 'ExpiredToken', 'TARGET_CREDENTIALS'],
    'a token is not known': [400, 'InvalidToken', 'TARGET_CREDENTIALS'],
    'the bucket moved for good': [301, 'PermanentRedirect', 'TARGET_WRONG_REGION'],
    'the region is wrong': [400, 'AuthorizationHeaderMalformed', 'TARGET_WRONG_REGION'],
    'access is denied': [403, 'AccessDenied', 'TARGET_FORBIDDEN'],
    'there is no space': [507, 'XMinioStorageFull', 'NO_SPACE'],
    'requests are too many (503)': [503, 'SlowDown', 'TARGET_THROTTLED'],
    'requests are too many (429)': [429, 'TooManyRequests', 'TARGET_THROTTLED'],
    'the server is broken': [500, 'InternalError', 'TARGET_UNREACHABLE'],
    'the server is in the works': [503, 'ServiceUnavailable', 'TARGET_UNREACHABLE'],
    'a gateway finds no server': [502, 'BadGateway', 'TARGET_UNREACHABLE'],
  }
  for (const [what, [status, said, code]] of Object.entries(refusals)) {
    test(`says that ${what}`, async (t) => {
      const rule: Rule = () => ({ kind: 'answer', status, code: said })
      const { store } = await openBehind(t, rule, { callTimeoutMs: 2500 })
      const startedMs = performance.now()
      // a client that is throttled lets its calls wait for each other: two of them will do
      await eachFails(store, code, code === 'TARGET_THROTTLED' ? ['stat'] : everyCall)
      assert.ok(performance.now() - startedMs < 8000, 'within the deadline')
    })
  }

  test('says that nothing listens there', async (t) => {
    const { open } = await openBench(t)
    const url = `http://127.0.0.1:${await freePort()}`
    const [error] = await eachFails(open({ url }), 'TARGET_UNREACHABLE')
    assert.match(error?.message ?? '', /nothing listens/)
  })

  test('says that the name of a server is not known', async (t) => {
    const { open } = await openBench(t)
    const store = open({ url: 'http://nowhere.invalid:7480' })
    // one call, for a resolver may take its time with each
    const [error] = await eachFails(store, 'TARGET_UNREACHABLE', ['stat'])
    assert.match(error?.message ?? '', /name|no answer in time/)
  })

  test('says that a server accepts and does not answer', async (t) => {
    const { open } = await openBench(t)
    const url = await serve(t, () => undefined)
    const startedMs = performance.now()
    const [error] = await eachFails(open({ url }, { callTimeoutMs: 1500 }), 'TARGET_UNREACHABLE')
    assert.ok(performance.now() - startedMs < 6000, 'within the deadline')
    assert.equal(error?.retryable, true)
  })

  test('says that what answers is no S3 server', async (t) => {
    const { open } = await openBench(t)
    const answers: Record<string, string> = {
      garbage: 'SSH-2.0-OpenSSH_9.2\r\n',
      'a web page': page('200 OK', '<p>Welcome!</p>'),
      'a login page': page('200 OK', '<!DOCTYPE html><html><body>Log in<br></body></html>'),
      'a page that is not found': page('404 Not Found', '<html><body>Not Found</body></html>'),
      'a page that is no XML': page('404 Not Found', '<!DOCTYPE html><p>Not <br>Found'),
      'nothing that is found': page('404 Not Found', ''),
    }
    for (const [what, answer] of Object.entries(answers)) {
      const url = await serve(t, (socket) => socket.end(answer))
      const store = open({ url }, { callTimeoutMs: 1500 })
      const errors = await eachFails(store, 'TARGET_UNREACHABLE')
      for (const { message } of errors) {
        if (what.includes('found')) assert.match(message, /is it an S3 server/, what)
      }
    }
  })

  test('says that the certificate is not trusted, and how to trust it', async (t) => {
    const { open } = await openBench(t)
    const { secure } = ceph()
    assert.ok(secure)
    const [error] = await eachFails(open({ url: secure.url }), 'TARGET_UNTRUSTED')
    assert.match(error?.message ?? '', /AWS_CERT/)
    const trusting = open({ url: secure.url }, { ca: secure.caPem })
    assert.equal((await trusting.stat(KEY))?.sizeBytes, 5)
  })

  test('says that the certificate is for another name', async (t) => {
    const { open } = await openBench(t)
    const { secure } = ceph()
    assert.ok(secure)
    const proxy = await startForwardProxy()
    t.after(() => proxy.stop())
    const url = `https://another-name.localhost:${secure.port}`
    const store = open({ url }, { ca: secure.caPem, proxy: { HTTPS_PROXY: proxy.url } })
    const [error] = await eachFails(store, 'TARGET_UNTRUSTED')
    assert.match(error?.message ?? '', /name/)
  })

  test('says that a server speaks no TLS', async (t) => {
    const { open } = await openBench(t)
    const [error] = await eachFails(
      open({ url: `https://127.0.0.1:${ceph().port}` }),
      'TARGET_UNREACHABLE',
    )
    assert.match(error?.message ?? '', /TLS/)
  })

  test('is over when the throttling is', async (t) => {
    let left = 2
    const { store, proxy } = await openBehind(t, () => (left-- > 0 ? slowDown() : undefined), {
      callTimeoutMs: 20_000,
    })
    assert.equal((await store.stat(KEY))?.sizeBytes, 5)
    assert.deepEqual(proxy.counts(), { GetObject: 3 })
  })
})

const versity = await buildVersity()
describe('an error of another server', { skip: typeof versity === 'string' && versity }, () => {
  test('has the same codes', async (t) => {
    assert.ok(typeof versity === 'object')
    const server = await startVersity(versity)
    t.after(() => server.stop())
    t.after(() => server.admin.close())
    const bucket = await server.admin.makeBucket()
    await server.admin.put(bucket, KEY, 'there')
    const open = (keys: S3Keys, overrides?: Overrides) => {
      const store = openTarget(`s3://${bucket}/`, { url: server.url, keys }, overrides)
      t.after(() => store.close())
      return store
    }
    const missing = openTarget('s3://nothing-of-this-name/', server)
    t.after(() => missing.close())
    await eachFails(missing, 'TARGET_NOT_FOUND')
    const stranger = { accessKeyId: 'AKSTRANGER', secretAccessKey: SECRET }
    await eachFails(open(stranger), 'TARGET_CREDENTIALS')
    await eachFails(open({ ...server.keys, secretAccessKey: SECRET }), 'TARGET_SIGNATURE')
    await eachFails(open(server.keys, { region: 'eu-west-1' }), 'TARGET_WRONG_REGION')
  })
})

const page = (status: string, body: string): string =>
  `HTTP/1.1 ${status}\r\ncontent-type: text/html\r\ncontent-length: ${body.length}\r\n\r\n${body}`

/** A server that does this to each connection once it has sent something. Returns its URL. */
async function serve(t: TestContext, act: (socket: Socket) => void): Promise<string> {
  const sockets = countSockets()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.once('data', () => act(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.close()
    sockets.destroyAll()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** The proxies of the tests do what they say, before anything is concluded from them. */
import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { Agent, createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import type { Fault } from '../helpers/s3/faults.ts'
import { firstOf, operation, slowDown, weather } from '../helpers/s3/faults.ts'
import { startFaultProxy } from '../helpers/s3/fault-proxy.ts'
import { s3Request } from '../helpers/s3/operation.ts'
import { startTcpProxy } from '../helpers/s3/tcp-proxy.ts'

const BYTES = Buffer.from(Array.from({ length: 300_000 }, (_, at) => at % 251))

/** A server that tells what it got, or sends bytes for a GET. */
async function startServer(t: TestContext) {
  const got: Array<{ headers: IncomingMessage['headers']; body: Buffer | undefined }> = []
  const server = createServer((incoming, answer) => {
    buffer(incoming).then(
      (body) => {
        got.push({ headers: incoming.headers, body })
        answer.end(incoming.method === 'GET' ? BYTES : 'ok')
      },
      () => got.push({ headers: incoming.headers, body: undefined }),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return { port: (server.address() as AddressInfo).port, got }
}

interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
}

/** One request on a connection of its own, or one of an agent. */
function ask(port: number, method: string, path: string, body?: Buffer, agent?: Agent) {
  return new Promise<Answer>((resolve, reject) => {
    const headers = {
      host: 'the-client-says.example',
      ...(body && { 'content-length': body.length }),
    }
    const asked = request({ host: '127.0.0.1', port, method, path, headers, agent: agent ?? false })
    asked.on('error', reject)
    asked.on('response', (response) => {
      buffer(response).then(
        (bytes) =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: bytes }),
        reject,
      )
    })
    asked.end(body)
  })
}

describe('the proxy of requests', { concurrency: 4 }, () => {
  const open = async (t: TestContext, fault?: Fault) => {
    const server = await startServer(t)
    const proxy = await startFaultProxy(server.port, {
      rule: firstOf(() => true, fault ? [fault] : []),
    })
    t.after(() => proxy.stop())
    return { ...server, proxy }
  }

  test('passes requests on as they are, and counts them and their connections', async (t) => {
    const { proxy, got } = await open(t)
    const agent = new Agent({ keepAlive: true, maxSockets: 2 })
    await Promise.all([
      ...Array.from({ length: 5 }, () => ask(proxy.port, 'PUT', '/b/key', BYTES, agent)),
      ...Array.from({ length: 5 }, () => ask(proxy.port, 'GET', '/b/key', undefined, agent)),
      ask(proxy.port, 'GET', '/b?list-type=2', undefined, agent),
    ])
    assert.deepEqual(proxy.counts(), { PutObject: 5, GetObject: 5, ListObjectsV2: 1 })
    assert.equal(proxy.sockets().peak, 2)
    for (const { headers } of got) assert.equal(headers.host, 'the-client-says.example')
    assert.ok(got.every(({ body }) => body?.length === 0 || body?.equals(BYTES)))
    agent.destroy()
  })

  test('answers itself, in the words of S3', async (t) => {
    const { proxy, got } = await open(t, slowDown(3))
    const { status, headers, body } = await ask(proxy.port, 'PUT', '/b/key', BYTES)
    assert.deepEqual([status, headers['retry-after']], [503, '3'])
    assert.match(body.toString(), /<Code>SlowDown<\/Code>/)
    assert.deepEqual(got, [])
  })

  test('answers for a server that did what it was asked', async (t) => {
    const { proxy, got } = await open(t, { kind: 'answer-after', status: 500, code: 'X' })
    assert.equal((await ask(proxy.port, 'PUT', '/b/key', BYTES)).status, 500)
    assert.ok(got[0]?.body?.equals(BYTES))
  })

  for (const kind of ['reset', 'cut'] as const) {
    for (const atByte of [0, 1, 100_000, BYTES.length - 1]) {
      test(`lets an answer be ${kind} at byte ${atByte}`, async (t) => {
        const { proxy } = await open(t, { kind, direction: 'response', atByte })
        await assert.rejects(ask(proxy.port, 'GET', '/b/key'), { code: 'ECONNRESET' })
        assert.ok((await ask(proxy.port, 'GET', '/b/key')).body.equals(BYTES), 'only once')
      })

      test(`lets a request be ${kind} at byte ${atByte}`, async (t) => {
        const { proxy, got } = await open(t, { kind, direction: 'request', atByte })
        await assert.rejects(ask(proxy.port, 'PUT', '/b/key', BYTES))
        assert.equal((await ask(proxy.port, 'PUT', '/b/key', BYTES)).status, 200)
        assert.equal(got.filter(({ body }) => body?.equals(BYTES)).length, 1)
      })
    }
  }

  test('changes one byte of a body, and leaves its length', async (t) => {
    const { proxy, got } = await open(t, { kind: 'flip', direction: 'response', atByte: 200_000 })
    const { body } = await ask(proxy.port, 'GET', '/b/key')
    assert.equal(body.length, BYTES.length)
    const other = [...body].flatMap((byte, at) => (byte === BYTES[at] ? [] : [at]))
    assert.deepEqual(other, [200_000])
    proxy.setRule(() => ({ kind: 'flip', direction: 'request', atByte: 5 }))
    await ask(proxy.port, 'PUT', '/b/key', BYTES)
    assert.notEqual(got.at(-1)?.body?.[5], BYTES[5])
  })
})

describe('the proxy of bytes', { concurrency: 4 }, () => {
  test('delays each way, and does not limit the bandwidth', async (t) => {
    const { port } = await startServer(t)
    const proxy = await startTcpProxy(port, () => ({ requestMs: 60, responseMs: 60 }))
    t.after(() => proxy.stop())
    const startedMs = performance.now()
    const { body } = await ask(proxy.port, 'GET', '/b/key')
    const tookMs = performance.now() - startedMs
    assert.ok(body.equals(BYTES))
    assert.ok(tookMs >= 115, `${tookMs} ms`)
    // stop and wait, with 64 KiB at once, would take five times that
    assert.ok(tookMs < 500, `${tookMs} ms`)
  })

  test('breaks connections as told, each as its own plan says', async (t) => {
    const { port } = await startServer(t)
    const proxy = await startTcpProxy(port, (connection) => {
      if (connection === 1) return { fault: { kind: 'reset', direction: 'response', atByte: 1000 } }
      if (connection === 2) return { fault: { kind: 'cut', direction: 'request', atByte: 10 } }
      return connection === 3 ? { acceptMs: 80 } : {}
    })
    t.after(() => proxy.stop())
    await assert.rejects(ask(proxy.port, 'GET', '/b/key'), { code: 'ECONNRESET' })
    await assert.rejects(ask(proxy.port, 'GET', '/b/key'))
    const startedMs = performance.now()
    assert.ok((await ask(proxy.port, 'GET', '/b/key')).body.equals(BYTES))
    assert.ok(performance.now() - startedMs >= 78)
    assert.ok((await ask(proxy.port, 'GET', '/b/key')).body.equals(BYTES))
    assert.equal(proxy.sockets().accepted, 4)
  })
})

describe('a request', () => {
  const kinds: Record<string, readonly [method: string, url: string, host?: string]> = {
    ListBuckets: ['GET', '/'],
    CreateBucket: ['PUT', '/b'],
    ListObjectsV2: ['GET', '/b?list-type=2&prefix=x'],
    DeleteObjects: ['POST', '/b?delete'],
    GetObject: ['GET', '/b/a/key?x-id=GetObject'],
    HeadObject: ['HEAD', '/b/a/key'],
    PutObject: ['PUT', '/a/key', 'b.s3.localhost:7480'],
    UploadPart: ['PUT', '/b/a/key?partNumber=1&uploadId=2'],
    DeleteObject: ['DELETE', '/b/a/key'],
    CompleteMultipartUpload: ['POST', '/b/a/key?uploadId=2'],
  }
  for (const [name, [method, url, host = '127.0.0.1:7480']] of Object.entries(kinds)) {
    test(`is told for a ${name}`, () => {
      const seen = s3Request(method, url, { host }, 's3.localhost')
      assert.equal(seen.operation, name)
      if (name !== 'ListBuckets') assert.equal(seen.bucket, 'b')
      if (/Object$|Part$|MultipartUpload$/.test(name)) assert.equal(seen.key, 'a/key')
    })
  }

  test('meets the same weather under the same seed, whatever comes before it', () => {
    const sky = { percent: 40, kinds: ['reset', 'flip', 'delay'], most: 1000 } as const
    const keys = Array.from({ length: 50 }, (_, n) => `/b/key-${n}.blk`)
    const met = (seed: number, order: readonly string[]) => {
      const rule = weather(seed, sky)
      const faults = order.map((url) => {
        const seen = s3Request('PUT', url, { host: 'h' }, 's3.localhost')
        return [url, rule(seen, 0)] as const
      })
      return Object.fromEntries(faults)
    }
    assert.deepEqual(met(1, keys), met(1, keys.toReversed()))
    assert.notDeepEqual(met(1, keys), met(2, keys))
    const struck = Object.values(met(1, keys)).filter(Boolean).length
    assert.ok(struck > 5 && struck < 40, `${struck} of 50`)
    assert.ok(operation('PutObject')(s3Request('PUT', '/b/k', { host: 'h' }, 'x')))
  })
})

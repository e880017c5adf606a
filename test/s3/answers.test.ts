/** Answers that say less, or more, than they should: what a server did not say is not believed. */
import assert from 'node:assert/strict'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import { text } from 'node:stream/consumers'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import type {
  ObjectStore,
  RemovedMany,
  WriteCallOptions,
} from '../../src/backupstore/object-store.ts'
import { DroverError } from '../../src/lib/errors.ts'
import { openBucket } from '../../src/storage/s3/client.ts'
import { retryUntilDeadline } from '../../src/storage/s3/retry.ts'
import type { Overrides } from '../helpers/s3/target.ts'
import { openTarget, settingsFor } from '../helpers/s3/target.ts'

const KEY = 'backupstore/some/object.cfg'
const KEYS = { accessKeyId: 'AK', secretAccessKey: 'SK' }
const FACTS = { etag: '"abc"', 'last-modified': 'Sat, 31 Jan 2026 03:00:00 GMT' }

interface Answer {
  readonly status: number
  readonly headers?: Record<string, string>
  /** A list is sent chunked, so without a length. */
  readonly body?: string | readonly string[]
}

interface Played {
  readonly store: ObjectStore
  /** Method and path of each request. */
  readonly seen: readonly string[]
}

/** A server that answers as it is told, or not at all, and a store on it. */
async function play(
  t: TestContext,
  respond: (request: IncomingMessage, body: string) => Answer | undefined,
  overrides: Overrides = { callTimeoutMs: 3000 },
): Promise<Played> {
  const seen: string[] = []
  const serve = async (request: IncomingMessage, response: ServerResponse) => {
    const sent = await text(request)
    seen.push(`${request.method} ${request.url}`)
    const answer = respond(request, sent)
    if (!answer) return
    const { status, headers = {}, body = '' } = answer
    if (typeof body === 'string') {
      const length = status === 204 ? {} : { 'content-length': String(body.length) }
      response.writeHead(status, { ...headers, ...length })
      response.end(request.method === 'HEAD' ? '' : body)
    } else {
      response.writeHead(status, headers)
      for (const part of body) response.write(part)
      response.end()
    }
  }
  const server = createServer((request, response) => {
    serve(request, response).catch(() => response.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : 0
  const store = openTarget(
    's3://bucket/',
    { url: `http://127.0.0.1:${port}`, keys: KEYS },
    overrides,
  )
  t.after(async () => {
    await store.close()
    server.closeAllConnections()
    server.close()
  })
  return { store, seen }
}

const refusal = (status: number, code: string): Answer => ({
  status,
  body: `<Error><Code>${code}</Code><Message>no</Message></Error>`,
})
const deleted = (...keys: string[]) =>
  keys.map((key) => `<Deleted><Key>${key}</Key></Deleted>`).join('')
const result = (body: string): Answer => ({
  status: 200,
  body: `<DeleteResult>${body}</DeleteResult>`,
})
const keysIn = (body: string): string[] =>
  [...body.matchAll(/<Key>([^<]*)<\/Key>/g)].map(([, key]) => key ?? '')
const removeAll = async (
  store: ObjectStore,
  keys: readonly string[],
  options?: WriteCallOptions,
): Promise<RemovedMany> => {
  const answer = await store.removeAll?.(keys, options)
  assert.ok(answer)
  return answer
}
const many = (count: number): string[] =>
  Array.from({ length: count }, (_, n) => `backupstore/x/${n}`)

describe('a removal', () => {
  test('counts only what the server says is gone', async (t) => {
    const { store } = await play(t, (_request, body) => {
      assert.match(body, /<Quiet>false<\/Quiet>/)
      const error = (key: string, code: string) =>
        `<Error><Key>${key}</Key><Code>${code}</Code></Error>`
      return result(deleted('a/1') + error('a/2', 'NoSuchKey') + error('a/3', 'AccessDenied'))
    })
    const answer = await removeAll(store, ['a/1', 'a/2', 'a/3', 'a/4'])
    assert.deepEqual(answer.removed, ['a/1', 'a/2'])
    assert.equal(answer.failure?.code, 'TARGET_FORBIDDEN')
    assert.match(answer.failure.message, /removing 2 objects/)
  })

  test('does not take silence for success', async (t) => {
    const { store } = await play(t, () => result(deleted('a/1')))
    const answer = await removeAll(store, ['a/1', 'a/2'])
    assert.deepEqual(answer.removed, ['a/1'])
    assert.equal(answer.failure?.code, 'TARGET_UNREACHABLE')
  })

  test('names few keys a request, and keeps count when a later one fails', async (t) => {
    let requests = 0
    const sizes: number[] = []
    const { store } = await play(t, (_request, body) => {
      const keys = keysIn(body)
      sizes.push(keys.length)
      return ++requests === 3 ? refusal(403, 'AccessDenied') : result(deleted(...keys))
    })
    let asked = 0
    const before = () => void (asked += 1)
    const answer = await removeAll(store, many(1000), { before })
    assert.deepEqual(sizes, [250, 250, 250])
    assert.equal(asked, 3)
    assert.equal(answer.removed.length, 500)
    assert.equal(answer.failure?.code, 'TARGET_FORBIDDEN')
    const lost = new DroverError('LOCK_LOST', 'lost')
    const stopped = await removeAll(store, many(10), {
      before() {
        throw lost
      },
    })
    assert.deepEqual(stopped, { removed: [], failure: lost })
  })

  test('one by one stops at the first failure, and tells what was removed', async (t) => {
    const gone: string[] = []
    const { store, seen } = await play(t, ({ method, url = '' }) => {
      if (method === 'POST') return refusal(501, 'NotImplemented')
      if (url.includes('/x/20?')) return refusal(403, 'AccessDenied')
      gone.push(url.replace(/^\/bucket\/|\?.*$/g, ''))
      return { status: 204 }
    })
    const answer = await removeAll(store, many(200))
    assert.equal(answer.failure?.code, 'TARGET_FORBIDDEN')
    assert.deepEqual(answer.removed.toSorted(), gone.toSorted())
    assert.ok(gone.length >= 13 && gone.length <= 40, `${gone.length}`)
    const { length } = seen
    await removeAll(store, [])
    assert.equal(seen.length, length, 'nothing goes on behind')
  })

  test('one by one tells of several failures the one that leaves a removal open', async (t) => {
    const { store } = await play(
      t,
      ({ method, url = '' }) => {
        if (method === 'POST') return refusal(501, 'NotImplemented')
        if (url.includes('/x/1?')) return undefined
        return url.includes('/x/2?') ? refusal(403, 'AccessDenied') : { status: 204 }
      },
      { callTimeoutMs: 1000 },
    )
    const answer = await removeAll(store, many(200))
    assert.equal(answer.failure?.code, 'TARGET_UNREACHABLE')
    assert.ok(answer.removed.includes('backupstore/x/0'))
    assert.ok(answer.removed.length < 40)
  })

  test('is not asked for when it is cancelled before', async (t) => {
    const { store, seen } = await play(t, () => ({ status: 204 }))
    const reason = new DroverError('LOCK_LOST', 'lost')
    const removal = removeAll(store, many(3), { signal: AbortSignal.abort(reason) })
    await assert.rejects(removal, (error) => error === reason)
    assert.equal(seen.length, 0)
  })

  test('is not believed to a page that answers 200', async (t) => {
    const answers: Answer[] = [
      { status: 204 },
      { status: 200, headers: { 'x-amz-request-id': '1' } },
      { status: 200, body: '<html>Welcome</html>' },
      { status: 404 },
      refusal(404, 'NoSuchKey'),
    ]
    const { store } = await play(t, () => answers.shift())
    assert.equal(await store.remove(KEY), true)
    assert.equal(await store.remove(KEY), true)
    await assert.rejects(store.remove(KEY), { code: 'TARGET_UNREACHABLE' })
    await assert.rejects(store.remove(KEY), { code: 'TARGET_UNREACHABLE' })
    assert.equal(await store.remove(KEY), true)
  })
})

describe('an object', () => {
  test('is not absent because a front-end finds no page', async (t) => {
    const { store, seen } = await play(t, () => ({ status: 404 }))
    const says = { code: 'TARGET_UNREACHABLE', message: /is it an S3 server/ }
    await assert.rejects(store.stat(KEY), says)
    await assert.rejects(store.open(KEY), says)
    await assert.rejects(store.readInto(KEY, Buffer.alloc(9)), says)
    assert.equal(seen.length, 3, 'at once')
  })

  test('is absent where a HEAD after an empty range finds none', async (t) => {
    const { store } = await play(t, ({ method }) =>
      method === 'HEAD' ? { status: 404 } : refusal(416, 'InvalidRange'),
    )
    assert.equal(await store.stat(KEY), undefined)
  })

  test('is not read from a page that tells no time and no ETag', async (t) => {
    const { store } = await play(t, () => ({ status: 200, body: '<html>Log in</html>' }))
    const into = Buffer.alloc(100)
    await assert.rejects(store.readInto(KEY, into), { code: 'TARGET_UNREACHABLE' })
    assert.ok(into.every((byte) => byte === 0))
  })

  test('of which no length is told is none of S3, at once', async (t) => {
    const answer: Answer = { status: 200, headers: FACTS, body: ['some ', 'thing'] }
    const { store, seen } = await play(t, () => answer)
    const says = { code: 'TARGET_UNREACHABLE', message: /no length/ }
    await assert.rejects(store.stat(KEY), says)
    await assert.rejects(store.readInto(KEY, Buffer.alloc(100)), says)
    assert.equal(seen.length, 2)
  })

  test('gives no more than its first bytes where ranges are ignored', async (t) => {
    const body = 'x'.repeat(1_000_000)
    const { store, seen } = await play(t, () => ({ status: 200, headers: FACTS, body }))
    for (const firstBytes of [1, 100, 70_000]) {
      const object = await store.open(KEY, { firstBytes })
      assert.ok(object)
      assert.equal(object.info.sizeBytes, body.length)
      let length = 0
      for await (const chunk of object.chunks) length += chunk.length
      assert.equal(length, firstBytes)
    }
    assert.equal(seen.length, 3, 'asked for once each')
    assert.equal((await store.stat(KEY))?.sizeBytes, body.length)
  })
})

test('a listing goes on where a next page is named and nothing else', async (t) => {
  const page = (n: number, more: string): Answer => ({
    status: 200,
    body:
      `<ListBucketResult><Name>bucket</Name>${more}<Contents><Key>backupstore/${n}</Key>` +
      '<Size>1</Size><LastModified>2026-01-31T03:00:00.000Z</LastModified></Contents>' +
      '</ListBucketResult>',
  })
  const { store } = await play(t, ({ url = '' }) =>
    url.includes('continuation-token=next')
      ? page(2, '')
      : page(1, '<NextContinuationToken>next</NextContinuationToken>'),
  )
  const keys: string[] = []
  for await (const infos of store.list('backupstore/')) keys.push(...infos.map(({ key }) => key))
  assert.deepEqual(keys, ['backupstore/1', 'backupstore/2'])
})

describe('time', () => {
  test('that a server asks for is given up to a minute', async () => {
    const strategy = retryUntilDeadline(() => true)
    const first = await strategy.acquireInitialRetryToken('')
    const inMs = (ms: number) => new Date(Date.now() + ms)
    for (const retryAfterHint of [inMs(3e6), inMs(3e12), inMs(1e25), inMs(-1e6), undefined]) {
      const facts = {
        error: Object.assign(new Error('x'), { cause: new Error('y') }),
        errorType: 'THROTTLING' as const,
      }
      const next = await strategy.refreshRetryTokenForRetry(first, {
        ...facts,
        ...(retryAfterHint && { retryAfterHint }),
      })
      const delayMs = next.getRetryDelay()
      assert.ok(delayMs >= 0 && delayMs <= 60_000, `${delayMs}`)
      if (Number.isNaN(retryAfterHint?.getTime())) assert.equal(delayMs, 60_000)
    }
  })

  test('of silence is short whatever the deadline is', async () => {
    const silence = async (callTimeoutMs: number) => {
      const target = { kind: 's3', region: undefined, bucket: 'bucket', path: '' } as never
      const settings = settingsFor({ url: 'http://127.0.0.1:1', keys: KEYS }, { callTimeoutMs })
      const bucket = openBucket(target, settings)
      const handler = bucket.client.config.requestHandler as unknown as {
        configProvider: Promise<{ socketTimeout: number }>
      }
      const { socketTimeout } = await handler.configProvider
      bucket.close()
      return socketTimeout
    }
    assert.equal(await silence(3_600_000), 20_000)
    assert.equal(await silence(60_000), 20_000)
    assert.equal(await silence(6000), 2000)
  })
})

test('a call whose time is over tells what held it up, and not another call', async (t) => {
  const { store } = await play(
    t,
    ({ url = '' }) => (url.includes('/busy') ? refusal(503, 'SlowDown') : undefined),
    { callTimeoutMs: 1500 },
  )
  const busy = Array.from({ length: 5 }, () =>
    assert.rejects(store.stat('backupstore/busy'), { code: 'TARGET_THROTTLED' }),
  )
  const silent = assert.rejects(store.stat('backupstore/silent'), { code: 'TARGET_UNREACHABLE' })
  await Promise.all([...busy, silent])
})

test('a clock that stays wrong is told, although the SDK tries to mend it', async (t) => {
  const date = () => new Date(Date.now() + 20 * 60_000).toUTCString()
  const { store, seen } = await play(t, () => ({
    ...refusal(403, 'RequestTimeTooSkewed'),
    headers: { date: date() },
  }))
  await assert.rejects(store.stat(KEY), { code: 'TARGET_CLOCK_SKEW' })
  assert.ok(seen.length <= 3, `${seen.length}`)
})

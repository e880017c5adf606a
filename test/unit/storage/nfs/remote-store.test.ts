/** What the way through a helper adds to the contract: processes that freeze, die and are replaced. */
import assert from 'node:assert/strict'
import { readFile, readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { Body } from '../../../../src/backupstore/object-store.ts'
import { bodyOf } from '../../../../src/backupstore/object-store.ts'
import { DroverError, isDroverError } from '../../../../src/lib/errors.ts'
import { noise } from '../../../helpers/images.ts'
import { filesBelow } from '../../../helpers/stores.ts'
import { waitUntil } from '../../../helpers/wait-until.ts'
import { freeze, helpersOf, openRemote, waitUntilGone } from './processes.ts'

const KEY = 'backupstore/some/object'
const one = (text: string): Body => bodyOf(Buffer.from(text))
const unreachable = (error: unknown) =>
  isDroverError(error, 'TARGET_UNREACHABLE') && error.retryable
const lost = new DroverError('LOCK_LOST', 'lost')
const MiB = 1024 * 1024

describe('bytes on their way through a helper', () => {
  test('come whole in bodies of many windows, in large and in tiny pieces', async (t) => {
    const { store, folder } = await openRemote(t)
    const bytes = noise(1, 5 * MiB + 17)
    for (const piece of [1000, 65_536, 3 * MiB, bytes.length]) {
      const body: Body = {
        sizeBytes: bytes.length,
        *chunks() {
          for (let at = 0; at < bytes.length; at += piece) yield bytes.subarray(at, at + piece)
        },
      }
      assert.ok((await store.put(KEY, body)).written)
      assert.ok((await readFile(join(folder, KEY))).equals(bytes))
    }
  })

  test('come whole from a body that uses one buffer for all its pieces', async (t) => {
    const { store, folder } = await openRemote(t)
    const bytes = noise(2, 3 * MiB)
    const buffer = Buffer.alloc(100_000)
    const body: Body = {
      sizeBytes: bytes.length,
      *chunks() {
        for (let at = 0; at < bytes.length; at += buffer.length) {
          yield buffer.subarray(0, bytes.copy(buffer, 0, at, at + buffer.length))
        }
      },
    }
    await store.put(KEY, body)
    assert.ok((await readFile(join(folder, KEY))).equals(bytes))
  })

  test('fit a buffer larger than a window, and memory that threads share', async (t) => {
    const { store } = await openRemote(t)
    const bytes = noise(3, 4 * MiB)
    await store.put(KEY, bodyOf(bytes))
    const large = Buffer.alloc(4 * MiB + 1)
    assert.equal(await store.readInto(KEY, large), bytes.length)
    assert.ok(large.subarray(0, bytes.length).equals(bytes))
    assert.equal(await store.readInto(KEY, Buffer.alloc(3 * MiB)), bytes.length)
    const shared = Buffer.from(new SharedArrayBuffer(2 * MiB))
    noise(4, 2 * MiB).copy(shared)
    await store.put(KEY, bodyOf(shared))
    const back = Buffer.from(new SharedArrayBuffer(2 * MiB))
    assert.equal(await store.readInto(KEY, back), 2 * MiB)
    assert.ok(back.equals(shared))
  })

  test('are not mixed up when many more calls wait than there are windows', async (t) => {
    const { store } = await openRemote(t, { concurrency: 1 })
    const numbers = Array.from({ length: 40 }, (_, n) => n)
    const bytesOf = (n: number) => noise(n, MiB + n)
    await Promise.all(numbers.map((n) => store.put(`${KEY}-${n}`, bodyOf(bytesOf(n)))))
    await Promise.all(
      numbers.map(async (n) => {
        const into = Buffer.alloc(2 * MiB)
        assert.equal(await store.readInto(`${KEY}-${n}`, into), MiB + n)
        assert.ok(into.subarray(0, MiB + n).equals(bytesOf(n)), `object ${n}`)
      }),
    )
  })

  test('are let go of when a reader stops early', async (t) => {
    const { store, helper, folder } = await openRemote(t)
    await store.put(KEY, bodyOf(noise(5, 2 * MiB)))
    const openFiles = async () => {
      const fds = `/proc/${await helper()}/fd`
      const links = (await readdir(fds)).map((fd) => readlink(join(fds, fd)).catch(() => ''))
      return (await Promise.all(links)).filter((path) => path.startsWith(folder)).length
    }
    const object = await store.open(KEY)
    assert.ok(object)
    assert.equal(await openFiles(), 1)
    for await (const chunk of object.chunks) {
      assert.ok(chunk.length > 0)
      break
    }
    await waitUntil(async () => (await openFiles()) === 0, 'the helper closes the file')
    assert.equal(await store.readInto(KEY, Buffer.alloc(2 * MiB)), 2 * MiB)
  })
})

describe('a helper that dies', () => {
  test('fails what was asked of it, and the next call has another one', async (t) => {
    const { store, helper, folder } = await openRemote(t)
    await store.put(KEY, one('old'))
    const first = await helper()
    const before = () => process.kill(first, 'SIGKILL')
    await assert.rejects(store.put(KEY, one('new'), { before: () => void before() }), unreachable)
    assert.equal((await store.stat(KEY))?.sizeBytes, 3)
    assert.notEqual(await helper(), first)
    assert.equal(await readFile(join(folder, KEY), 'utf8'), 'old')
    assert.ok((await store.put(KEY, one('newer'))).written)
    await store.close()
    assert.deepEqual(await filesBelow(folder), [KEY], 'the first one left nothing in staging')
  })

  test('takes along what was staged in it, and that is not published silently', async (t) => {
    const { store, helper, folder } = await openRemote(t)
    const area = await store.openStaging?.()
    assert.ok(area)
    await area.add(KEY, Buffer.from('staged'))
    const first = await helper()
    process.kill(first, 'SIGKILL')
    await waitUntilGone(first)
    await waitUntil(
      () =>
        store.stat(KEY).then(
          () => true,
          () => false,
        ),
      'another helper',
    )
    await assert.rejects(
      area.publish(() => assert.fail('nothing may appear')),
      unreachable,
    )
    await assert.rejects(area.add(`${KEY}2`, Buffer.from('more')), unreachable)
    await area.discard()
    await area.add(KEY, Buffer.from('again'))
    assert.deepEqual(await area.publish(() => undefined), { created: [KEY], existed: [] })
    await store.close()
    assert.deepEqual(await filesBelow(folder), [KEY])
  })

  test('in the middle of a publication leaves whole objects and an error', async (t) => {
    const { store, helper, folder } = await openRemote(t)
    const area = await store.openStaging?.()
    assert.ok(area)
    for (let n = 0; n < 40; n++) await area.add(`${KEY}-${n}`, noise(n, 50_000))
    const first = await helper()
    let left = 20
    const publish = area.publish(() => {
      if (left-- === 0) process.kill(first, 'SIGKILL')
    })
    await assert.rejects(publish, unreachable)
    await assert.rejects(
      area.publish(() => undefined),
      unreachable,
    )
    await store.stat(KEY)
    await store.close()
    for (const path of await filesBelow(folder)) {
      const n = Number(path.slice(KEY.length + 1))
      assert.ok((await readFile(join(folder, path))).equals(noise(n, 50_000)), path)
    }
  })

  test('ends listings and objects that were being read with an error', async (t) => {
    const { store, helper } = await openRemote(t)
    for (let n = 0; n < 700; n++) await store.put(`backupstore/list/${n % 100}/${n}`, one('x'))
    await store.put(KEY, bodyOf(noise(1, 2 * MiB)))
    const object = await store.open(KEY)
    assert.ok(object)
    const pages = store.list('backupstore/list/')[Symbol.asyncIterator]()
    await pages.next()
    process.kill(await helper(), 'SIGKILL')
    const drain = async () => {
      for await (const chunk of object.chunks) assert.ok(chunk.length > 0)
    }
    await assert.rejects(drain(), unreachable)
    await assert.rejects(async () => {
      for (;;) if ((await pages.next()).done) return
    }, unreachable)
  })

  test('is not asked to go by what a terminal or a service manager sends to all', async (t) => {
    const { store, helper } = await openRemote(t)
    const pid = await helper()
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(pid, signal)
    await store.put(KEY, one('still there'))
    assert.equal(await helper(), pid)
  })
})

describe('a helper that hangs', () => {
  test('is given up after its deadline and replaced', async (t) => {
    const { store, helper } = await openRemote(t, { callTimeoutMs: 1000 })
    await store.put(KEY, one('x'))
    const first = await helper()
    await freeze(first)
    const since = performance.now()
    const calls = [
      store.stat(KEY),
      store.readInto(KEY, Buffer.alloc(MiB)),
      store.put(KEY, one('y')),
      store.remove(KEY),
    ]
    for (const result of await Promise.allSettled(calls)) {
      assert.ok(result.status === 'rejected' && unreachable(result.reason))
      assert.match(result.reason.message, /^server:\/export did not answer within 1s$/)
    }
    const tookMs = performance.now() - since
    assert.ok(tookMs > 900 && tookMs < 5000, `${tookMs} ms`)
    await waitUntilGone(first)
    assert.equal((await store.stat(KEY))?.sizeBytes, 1)
  })

  test('does not keep a call whose signal is aborted', async (t) => {
    const { store, helper } = await openRemote(t)
    await store.put(KEY, one('old'))
    const pid = await helper()
    await freeze(pid)
    const area = await store.openStaging?.()
    assert.ok(area)
    for (const call of [
      (signal: AbortSignal) => store.stat(KEY, { signal }),
      (signal: AbortSignal) => store.put(KEY, bodyOf(noise(1, MiB)), { signal }),
      (signal: AbortSignal) => store.readInto(KEY, Buffer.alloc(MiB), { signal }),
      (signal: AbortSignal) => store.remove(KEY, { signal }),
      (signal: AbortSignal) => store.open(KEY, { signal }),
    ]) {
      const abort = new AbortController()
      const calling = call(abort.signal)
      setImmediate(() => abort.abort(lost))
      await assert.rejects(calling, (error) => error === lost)
    }
    process.kill(pid, 'SIGCONT')
    assert.equal((await store.stat(KEY))?.sizeBytes, 3, 'nothing that was cancelled was done')
    assert.equal(await helper(), pid)
  })

  test('does not keep a store from being closed', async (t) => {
    const { store, helper } = await openRemote(t, { callTimeoutMs: 1000 })
    const pid = await helper()
    await freeze(pid)
    await assert.rejects(store.close(), unreachable)
    await waitUntilGone(pid)
    await assert.rejects(store.stat(KEY), (error) => isDroverError(error, 'INTERNAL'))
  })

  test('is not given up for time in which we were frozen ourselves', async (t) => {
    const { store, helper } = await openRemote(t, { callTimeoutMs: 1000 })
    const pid = await helper()
    const calling = store.stat(KEY)
    const until = performance.now() + 2500
    while (performance.now() < until); // what SIGSTOP does to a process, seen from inside
    assert.equal(await calling, undefined)
    assert.equal(await helper(), pid)
  })
})

describe('permission to change something', () => {
  const GRANT = 300
  /** Freezes the helper when it is allowed to go on, for longer than that is worth. */
  const freezeOnce = (pid: number, again: () => void) => {
    const calls = { asked: 0 }
    const before = () => {
      calls.asked += 1
      if (calls.asked > 1) return again()
      process.kill(pid, 'SIGSTOP')
      setTimeout(() => process.kill(pid, 'SIGCONT'), 2 * GRANT)
    }
    return { calls, before }
  }
  const refuse = () => {
    throw lost
  }

  test('that came too late is asked for again: nothing is written without', async (t) => {
    const { store, helper, folder } = await openRemote(t, { grantMs: GRANT })
    await store.put(`${KEY}-old`, one('old'))
    const pid = await helper()
    for (const expect of [undefined, 'absent'] as const) {
      const { calls, before } = freezeOnce(pid, refuse)
      const options = { before, ...(expect && { expect }) }
      await assert.rejects(store.put(KEY, one('x'), options), (error) => error === lost)
      assert.equal(calls.asked, 2)
    }
    const { calls, before } = freezeOnce(pid, refuse)
    await assert.rejects(store.remove(`${KEY}-old`, { before }), (error) => error === lost)
    assert.equal(calls.asked, 2)
    assert.deepEqual(await filesBelow(folder), [`${KEY}-old`])
  })

  test('that came too late is asked for again: nothing is published without', async (t) => {
    const { store, helper, folder } = await openRemote(t, { grantMs: GRANT })
    const area = await store.openStaging?.()
    assert.ok(area)
    await area.add(KEY, Buffer.from('x'))
    const { calls, before } = freezeOnce(await helper(), refuse)
    await assert.rejects(area.publish(before), (error) => error === lost)
    assert.equal(calls.asked, 2)
    await area.discard()
    assert.deepEqual(await filesBelow(folder), [])
  })

  test('that is given again is used', async (t) => {
    const { store, helper } = await openRemote(t, { grantMs: GRANT })
    const pid = await helper()
    const { calls, before } = freezeOnce(pid, () => undefined)
    assert.ok((await store.put(KEY, one('x'), { before })).written)
    assert.equal(calls.asked, 2)
  })

  test('and a cancellation in the same moment: what is rejected did not happen', async (t) => {
    const { store } = await openRemote(t)
    let happened = 0
    for (let n = 0; n < 60; n++) {
      const abort = new AbortController()
      const key = `${KEY}-${n}`
      const before = () => {
        if (n % 3 === 0) setImmediate(() => abort.abort(lost))
        else if (n % 3 === 1) void Promise.resolve().then(() => abort.abort(lost))
        else void delay(n % 2).then(() => abort.abort(lost))
      }
      const put = await store.put(key, one('x'), { before, signal: abort.signal }).then(
        () => true,
        (error: unknown) => {
          assert.equal(error, lost)
          return false
        },
      )
      const isThere = (await store.stat(key)) !== undefined
      assert.equal(isThere, put, `round ${n}`)
      if (isThere) happened += 1
    }
    t.diagnostic(`${happened} of 60 happened`)
  })
})

describe('a publication', () => {
  test('that is cancelled is over: what is rejected did not happen', async (t) => {
    const { store, folder } = await openRemote(t)
    const area = await store.openStaging?.()
    assert.ok(area)
    for (let n = 0; n < 30; n++) {
      const abort = new AbortController()
      const key = `${KEY}-${n}`
      const before = () => {
        if (n % 2 === 0) setImmediate(() => abort.abort(lost))
        else void delay(n % 3).then(() => abort.abort(lost))
      }
      await area.add(key, Buffer.from('x'))
      const isPublished: boolean = await area.publish(before, { signal: abort.signal }).then(
        () => true,
        (error: unknown) => {
          assert.equal(error, lost)
          return false
        },
      )
      await area.discard()
      assert.equal((await store.stat(key)) !== undefined, isPublished, `round ${n}`)
    }
    await store.close()
    assert.ok((await filesBelow(folder)).every((name) => name.startsWith(KEY)))
  })

  test('that is cancelled before it began publishes nothing', async (t) => {
    const { store, folder } = await openRemote(t)
    const area = await store.openStaging?.()
    assert.ok(area)
    await area.add(KEY, Buffer.from('x'))
    const signal = AbortSignal.abort(lost)
    const publishing = area.publish(() => undefined, { signal })
    await assert.rejects(publishing, (error) => error === lost)
    await area.discard()
    assert.deepEqual(await filesBelow(folder), [])
  })
})

describe('an add that was cancelled', () => {
  test('is taken back when it was done all the same', async (t) => {
    const { store, helper, folder } = await openRemote(t)
    const area = await store.openStaging?.()
    assert.ok(area)
    await area.add(`${KEY}-kept`, noise(1, MiB))
    const pid = await helper()
    await freeze(pid)
    const abort = new AbortController()
    const adding = area.add(KEY, Buffer.from('x'), { signal: abort.signal })
    setImmediate(() => abort.abort(lost))
    await assert.rejects(adding, (error) => error === lost)
    process.kill(pid, 'SIGCONT')
    assert.deepEqual(await area.publish(() => undefined), { created: [`${KEY}-kept`], existed: [] })
    await store.close()
    assert.deepEqual(await filesBelow(folder), [`${KEY}-kept`])
  })
})

describe('a store through a helper', () => {
  test('leaves no process, file or descriptor behind', async (t) => {
    const fds = async () => (await readdir('/proc/self/fd')).length
    const shared = async () =>
      (await readdir('/dev/shm').catch(() => [])).filter((name) =>
        /^drover-[0-9a-f]{16}$/.test(name),
      )
    const before = { helpers: await helpersOf(process.pid), shared: await shared() }
    let first: number | undefined
    for (let n = 0; n < 6; n++) {
      const { store, helper } = await openRemote(t)
      await store.put(KEY, bodyOf(noise(n, 2 * MiB)))
      if (n % 2 === 1) process.kill(await helper(), 'SIGKILL')
      await store.close().catch(() => undefined)
      await waitUntil(async () => (await helpersOf(process.pid)).length === 0, 'no helper')
      if (n === 1) first = await fds()
    }
    assert.deepEqual(await shared(), before.shared)
    await waitUntil(async () => (await fds()) <= (first ?? 0), 'descriptors are closed')
  })

  test('gives its helper nothing of the environment that it need not know', async (t) => {
    process.env['AWS_SECRET_ACCESS_KEY'] = 'not for you'
    t.after(() => delete process.env['AWS_SECRET_ACCESS_KEY'])
    const { helper } = await openRemote(t)
    const environment = await readFile(`/proc/${await helper()}/environ`, 'utf8')
    const names = environment.split('\0').map((entry) => entry.split('=')[0])
    assert.ok(names.includes('PATH'))
    assert.ok(!environment.includes('not for you'))
    assert.deepEqual(
      names.filter((name) => /AWS|DROVER|NODE_OPTIONS|TEST/.test(name ?? '')),
      [],
    )
  })

  test('of a folder that does not exist cannot be opened, and starts nothing that stays', async (t) => {
    const before = await helpersOf(process.pid)
    const place = { kind: 'folder', path: '/nowhere/at/all' } as const
    await assert.rejects(openRemote(t, { place }), (error) =>
      isDroverError(error, 'TARGET_NOT_FOUND'),
    )
    await waitUntil(
      async () => (await helpersOf(process.pid)).length === before.length,
      'the helper ends',
    )
  })
})

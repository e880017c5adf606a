/**
 * The suite that every driver passes: the prose of `src/backupstore/object-store.ts`, point by
 * point. A driver brings only the means to look at its target from outside and to break it.
 */
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import type { Key } from '../../src/backupstore/layout.ts'
import type {
  Body,
  ObjectInfo,
  ObjectStore,
  PutResult,
} from '../../src/backupstore/object-store.ts'
import { bodyOf, readSmall } from '../../src/backupstore/object-store.ts'
import { DroverError, isDroverError } from '../../src/lib/errors.ts'
import { noise } from '../helpers/images.ts'
import { waitUntil } from '../helpers/wait-until.ts'

export interface Opened {
  readonly store: ObjectStore
  /** The same target as another run sees it. */
  readonly another: () => Promise<ObjectStore>
  /** Keys of all that lies in the target, what is not finished included. */
  readonly everything: () => Promise<string[]>
  /** Takes the target away, as this kind of target goes away in life. */
  readonly breakTarget: () => Promise<void>
}

const KEY = 'backupstore/some/where/object.cfg'
const BELOW = 'backupstore/some/'

const one = (text: string): Body => bodyOf(Buffer.from(text))

/** What the port leaves to a driver. */
export interface Traits {
  /** Objects can wait, invisible, to be published together. */
  readonly staging: boolean
  /** A removal tells whether anything was there. */
  readonly tellsRemoved: boolean
  /**
   * Times are finer than seconds and part of a version, and a put tells the time it gave. Otherwise
   * what a put tells may be off by a moment, and equal bytes written in one second have one version.
   */
  readonly exactTimes: boolean
}

/** How far from the time of an object what a put tells of it may be. */
const OFF_MS = 5000

export function testObjectStore(
  name: string,
  open: (t: TestContext) => Promise<Opened>,
  traits: Traits,
): void {
  /** What the removal of an absent object answers. */
  const NOTHING_REMOVED = !traits.tellsRemoved

  /** Fails unless these are the facts that a put told. */
  const assertWritten = (found: ObjectInfo | undefined, put: PutResult): void => {
    assert.ok(found && put.written)
    const offMs = Math.abs(put.info.modifiedAtMs - found.modifiedAtMs)
    assert.ok(offMs <= (traits.exactTimes ? 0 : OFF_MS), `the time is off by ${offMs} ms`)
    assert.deepEqual({ ...found, ...put.info, modifiedAtMs: found.modifiedAtMs }, found)
  }

  describe(`${name}: reading`, () => {
    test('what is absent is undefined, an empty listing, and nothing to remove', async (t) => {
      const { store } = await open(t)
      assert.equal(await store.stat(KEY), undefined)
      assert.equal(await store.open(KEY), undefined)
      assert.equal(await store.readInto(KEY, Buffer.alloc(8)), undefined)
      assert.deepEqual(await listed(store, BELOW), [])
      assert.equal(await store.remove(KEY), NOTHING_REMOVED)
    })

    test('a neighbour in the same place does not make an absent object present', async (t) => {
      const { store } = await open(t)
      await store.put(`${KEY}x`, one('neighbour'))
      assert.equal(await store.stat(KEY), undefined)
      assert.equal(await store.open(KEY), undefined)
      assert.equal(await store.readInto(KEY, Buffer.alloc(8)), undefined)
      assert.equal(await store.remove(KEY), NOTHING_REMOVED)
      assert.equal(await read(store, `${KEY}x`), 'neighbour')
    })

    test('all ways to ask about an object tell the same facts', async (t) => {
      const { store, another } = await open(t)
      const put = await store.put(KEY, one('hello'))
      assert.ok(put.written)
      const elsewhere = await another()
      const info = await store.stat(KEY)
      assert.ok(info)
      assertWritten(info, put)
      assert.deepEqual(await elsewhere.stat(KEY), info)
      assert.deepEqual((await openAndDrain(store, KEY)).info, info)
      assert.deepEqual((await openAndDrain(store, KEY, 2)).info, info)
      assert.deepEqual(await listed(store, BELOW), [info])
      assert.equal(info.key, KEY)
      assert.equal(info.sizeBytes, 5)
    })

    test('an object streams whole and in order, whatever its size', async (t) => {
      const { store } = await open(t)
      for (const size of [0, 1, 255, 65_536, 256 * 1024, 256 * 1024 + 1, 2_097_153]) {
        const bytes = noise(size + 1, size)
        await store.put(KEY, bodyOf(bytes))
        const { info, bytes: found } = await openAndDrain(store, KEY)
        assert.equal(info.sizeBytes, size)
        assert.ok(found.equals(bytes), `${size} bytes`)
      }
    })

    test('firstBytes gives the beginning and no more', async (t) => {
      const { store } = await open(t)
      const bytes = noise(1, 600_000)
      await store.put(KEY, bodyOf(bytes))
      for (const firstBytes of [0, 1, 20, 256 * 1024, 599_999, 600_000, 600_001, 10_000_000]) {
        const { info, bytes: found } = await openAndDrain(store, KEY, firstBytes)
        assert.equal(info.sizeBytes, 600_000, 'the size is that of the whole object')
        assert.ok(found.equals(bytes.subarray(0, firstBytes)), `first ${firstBytes} bytes`)
      }
    })

    test('readInto fills the start of a buffer and leaves the rest alone', async (t) => {
      const { store } = await open(t)
      await store.put(KEY, one('hello'))
      const exact = Buffer.alloc(5)
      assert.equal(await store.readInto(KEY, exact), 5)
      assert.equal(exact.toString(), 'hello')
      const larger = Buffer.alloc(8, '.')
      assert.equal(await store.readInto(KEY, larger), 5)
      assert.equal(larger.toString(), 'hello...')
      const part = Buffer.alloc(9, '.')
      assert.equal(await store.readInto(KEY, part.subarray(2, 7)), 5)
      assert.equal(part.toString(), '..hello..')
    })

    test('readInto tells the length and reads nothing when the buffer is too small', async (t) => {
      const { store } = await open(t)
      await store.put(KEY, one('hello'))
      for (const room of [0, 1, 4]) {
        const small = Buffer.alloc(room, '.')
        assert.equal(await store.readInto(KEY, small), 5)
        assert.equal(small.toString(), '.'.repeat(room))
      }
    })

    test('an empty object is there, with no bytes', async (t) => {
      const { store } = await open(t)
      await store.put(KEY, one(''))
      assert.equal((await store.stat(KEY))?.sizeBytes, 0)
      assert.equal(await store.readInto(KEY, Buffer.alloc(4)), 0)
      assert.equal((await openAndDrain(store, KEY)).bytes.length, 0)
      assert.equal((await listed(store, BELOW)).length, 1)
      assert.equal(await store.remove(KEY), true)
    })

    test('readSmall gives a small object and refuses a larger one', async (t) => {
      const { store } = await open(t)
      await store.put(KEY, one('12345'))
      assert.equal(await readSmall(store, 'backupstore/none', 5), undefined)
      assert.equal(String(await readSmall(store, KEY, 5)), '12345')
      assert.equal(await readSmall(store, KEY, 4), 'too-large')
    })
  })

  describe(`${name}: listing`, () => {
    test('a listing holds all below the prefix, however deep, and nothing beside it', async (t) => {
      const { store } = await open(t)
      const below = ['a', 'z', 'deep/er/than/the/others/b', 'deep/c', 'deeper/d']
      const beside = ['backupstore/somewhat', 'backupstore/som', 'backupstore/some-more/e']
      for (const key of [...below.map((key) => BELOW + key), ...beside]) {
        await store.put(key, one(key))
      }
      const found = await listed(store, BELOW)
      assert.deepEqual(
        found.map(({ key, sizeBytes }) => [key, sizeBytes]),
        below
          .map((key) => BELOW + key)
          .sort()
          .map((key) => [key, key.length]),
      )
      assert.deepEqual(
        (await listed(store, `${BELOW}deep/`)).map(({ key }) => key),
        [`${BELOW}deep/c`, `${BELOW}deep/er/than/the/others/b`],
      )
      assert.deepEqual(await listed(store, `${BELOW}dee/`), [])
    })

    test('keys of any plain characters come back as they were', async (t) => {
      const { store } = await open(t)
      const odd = [
        'a b',
        'ä€😀',
        '%2e%2e',
        'x:y',
        '..x',
        'x..',
        '...',
        '-rf',
        '*?[',
        '\'"',
        '\\',
        '~',
      ]
      for (const key of odd) await store.put(`${BELOW}${key}/${key}`, one(key))
      const found = (await listed(store, BELOW)).map(({ key }) => key)
      assert.deepEqual(found, odd.map((key) => `${BELOW}${key}/${key}`).sort())
      for (const key of odd) assert.equal(await read(store, `${BELOW}${key}/${key}`), key)
    })

    test('thousands of objects are all listed, each once', async (t) => {
      const { store } = await open(t)
      const keys = [
        ...Array.from({ length: 1100 }, (_, n) => `${BELOW}one-folder/${n}`),
        ...Array.from({ length: 1000 }, (_, n) => `${BELOW}many/${n % 40}/${n % 200}/${n}`),
      ]
      await putAll(store, keys)
      const found = (await listed(store, BELOW)).map(({ key }) => key)
      assert.deepEqual(found, keys.sort())
    })

    test('objects that stand all the while are listed while others come and go', async (t) => {
      const { store, another } = await open(t)
      const busy = await another()
      const standing = Array.from({ length: 60 }, (_, n) => `${BELOW}${n % 6}/stands-${n}`)
      await putAll(store, standing)
      const done = new AbortController()
      const traffic = (async () => {
        for (let n = 0; !done.signal.aborted; n++) {
          await busy.put(`${BELOW}${n % 6}/passes-${n % 30}`, one('x'))
          await busy.put(`${BELOW}brief-${n % 10}/only`, one('x'))
          await busy.remove(`${BELOW}brief-${n % 10}/only`)
          await busy.remove(`${BELOW}${(n + 3) % 6}/passes-${(n + 15) % 30}`)
        }
      })()
      try {
        for (let round = 0; round < 30; round++) {
          const found = (await listed(store, BELOW)).map(({ key }) => key)
          assert.deepEqual(
            found.filter((key) => key.includes('stands-')),
            standing.sort(),
          )
        }
      } finally {
        done.abort()
        await traffic
      }
    })

    test('a listing whose target goes away in the middle throws and does not end early', async (t) => {
      const { store, breakTarget } = await open(t)
      const keys = Array.from({ length: 1500 }, (_, n) => `${BELOW}${n % 150}/${n}`)
      await putAll(store, keys)
      let seen = 0
      const work = async () => {
        for await (const page of store.list(BELOW)) {
          if (seen === 0) await breakTarget()
          seen += page.length
        }
      }
      await assert.rejects(work(), targetFailure)
      assert.ok(seen > 0 && seen < keys.length, 'the fault struck in the middle')
    })
  })

  describe(`${name}: writing`, () => {
    test('a body of many pieces is stored whole', async (t) => {
      const { store, everything } = await open(t)
      const bytes = noise(5, 300_001)
      const pieces: Buffer[] = []
      for (let at = 0, n = 0; at < bytes.length; n++) {
        const piece = bytes.subarray(at, at + ((n * 37) % 997))
        pieces.push(piece) // the first is empty
        at += piece.length
      }
      const put = await store.put(KEY, { sizeBytes: bytes.length, chunks: () => pieces })
      assert.ok(put.written)
      assert.equal(put.info.sizeBytes, bytes.length)
      assert.ok((await openAndDrain(store, KEY)).bytes.equals(bytes))
      assert.deepEqual(await everything(), [KEY])
    })

    test('the bytes may be reused when a put has settled', async (t) => {
      const { store } = await open(t)
      const bytes = Buffer.from('first')
      await store.put(KEY, bodyOf(bytes))
      bytes.fill('x')
      assert.equal(await read(store, KEY), 'first')
    })

    test('a put replaces what was there, longer or shorter', async (t) => {
      const { store, everything } = await open(t)
      for (const text of ['middle', 'much longer than before', 's', '', 'end']) {
        const put = await store.put(KEY, one(text), { durable: text.length % 2 === 0 })
        assert.ok(put.written)
        assert.equal(await read(store, KEY), text)
      }
      assert.deepEqual(await everything(), [KEY])
    })

    test('readers see old or new bytes whole while an object is replaced', async (t) => {
      const { store, another } = await open(t)
      const reader = await another()
      await store.put(KEY, sameByte(0))
      const done = new AbortController()
      const seen = new Set<number>()
      const look = (bytes: Uint8Array) => {
        const value = bytes[0] ?? -1
        assert.equal(bytes.length, sameByte(value).sizeBytes, 'a length that was never written')
        assert.ok(
          bytes.every((byte) => byte === value),
          'a mixture of two writes',
        )
        seen.add(value)
      }
      const buffer = Buffer.alloc(200_000)
      const readInto = async () => {
        while (!done.signal.aborted) {
          const length = await reader.readInto(KEY, buffer)
          assert.ok(length !== undefined, 'absent while it was replaced')
          look(buffer.subarray(0, length))
          await turn()
        }
      }
      const stream = async () => {
        while (!done.signal.aborted) {
          look((await openAndDrain(reader, KEY)).bytes)
          await turn()
        }
      }
      const readers = Promise.all([readInto(), stream()])
      try {
        for (let n = 1; n <= 60; n++) {
          await Promise.race([store.put(KEY, sameByte(n)), readers])
          await turn()
        }
      } finally {
        done.abort()
        await readers
      }
      assert.ok(seen.size > 5, `the readers looked in between: ${seen.size}`)
    })

    test('two writers of one key leave the bytes of one of them', async (t) => {
      const { store, another, everything } = await open(t)
      const other = await another()
      for (let n = 0; n < 20; n++) {
        await Promise.all([store.put(KEY, sameByte(2 * n)), other.put(KEY, sameByte(2 * n + 1))])
        const { bytes } = await openAndDrain(store, KEY)
        const value = bytes[0] ?? -1
        assert.ok(value === 2 * n || value === 2 * n + 1)
        assert.equal(bytes.length, sameByte(value).sizeBytes)
        assert.ok(bytes.every((byte) => byte === value))
      }
      assert.deepEqual(await everything(), [KEY])
    })

    test('a body that ends early, or does not end in time, is not stored', async (t) => {
      const { store, everything } = await open(t)
      for (const sizeBytes of [0, 4, 6, 1000]) {
        const cut: Body = { sizeBytes, chunks: () => [Buffer.from('he'), Buffer.from('llo')] }
        await assert.rejects(store.put(KEY, cut), DroverError, `said ${sizeBytes}, was 5`)
      }
      assert.deepEqual(await everything(), [])
      await store.put(KEY, one('old'))
      await assert.rejects(
        store.put(KEY, { sizeBytes: 9, chunks: () => [Buffer.from('new')] }),
        DroverError,
      )
      assert.equal(await read(store, KEY), 'old')
    })

    test('a body that fails in the middle leaves what was there', async (t) => {
      const { store, everything } = await open(t)
      const failing: Body = {
        sizeBytes: 10,
        *chunks() {
          yield Buffer.from('12345')
          throw new DroverError('SOURCE_CHANGED', 'no more')
        },
      }
      await assert.rejects(store.put(KEY, failing), hasCode('SOURCE_CHANGED'))
      assert.deepEqual(await everything(), [])
      await store.put(KEY, one('old'))
      await assert.rejects(store.put(KEY, failing, { durable: true }), hasCode('SOURCE_CHANGED'))
      assert.equal(await read(store, KEY), 'old')
      assert.deepEqual(await everything(), [KEY])
    })

    test('remove takes one object, once, and leaves its neighbours', async (t) => {
      const { store } = await open(t)
      await store.put(KEY, one('a'))
      await store.put(`${KEY}.more`, one('b'))
      assert.equal(await store.remove(KEY), true)
      assert.equal(await store.remove(KEY), NOTHING_REMOVED)
      assert.equal(await store.stat(KEY), undefined)
      assert.equal(await read(store, `${KEY}.more`), 'b')
      const again = await store.put(KEY, one('c'))
      assert.ok(again.written)
      assert.equal(await read(store, KEY), 'c')
    })

    test(`of many who remove one object ${traits.tellsRemoved ? 'exactly one is' : 'all are'} told that it did`, async (t) => {
      const { store, another } = await open(t)
      const other = await another()
      for (let n = 0; n < 10; n++) {
        await store.put(KEY, one('a'))
        const took = await Promise.all([store, other, store, other].map((each) => each.remove(KEY)))
        assert.equal(took.filter(Boolean).length, traits.tellsRemoved ? 1 : took.length)
        assert.equal(await store.stat(KEY), undefined)
      }
    })
  })

  describe(`${name}: expectations`, () => {
    test('a put that expects absence writes once and then changes nothing', async (t) => {
      const { store, everything } = await open(t)
      const first = await store.put(KEY, one('first'), { expect: 'absent' })
      assert.ok(first.written)
      const second = await store.put(KEY, one('second'), { expect: 'absent' })
      assert.deepEqual(second, { written: false })
      assert.equal(await read(store, KEY), 'first')
      assertWritten(await store.stat(KEY), first)
      await store.remove(KEY)
      const third = await store.put(KEY, one('third'), { expect: 'absent', durable: true })
      assert.ok(third.written)
      assert.deepEqual(await everything(), [KEY])
    })

    test('an empty object is something: a put that expects absence leaves it', async (t) => {
      const { store } = await open(t)
      await store.put(KEY, one(''))
      const put = await store.put(KEY, one('new'), { expect: 'absent' })
      assert.deepEqual(put, { written: false })
      assert.equal(await read(store, KEY), '')
    })

    test('of racing puts that expect absence exactly one is written', async (t) => {
      const { store, another, everything } = await open(t)
      const other = await another()
      for (let round = 0; round < 25; round++) {
        const key = `${BELOW}race/${round}`
        const results = await Promise.all(
          ['a', 'bb', 'ccc', 'dddd'].map(async (text, n) => ({
            text,
            result: await (n % 2 ? other : store).put(key, one(text), { expect: 'absent' }),
          })),
        )
        const winners = results.filter(({ result }) => result.written)
        assert.equal(winners.length, 1)
        assert.equal(await read(store, key), winners[0]?.text)
      }
      assert.equal((await everything()).length, 25, 'the losers left nothing')
    })

    test('a put that expects a version writes over that one only', async (t) => {
      const { store, everything } = await open(t)
      await store.put(KEY, one('first'))
      const old = { version: await versionOf(store) }
      const second = await store.put(KEY, one('other'), { expect: old })
      assert.ok(second.written)
      assert.deepEqual(await store.put(KEY, one('third'), { expect: old }), { written: false })
      assert.equal(await read(store, KEY), 'other')
      assertWritten(await store.stat(KEY), second)
      const gone = { version: await versionOf(store) }
      await store.remove(KEY)
      assert.deepEqual(await store.put(KEY, one('fourth'), { expect: gone }), { written: false })
      assert.deepEqual(await everything(), [])
    })
  })

  describe(`${name}: the last check`, () => {
    const lost = new DroverError('LOCK_LOST', 'lost')
    const before = () => {
      throw lost
    }

    for (const expect of [undefined, 'absent'] as const) {
      test(`a put is stopped by it, and nothing stays behind (${expect ?? 'any'})`, async (t) => {
        const { store, everything } = await open(t)
        const options = { before, durable: true, ...(expect && { expect }) }
        await assert.rejects(store.put(KEY, one('new'), options), (error) => error === lost)
        assert.equal(await store.stat(KEY), undefined)
        assert.deepEqual(await everything(), [])
      })
    }

    test('what stood there stays when it stops a put', async (t) => {
      const { store } = await open(t)
      await store.put(KEY, one('old'))
      await assert.rejects(store.put(KEY, one('new'), { before }), (error) => error === lost)
      assert.equal(await read(store, KEY), 'old')
    })

    test('a removal is stopped by it', async (t) => {
      const { store } = await open(t)
      await store.put(KEY, one('old'))
      await assert.rejects(store.remove(KEY, { before }), (error) => error === lost)
      assert.equal(await read(store, KEY), 'old')
      assert.equal(await store.remove(KEY, { before: () => undefined, durable: true }), true)
    })
  })

  describe(`${name}: times and versions`, () => {
    const bytesOf = (n: number) => one(traits.exactTimes ? 'same bytes' : `these are bytes ${n}`)
    const even = traits.exactTimes ? ', even of the same bytes' : ' of other bytes'

    test(`the version is another one after each write${even}`, async (t) => {
      const { store } = await open(t)
      const versions: string[] = []
      for (let n = 0; n < 300; n++) {
        await store.put(KEY, bytesOf(n))
        versions.push(await versionOf(store))
      }
      const repeated = versions.length - new Set(versions).size
      assert.equal(repeated, 0, `${repeated} of ${versions.length} versions came back`)
    })

    test('the version is another one after a later write of the same bytes', async (t) => {
      const { store } = await open(t)
      await store.put(KEY, one('same bytes'))
      const first = await versionOf(store)
      await waitUntil(async () => {
        await store.put(KEY, one('same bytes'))
        return (await versionOf(store)) !== first
      }, 'another version')
    })

    test('the version is another one when an object was removed and made again', async (t) => {
      const { store } = await open(t)
      const versions = new Set<string>()
      for (let n = 0; n < 100; n++) {
        await store.put(KEY, bytesOf(n))
        versions.add(await versionOf(store))
        await store.remove(KEY)
      }
      assert.equal(versions.size, 100)
    })

    test('looking at an object does not change its version', async (t) => {
      const { store, another } = await open(t)
      await store.put(KEY, one('hello'))
      const version = await versionOf(store)
      await read(store, KEY)
      await store.readInto(KEY, Buffer.alloc(10))
      await listed(store, BELOW)
      await store.put(`${KEY}.other`, one('x'))
      assert.equal(await versionOf(await another()), version)
    })

    test('the time of an object is that of its last write, and grows', async (t) => {
      const { store } = await open(t)
      const before = Date.now()
      const put = await store.put(KEY, one('hello'))
      const after = Date.now()
      assert.ok(put.written)
      const first = put.info.modifiedAtMs
      // the server's clock may be off, and tick by the second
      assert.ok(first > before - 5000 && first < after + 5000, `${first} is about now`)
      let last = first
      await waitUntil(async () => {
        const again = await store.put(KEY, one('hello'))
        assert.ok(again.written)
        assert.ok(again.info.modifiedAtMs >= last, 'time ran backwards')
        last = again.info.modifiedAtMs
        return last > first
      }, 'a later write has a later time')
    })
  })

  describe(`${name}: keys`, () => {
    const BAD = [
      '',
      '/',
      '.',
      '..',
      '../outside',
      '/etc/passwd',
      'backupstore/../../outside',
      'backupstore/..',
      'backupstore/./object',
      'backupstore/.',
      'backupstore//object',
    ]
    const NUL = ['backupstore/nul\0byte', 'backupstore/nul\0/object', '\0']

    const refused = async (t: TestContext, keys: readonly string[]) => {
      const { store, everything } = await open(t)
      await store.put('backupstore/object', one('inside'))
      for (const key of keys) {
        const said = JSON.stringify(key)
        await assert.rejects(store.stat(key), unsafePath, `stat ${said}`)
        await assert.rejects(store.open(key), unsafePath, `open ${said}`)
        await assert.rejects(store.readInto(key, Buffer.alloc(9)), unsafePath, `readInto ${said}`)
        await assert.rejects(store.put(key, one('x')), unsafePath, `put ${said}`)
        await assert.rejects(store.put(key, one('x'), { expect: 'absent' }), unsafePath)
        await assert.rejects(store.remove(key), unsafePath, `remove ${said}`)
      }
      assert.deepEqual(await everything(), ['backupstore/object'])
      assert.equal(await read(store, 'backupstore/object'), 'inside')
    }

    test('a key that leads elsewhere is refused by every call', (t) => refused(t, BAD))
    test('a key with a NUL in it is refused by every call', (t) => refused(t, NUL))
    test('a key that ends in a slash names no object and is refused', (t) =>
      refused(t, ['backupstore/object/', 'backupstore/']))

    test('a prefix that leads elsewhere is refused', async (t) => {
      const { store } = await open(t)
      const bad = ['../', 'backupstore/../', 'backupstore//', '/', '//', 'back\0up/', './', '/etc/']
      for (const prefix of bad) {
        await assert.rejects(listed(store, prefix), unsafePath, JSON.stringify(prefix))
      }
    })
  })

  describe(`${name}: cancellation`, () => {
    type Call = (store: ObjectStore, key: Key, signal: AbortSignal) => Promise<unknown>
    const calls: Record<string, Call> = {
      put: (store, key, signal) => store.put(key, one('new'), { signal }),
      'put of nothing': (store, key, signal) => store.put(key, one(''), { signal }),
      stat: (store, key, signal) => store.stat(key, { signal }),
      open: (store, key, signal) => openAndDrain(store, key, undefined, signal),
      readInto: (store, key, signal) => store.readInto(key, Buffer.alloc(9), { signal }),
      remove: (store, key, signal) => store.remove(key, { signal }),
      list: (store, _key, signal) => listed(store, BELOW, signal),
    }
    for (const [call, run] of Object.entries(calls)) {
      test(`a ${call} with an aborted signal ends with the reason and does nothing`, async (t) => {
        const { store, everything } = await open(t)
        const reason = new DroverError('LOCK_LOST', 'the reason')
        const signal = AbortSignal.abort(reason)
        await store.put(KEY, one('old'))
        for (const key of [KEY, 'backupstore/absent']) {
          await assert.rejects(run(store, key, signal), (error) => error === reason, key)
        }
        assert.equal(await read(store, KEY), 'old')
        assert.deepEqual(await everything(), [KEY])
      })
    }

    test('a reason that is no error of ours becomes an interruption', async (t) => {
      const { store } = await open(t)
      const signal = AbortSignal.abort('enough')
      await assert.rejects(store.put(KEY, one('x'), { signal }), hasCode('INTERRUPTED'))
      await assert.rejects(listed(store, BELOW, signal), hasCode('INTERRUPTED'))
    })

    test('a put aborted while its body is read leaves what was there', async (t) => {
      const { store, everything } = await open(t)
      const reason = new DroverError('LOCK_LOST', 'the reason')
      for (const there of [false, true]) {
        const abort = new AbortController()
        const body: Body = {
          sizeBytes: 20,
          *chunks() {
            yield Buffer.from('0123456789')
            abort.abort(reason)
            yield Buffer.from('0123456789')
          },
        }
        const put = store.put(KEY, body, { signal: abort.signal })
        await assert.rejects(put, (error) => error === reason)
        assert.deepEqual(await everything(), there ? [KEY] : [])
        if (!there) await store.put(KEY, one('old'))
      }
      assert.equal(await read(store, KEY), 'old')
    })

    test('a listing aborted in the middle ends with the reason', async (t) => {
      const { store } = await open(t)
      await putAll(
        store,
        Array.from({ length: 1200 }, (_, n) => `${BELOW}${n % 150}/${n}`),
      )
      const reason = new DroverError('LOCK_LOST', 'the reason')
      const abort = new AbortController()
      const work = async () => {
        for await (const page of store.list(BELOW, { signal: abort.signal })) {
          assert.ok(page.length > 0)
          abort.abort(reason)
        }
      }
      await assert.rejects(work(), (error) => error === reason)
    })
  })

  describe(`${name}: faults`, () => {
    const calls: Record<string, (store: ObjectStore, key: Key) => Promise<unknown>> = {
      put: (store, key) => store.put(key, one('x')),
      stat: (store, key) => store.stat(key),
      open: (store, key) => store.open(key),
      readInto: (store, key) => store.readInto(key, Buffer.alloc(9)),
      remove: (store, key) => store.remove(key),
      list: (store) => listed(store, BELOW),
    }
    for (const [call, run] of Object.entries(calls)) {
      test(`a ${call} of a target that went away is an error, never an absence`, async (t) => {
        const { store, breakTarget } = await open(t)
        await store.put(KEY, one('there'))
        await breakTarget()
        const keys = [KEY, 'backupstore/absent']
        await Promise.all(keys.map((key) => assert.rejects(run(store, key), targetFailure)))
      })
    }
  })

  test(`${name} ${traits.staging ? 'offers' : 'has no'} staging`, async (t) => {
    const { store } = await open(t)
    assert.equal(store.openStaging !== undefined, traits.staging)
  })

  if (traits.staging) testStaging(name, open)

  describe(`${name}: closing`, () => {
    test('close leaves the objects and nothing else of the run', async (t) => {
      const { store, another, everything } = await open(t)
      const other = await another()
      await store.put(KEY, one('stays'), { durable: true })
      await store.put(`${KEY}.gone`, one('goes'))
      await store.remove(`${KEY}.gone`)
      const staging = await store.openStaging?.()
      await staging?.add(`${KEY}.staged`, Buffer.from('never published'))
      const theirs = await other.openStaging?.()
      await theirs?.add(`${KEY}.theirs`, Buffer.from('of another run'))
      await store.close()
      assert.equal(await other.stat(`${KEY}.staged`), undefined)
      await theirs?.publish(() => undefined) // the other run's are not ours to remove
      await other.close()
      assert.deepEqual(await everything(), theirs ? [KEY, `${KEY}.theirs`] : [KEY])
    })

    test('a store that was only read, or not used at all, closes and leaves no trace', async (t) => {
      const { store, another, everything } = await open(t)
      const other = await another()
      await other.stat(KEY)
      await listed(other, BELOW)
      await other.close()
      await store.close()
      assert.deepEqual(await everything(), [])
    })
  })
}

function testStaging(name: string, open: (t: TestContext) => Promise<Opened>): void {
  describe(`${name}: staging`, () => {
    const openStaging = async (t: TestContext) => {
      const opened = await open(t)
      const staging = await opened.store.openStaging?.()
      assert.ok(staging)
      return { ...opened, staging }
    }
    const never = () => assert.fail('nothing was to appear')
    const always = () => undefined
    const keys = (count: number) => Array.from({ length: count }, (_, n) => `${BELOW}${n % 4}/${n}`)

    test('what is added is invisible until it is published', async (t) => {
      const opened = await openStaging(t)
      const { store, staging, another, everything } = opened
      const bytes = Buffer.from('first')
      await staging.add(KEY, bytes)
      bytes.fill('x')
      for (const each of [store, await another()]) {
        assert.equal(await each.stat(KEY), undefined)
        assert.deepEqual(await listed(each, BELOW), [])
      }
      assert.deepEqual(await staging.publish(always), { created: [KEY], existed: [] })
      assert.equal(await read(await another(), KEY), 'first')
      assert.deepEqual(await everything(), [KEY])
    })

    test('each publication makes visible what was added since the last', async (t) => {
      const opened = await openStaging(t)
      const { store, staging } = opened
      assert.deepEqual(await staging.publish(never), { created: [], existed: [] })
      for (const [from, to] of [
        [0, 20],
        [20, 21],
        [21, 50],
      ] as const) {
        const batch = keys(50).slice(from, to)
        await Promise.all(batch.map((key) => staging.add(key, Buffer.from(key))))
        let asked = 0
        const { created, existed } = await staging.publish(() => asked++)
        assert.deepEqual([...created].sort(), [...batch].sort())
        assert.deepEqual(existed, [])
        assert.equal(asked, batch.length)
        assert.equal((await listed(store, BELOW)).length, to)
      }
      for (const key of keys(50)) assert.equal(await read(store, key), key)
    })

    test('beforeEach is called before each object appears', async (t) => {
      const opened = await openStaging(t)
      const { staging } = opened
      for (const key of keys(6)) await staging.add(key, Buffer.from('x'))
      const stop = new DroverError('LOCK_LOST', 'stopped')
      let asked = 0
      await assert.rejects(
        staging.publish(() => {
          asked += 1
          if (asked === 1) throw stop
        }),
        (error) => error === stop,
      )
      assert.equal(asked, 1)
      assert.deepEqual(await listed(opened.store, BELOW), [], 'stopped before the first')
    })

    test('beforeEach stops the rest, and what did appear is whole', async (t) => {
      const opened = await openStaging(t)
      const { store, staging, everything } = opened
      for (const key of keys(10)) await staging.add(key, Buffer.from(key))
      const stop = new DroverError('LOCK_LOST', 'stopped')
      let left = 4
      await assert.rejects(
        staging.publish(() => {
          if (left-- === 0) throw stop
        }),
        (error) => error === stop,
      )
      const found = await listed(store, BELOW)
      assert.equal(found.length, 4)
      for (const { key } of found) assert.equal(await read(store, key), key)
      await staging.discard()
      assert.equal((await everything()).length, 4, 'what was not published is dropped')
      assert.deepEqual(await staging.publish(never), { created: [], existed: [] })
    })

    test('an object that is there already is left as it is and reported', async (t) => {
      const opened = await openStaging(t)
      const { store, staging, everything } = opened
      const put = await store.put(KEY, one('theirs'))
      assert.ok(put.written)
      await staging.add(KEY, Buffer.from('ours'))
      await staging.add(`${KEY}2`, Buffer.from('new'))
      assert.deepEqual(await staging.publish(always), { created: [`${KEY}2`], existed: [KEY] })
      assert.deepEqual({ ...(await store.stat(KEY)), ...put.info }, await store.stat(KEY))
      assert.equal(await read(store, KEY), 'theirs')
      assert.deepEqual(await everything(), [KEY, `${KEY}2`])
    })

    test('an object that is there but empty is replaced', async (t) => {
      const opened = await openStaging(t)
      const { store, staging, everything } = opened
      await store.put(KEY, one(''))
      await staging.add(KEY, Buffer.from('ours'))
      assert.deepEqual(await staging.publish(always), { created: [KEY], existed: [] })
      assert.equal(await read(store, KEY), 'ours')
      assert.deepEqual(await everything(), [KEY])
    })

    test('two runs that publish the same objects report each as created once', async (t) => {
      const opened = await openStaging(t)
      const { staging, another, everything } = opened
      const other = await (await another()).openStaging?.()
      assert.ok(other)
      for (const key of keys(30)) {
        await staging.add(key, Buffer.from(key))
        await other.add(key, Buffer.from(key))
      }
      const results = await Promise.all([staging.publish(always), other.publish(always)])
      const created = results.flatMap((result) => result.created)
      const existed = results.flatMap((result) => result.existed)
      assert.deepEqual(created.sort(), keys(30).sort())
      assert.deepEqual(existed.sort(), keys(30).sort())
      assert.deepEqual(await everything(), keys(30).sort())
    })

    test('an aborted add rejects with the reason and adds nothing', async (t) => {
      const opened = await openStaging(t)
      const { staging } = opened
      const reason = new DroverError('LOCK_LOST', 'the reason')
      const signal = AbortSignal.abort(reason)
      const add = staging.add(KEY, Buffer.from('x'), { signal })
      await assert.rejects(add, (error) => error === reason)
      assert.deepEqual(await staging.publish(never), { created: [], existed: [] })
    })

    test('discard drops what was not published and leaves no file', async (t) => {
      const opened = await openStaging(t)
      const { staging, everything } = opened
      await staging.add(`${KEY}1`, Buffer.from('x'))
      await staging.publish(always)
      await staging.add(`${KEY}2`, Buffer.from('x'))
      await staging.discard()
      assert.deepEqual(await everything(), [`${KEY}1`])
      assert.deepEqual(await staging.publish(never), { created: [], existed: [] })
      await staging.add(`${KEY}3`, Buffer.from('x'))
      assert.deepEqual(await staging.publish(always), { created: [`${KEY}3`], existed: [] })
    })

    test('a key that is not plain is neither staged nor published', async (t) => {
      const opened = await openStaging(t)
      const { staging, everything } = opened
      for (const key of ['../outside', 'backupstore/../../outside', '/etc/passwd', 'a//b']) {
        const stage = async () => {
          await staging.add(key, Buffer.from('x'))
          await staging.publish(always)
        }
        await assert.rejects(stage(), unsafePath, key)
        await staging.discard()
      }
      assert.deepEqual(await everything(), [])
    })

    for (const added of ['before', 'after'] as const) {
      test(`what was added ${added} the target went away is not published`, async (t) => {
        const { staging, breakTarget, everything } = await openStaging(t)
        if (added === 'before') await staging.add(KEY, Buffer.from('x'))
        await breakTarget()
        const stage = async () => {
          if (added === 'after') await staging.add(KEY, Buffer.from('x'))
          await staging.publish(always)
        }
        await assert.rejects(stage(), targetFailure)
        assert.deepEqual(await everything(), [], 'nothing was written to what took its place')
      })
    }
  })
}

const hasCode = (code: DroverError['code']) => (error: unknown) => isDroverError(error, code)
const unsafePath = hasCode('UNSAFE_PATH')
const targetFailure = (error: unknown) =>
  error instanceof DroverError && error.code.startsWith('TARGET_')

async function listed(
  store: ObjectStore,
  prefix: Key,
  signal?: AbortSignal,
): Promise<ObjectInfo[]> {
  const all: ObjectInfo[] = []
  for await (const page of store.list(prefix, signal ? { signal } : {})) all.push(...page)
  // by code unit, as sort() of plain strings does
  return all.sort((a, b) => (a.key < b.key ? -1 : 1))
}

async function openAndDrain(
  store: ObjectStore,
  key: Key,
  firstBytes?: number,
  signal?: AbortSignal,
): Promise<{ info: ObjectInfo; bytes: Buffer }> {
  const object = await store.open(key, {
    ...(firstBytes === undefined ? {} : { firstBytes }),
    ...(signal ? { signal } : {}),
  })
  assert.ok(object, `${key} is there`)
  const parts: Uint8Array[] = []
  for await (const chunk of object.chunks) parts.push(chunk)
  return { info: object.info, bytes: Buffer.concat(parts) }
}

const read = async (store: ObjectStore, key: Key): Promise<string> =>
  (await openAndDrain(store, key)).bytes.toString()

async function versionOf(store: ObjectStore): Promise<string> {
  const info = await store.stat(KEY)
  assert.ok(info)
  return info.version
}

async function putAll(store: ObjectStore, keys: readonly Key[]): Promise<void> {
  for (let from = 0; from < keys.length; from += 8) {
    await Promise.all(keys.slice(from, from + 8).map((key) => store.put(key, one('x'))))
  }
}

/** A body of one value, in pieces, whose length tells the value again. */
function sameByte(value: number): Body {
  const bytes = Buffer.alloc(1000 * (value + 1), value)
  return {
    sizeBytes: bytes.length,
    *chunks() {
      for (let at = 0; at < bytes.length; at += 500) yield bytes.subarray(at, at + 500)
    },
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

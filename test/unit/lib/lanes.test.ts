import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { DroverError, isDroverError } from '../../../src/lib/errors.ts'
import { orAborted, runLanes } from '../../../src/lib/lanes.ts'
import { waitUntil } from '../../helpers/wait-until.ts'

const never = new AbortController().signal

/** Doors that the test opens, one for each item. */
function doors<T>() {
  const open = new Map<T, PromiseWithResolvers<void>>()
  return {
    waiting: () => [...open.keys()],
    at(item: T): Promise<void> {
      const door = Promise.withResolvers<void>()
      open.set(item, door)
      return door.promise
    },
    open(item: T) {
      open.get(item)?.resolve()
      open.delete(item)
    },
    fail(item: T, error: unknown) {
      open.get(item)?.reject(error)
      open.delete(item)
    },
  }
}

/** Counts what was taken of it. */
function feed(count: number) {
  const taken: number[] = []
  function* items() {
    for (let n = 0; n < count; n++) {
      taken.push(n)
      yield n
    }
  }
  return { taken, items: items() }
}

const settled = (promise: Promise<unknown>) => {
  const state = { done: false }
  const note = () => {
    state.done = true
  }
  promise.then(note, note)
  return state
}

const turns = async () => {
  for (let n = 0; n < 10; n++) await new Promise((resolve) => setImmediate(resolve))
}

describe('lanes', () => {
  it('work on every item once, each lane on one at a time', async () => {
    const busy = new Set<string>()
    const seen: number[] = []
    const lanes = ['a', 'b', 'c']
    await runLanes(lanes, feed(100).items, never, async (item, lane) => {
      assert.equal(busy.has(lane), false)
      busy.add(lane)
      await new Promise((resolve) => setImmediate(resolve))
      busy.delete(lane)
      seen.push(item)
    })
    assert.deepEqual(
      seen.sort((a, b) => a - b),
      Array.from({ length: 100 }, (_, n) => n),
    )
  })

  it('take an item only when one of them is free', async () => {
    const { taken, items } = feed(5)
    const door = doors<number>()
    const run = runLanes([1, 2], items, never, (item) => door.at(item))
    await waitUntil(() => door.waiting().length === 2, 'both lanes work')
    await turns()
    assert.deepEqual(taken, [0, 1])
    door.open(1)
    await waitUntil(() => taken.length === 3, 'the free lane takes the next')
    await turns()
    assert.deepEqual(taken, [0, 1, 2])
    for (const item of [0, 2, 3, 4]) {
      await waitUntil(() => door.waiting().includes(item), `item ${item}`)
      door.open(item)
    }
    await run
  })

  it('stop taking items at the first failure, and all settle before it is thrown', async () => {
    const { taken, items } = feed(10)
    const door = doors<number>()
    let told: AbortSignal | undefined
    const run = runLanes([1, 2, 3], items, never, (item, _lane, signal) => {
      told = signal
      return door.at(item)
    })
    const state = settled(run)
    await waitUntil(() => door.waiting().length === 3, 'all lanes work')
    door.fail(1, new Error('first'))
    await turns()
    assert.equal(told?.aborted, true, 'the others are told')
    assert.equal(state.done, false, 'the others still run')
    door.fail(0, new Error('second'))
    await turns()
    assert.equal(state.done, false, 'one still runs')
    door.open(2)
    await assert.rejects(run, /first/)
    assert.deepEqual(taken, [0, 1, 2])
  })

  it('all settle before a failure of the feeder is thrown', async () => {
    const door = doors<number>()
    function* items() {
      yield 0
      throw new Error('nothing to feed')
    }
    const run = runLanes([1, 2], items(), never, (item) => door.at(item))
    const state = settled(run)
    await waitUntil(() => door.waiting().length === 1, 'a lane works')
    await turns()
    const early = state.done
    door.open(0)
    await assert.rejects(run, /nothing to feed/)
    assert.equal(early, false, 'settled while a lane was still at work')
  })

  it('stop when the signal is aborted, settle, and throw its reason', async () => {
    const { taken, items } = feed(10)
    const door = doors<number>()
    const abort = new AbortController()
    const run = runLanes([1, 2], items, abort.signal, (item) => door.at(item))
    const state = settled(run)
    await waitUntil(() => door.waiting().length === 2, 'both lanes work')
    abort.abort(new DroverError('LOCK_LOST', 'gone'))
    await turns()
    assert.equal(state.done, false)
    door.open(0)
    door.open(1)
    await assert.rejects(run, (error) => isDroverError(error, 'LOCK_LOST'))
    assert.deepEqual(taken, [0, 1])
  })

  it('take nothing at all under a signal that is aborted already', async () => {
    const { taken, items } = feed(3)
    await assert.rejects(
      runLanes([1], items, AbortSignal.abort(), () => Promise.resolve()),
      (error) => isDroverError(error, 'INTERRUPTED'),
    )
    assert.deepEqual(taken, [])
  })

  it('fail with what was thrown, even when that is undefined', async () => {
    await assert.rejects(
      runLanes([1], feed(3).items, never, () =>
        // oxlint-disable-next-line typescript/prefer-promise-reject-errors -- the point of the test
        Promise.reject(undefined),
      ),
      (error) => error === undefined,
    )
  })
})

describe('waiting for something or an abort', () => {
  it('gives the result, or the failure', async () => {
    assert.equal(await orAborted(Promise.resolve(7), never), 7)
    await assert.rejects(orAborted(Promise.reject(new Error('x')), never), /x/)
  })

  it('ends with the reason of the abort, before or meanwhile', async () => {
    const pending = new Promise<never>(() => undefined)
    const reason = new DroverError('LOCK_LOST', 'gone')
    await assert.rejects(orAborted(pending, AbortSignal.abort(reason)), reason)
    const abort = new AbortController()
    const waiting = orAborted(pending, abort.signal)
    abort.abort(reason)
    await assert.rejects(waiting, reason)
  })
})

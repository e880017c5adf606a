import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mibPerSecond, paceOf } from '../../../src/storage/doctor/speed.ts'

const never = new AbortController().signal
const MIB = 1024 * 1024

test('a pace counts every byte, of transfers that go on at once, too', async () => {
  let atOnce = 0
  let most = 0
  const pace = await paceOf({ lanes: 4, most: 20, budgetMs: 60_000 }, never, async (number) => {
    most = Math.max(most, ++atOnce)
    await new Promise((resolve) => setImmediate(resolve))
    atOnce -= 1
    return number
  })
  assert.equal(most, 4)
  assert.equal(pace.transfers, 20)
  assert.equal(pace.bytes, (19 * 20) / 2)
})

test('a pace ends when its time is over, and each lane has done something by then', async () => {
  const pace = await paceOf({ lanes: 3, most: 1000, budgetMs: 0 }, never, () => Promise.resolve(1))
  assert.equal(pace.transfers, 3)
})

test('a rate is in MiB a second, with a decimal where it says something', () => {
  assert.equal(mibPerSecond({ bytes: 100 * MIB, ms: 2000 }), 50)
  assert.equal(mibPerSecond({ bytes: 1.234 * MIB, ms: 1000 }), 1.2)
  assert.equal(mibPerSecond({ bytes: 0.01234 * MIB, ms: 1000 }), 0.012)
  assert.equal(mibPerSecond({ bytes: 5, ms: 0 }), 0)
})

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { RunId } from '../../../src/backupstore/layout.ts'
import { LOCK_SETTLE_MS, openLock } from '../../../src/backupstore/lock.ts'
import type { Clock } from '../../../src/lib/clock.ts'
import { isDroverError } from '../../../src/lib/errors.ts'
import { openMemoryStore } from '../../../src/storage/memory/memory-store.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'

const HOUR = 3_600_000

/** A held lock, on a machine and a store whose clocks can be put forward. */
async function held() {
  const base = new FakeClock()
  const ahead = { wallMs: 0, serverMs: 0 }
  const clock: Clock = {
    monotonicMs: base.monotonicMs, // stands still while the machine does
    wallMs: () => base.wallMs() + ahead.wallMs,
    sleep: (ms, signal) => base.sleep(ms, signal),
  }
  const store = openMemoryStore({ clock: { wallMs: () => base.wallMs() + ahead.serverMs } })
  const lock = openLock({
    store,
    clock,
    type: 'shared',
    run: '00000000000000aa' as RunId,
    signal: new AbortController().signal,
    timeoutMs: 0,
  })
  await base.advance(LOCK_SETTLE_MS)
  lock.assertHeld()
  return { lock, ahead }
}

const lost = (error: unknown) => isDroverError(error, 'LOCK_LOST')

describe('a machine that stood still while it held a lock', () => {
  it('has lost it when its wall clock is set on waking', async () => {
    const { lock, ahead } = await held()
    ahead.wallMs = HOUR
    assert.throws(() => lock.assertHeld(), lost)
    assert.equal(lock.signal.aborted, true)
    await lock.release()
  })

  it('is told by the server when none of its own clocks shows it', async () => {
    const { lock, ahead } = await held()
    await lock.confirm()
    ahead.serverMs = HOUR
    lock.assertHeld() // it cannot know
    await assert.rejects(lock.confirm(), lost)
    assert.throws(() => lock.assertHeld(), lost)
    await lock.release()
  })
})

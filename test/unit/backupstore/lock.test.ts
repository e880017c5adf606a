import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import type { RunId } from '../../../src/backupstore/layout.ts'
import { LOCKS_PREFIX, lockKey } from '../../../src/backupstore/layout.ts'
import type { Lock } from '../../../src/backupstore/lock.ts'
import type { LockEvent } from '../../../src/backupstore/lock-events.ts'
import type { LockFile, LockType } from '../../../src/backupstore/lock-file.ts'
import { LOCK_SETTLE_MS, openLock } from '../../../src/backupstore/lock.ts'
import {
  LOCK_EXPIRY_MS,
  compareLocks,
  isExpired,
  keepsOut,
  readLocks,
} from '../../../src/backupstore/lock-file.ts'
import { DroverError, isDroverError } from '../../../src/lib/errors.ts'
import type { MemoryStore, StoreCall } from '../../../src/storage/memory/memory-store.ts'
import { openMemoryStore } from '../../../src/storage/memory/memory-store.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'

const runId = (n: number) => n.toString(16).padStart(16, '0') as RunId
const OWN = runId(0x80)
const LOW = runId(1)
const HIGH = runId(0xff)
const TYPES: readonly LockType[] = ['shared', 'deletion']
const otherType = (type: LockType): LockType => (type === 'shared' ? 'deletion' : 'shared')

type Fault = (call: StoreCall, key: string) => Promise<void> | void

/** A store and its clock; the store's faults can be set and taken away. */
function world(serverSkewMs = 0) {
  const clock = new FakeClock()
  const faults: { now: Fault } = { now: () => undefined }
  const store = openMemoryStore({
    clock: { wallMs: () => clock.wallMs() + serverSkewMs },
    faults: (call, key) => faults.now(call, key),
  })
  return { clock, store, faults, serverSkewMs }
}
type World = ReturnType<typeof world>

interface Wanted {
  type?: LockType
  run?: RunId
  timeoutMs?: number
  signal?: AbortSignal
}

function take({ store, clock }: World, wanted: Wanted = {}) {
  const events: LockEvent[] = []
  const lock = openLock({
    store,
    clock,
    type: wanted.type ?? 'shared',
    run: wanted.run ?? OWN,
    signal: wanted.signal ?? new AbortController().signal,
    timeoutMs: wanted.timeoutMs ?? 0,
    onEvent: (event) => events.push(event),
  })
  const outcome: { state: 'pending' | 'acquired' | 'refused'; error?: unknown } = {
    state: 'pending',
  }
  lock.acquired.then(
    () => (outcome.state = 'acquired'),
    (error: unknown) => Object.assign(outcome, { state: 'refused', error }),
  )
  return { lock, events, outcome }
}

/** Somebody's lock file, so old by the server's clock. */
function plant(
  { store, clock, serverSkewMs }: World,
  run: RunId,
  content: { Type: unknown; Acquired: unknown } | string,
  ageMs: number,
): void {
  const bytes = Buffer.from(
    typeof content === 'string' ? content : JSON.stringify({ Name: `lock-${run}`, ...content }),
  )
  const modifiedAtMs = clock.wallMs() + serverSkewMs - ageMs
  store.objects.set(lockKey(run), { bytes, modifiedAtMs, generation: -1 })
}

const fileOf = (store: MemoryStore, run = OWN): unknown => {
  const bytes = store.objects.get(lockKey(run))?.bytes
  return bytes && JSON.parse(bytes.toString())
}

const isHeld = (lock: Lock): boolean => {
  try {
    lock.assertHeld()
    return true
  } catch (error) {
    assert.ok(isDroverError(error, 'LOCK_LOST'))
    return false
  }
}

describe('a lock on a store nobody else uses', () => {
  for (const [type, number] of [
    ['shared', 1],
    ['deletion', 2],
  ] as const) {
    it(`is held after 2 s of settling, and its file is Longhorn's (${type})`, async () => {
      const here = world()
      const { lock, events, outcome } = take(here, { type })
      await here.clock.advance(LOCK_SETTLE_MS - 1)
      const name = `lock-${OWN}`
      assert.deepEqual(fileOf(here.store), { Name: name, Type: number, Acquired: false })
      assert.equal(outcome.state, 'pending')
      assert.throws(() => lock.assertHeld(), /not held/)
      await here.clock.advance(1)
      assert.equal(outcome.state, 'acquired')
      assert.deepEqual(fileOf(here.store), { Name: name, Type: number, Acquired: true })
      assert.equal(isHeld(lock), true)
      assert.equal(lock.signal.aborted, false)
      assert.deepEqual(events, [{ kind: 'acquired' }])
      await lock.release()
      assert.equal(here.store.objects.size, 0)
      assert.equal(isHeld(lock), false)
    })
  }

  it('is written again every 60 s for as long as it is held', async () => {
    const here = world()
    const { lock } = take(here)
    await here.clock.advance(LOCK_SETTLE_MS)
    const writes = new Set<number>()
    for (let second = 0; second < 600; second++) {
      await here.clock.advance(1000)
      const file = here.store.objects.get(lockKey(OWN))
      assert.ok(file)
      writes.add(file.modifiedAtMs)
      assert.ok(here.clock.wallMs() - file.modifiedAtMs <= 60_000)
      assert.deepEqual(fileOf(here.store), { Name: `lock-${OWN}`, Type: 1, Acquired: true })
    }
    assert.equal(writes.size, 11)
    assert.equal(isHeld(lock), true)
    await lock.release()
    await here.clock.advance(300_000)
    assert.equal(here.store.objects.size, 0, 'nothing is written after the release')
  })
})

describe('whether a lock of somebody else keeps us out', () => {
  const READ = LOCK_SETTLE_MS
  // ages are those at the moment when we read all locks
  const cases: Array<[what: string, run: RunId, acquired: boolean, ageMs: number, out: boolean]> = [
    ['held for long', LOW, true, 100_000, true],
    ['held, and written after ours', HIGH, true, 1, true],
    ['tried for since before us', HIGH, false, READ + 1, true],
    ['tried for since the same moment, with a lower name', LOW, false, READ, true],
    ['tried for since the same moment, with a higher name', HIGH, false, READ, false],
    ['tried for since after us', LOW, false, READ - 1, false],
    ['held, last written exactly 150 s ago', LOW, true, LOCK_EXPIRY_MS, true],
    ['held, but expired', LOW, true, LOCK_EXPIRY_MS + 1, false],
    ['tried for, but expired', LOW, false, LOCK_EXPIRY_MS + 1, false],
  ]
  for (const type of TYPES) {
    for (const [what, run, acquired, ageMs, out] of cases) {
      it(`${out ? 'it does' : 'it does not'}: another type, ${what} (we: ${type})`, async () => {
        const here = world()
        plant(here, run, { Type: type === 'shared' ? 2 : 1, Acquired: acquired }, ageMs - READ)
        const { outcome, lock } = take(here, { type })
        await here.clock.advance(READ)
        assert.equal(outcome.state, out ? 'refused' : 'acquired')
        if (out) assert.ok(isDroverError(outcome.error, 'STORE_BUSY'))
        assert.equal(here.store.objects.has(lockKey(OWN)), !out, 'our file')
        assert.ok(here.store.objects.has(lockKey(run)), 'the file of the other')
        await lock.release()
      })

      it(`it does not: our own type, ${what} (${type})`, async () => {
        const here = world()
        plant(here, run, { Type: type === 'shared' ? 1 : 2, Acquired: acquired }, ageMs - READ)
        const { outcome, lock } = take(here, { type })
        await here.clock.advance(READ)
        assert.equal(outcome.state, 'acquired')
        await lock.release()
      })
    }

    for (const [what, content] of [
      ['garbage', 'garbage'],
      ['nothing', ''],
      ['null', 'null'],
      ['a number', '7'],
      ['a type that we do not know', { Type: 3, Acquired: true }],
      ['a type that is a text', { Type: '1', Acquired: true }],
      ['5000 bytes', `{"Type":1,"Acquired":true,"x":"${'x'.repeat(5000)}"}`],
      ['half a file', '{"Name":"lock-00","Type":1,"Acq'],
    ] as const) {
      it(`it does until it is 150 s old, when it holds ${what} (we: ${type})`, async () => {
        for (const [ageMs, out] of [
          [0, true],
          [LOCK_EXPIRY_MS, true],
          [LOCK_EXPIRY_MS + 1, false],
        ] as const) {
          const here = world()
          plant(here, HIGH, content, ageMs - READ)
          const { outcome, lock } = take(here, { type })
          await here.clock.advance(READ)
          assert.equal(outcome.state, out ? 'refused' : 'acquired', `${ageMs} ms`)
          await lock.release()
        }
      })
    }
  }

  it('is judged by the clock of the server, whatever ours says', async () => {
    for (const skewMs of [-3_600_000, 3_600_000]) {
      for (const [ageMs, out] of [
        [LOCK_EXPIRY_MS, true],
        [LOCK_EXPIRY_MS + 1, false],
      ] as const) {
        const here = world(skewMs)
        plant(here, LOW, { Type: 2, Acquired: true }, ageMs - READ)
        const { outcome, lock, events } = take(here)
        await here.clock.advance(READ)
        assert.equal(outcome.state, out ? 'refused' : 'acquired')
        assert.equal(lock.serverNowMs(), here.clock.wallMs() + skewMs)
        assert.deepEqual(events[0], { kind: 'clock-skew', skewMs })
        await lock.release()
      }
    }
  })

  it('does not depend on how long our own write took', async () => {
    const here = world()
    const holder = take(here, { type: 'shared', run: LOW })
    await here.clock.advance(LOCK_SETTLE_MS + 77_000)
    // our first file takes 100 s to get there; the holder lives, and its file is 59 s old then
    let slow = true
    here.faults.now = async (call, key) => {
      if (call !== 'put' || key !== lockKey(OWN) || !slow) return
      slow = false
      await here.clock.sleep(100_000)
    }
    const late = take(here, { type: 'deletion' })
    for (let second = 0; second < 180; second++) {
      await here.clock.advance(1000)
      assert.ok(!(isHeld(holder.lock) && isHeld(late.lock)), `both hold it after ${second} s`)
    }
    assert.equal(isHeld(holder.lock), true)
    assert.ok(isDroverError(late.outcome.error, 'STORE_BUSY'))
    await holder.lock.release()
    await late.lock.release()
  })

  it('has its age told truly, however long our own write took', async () => {
    const here = world()
    let slow = true
    here.faults.now = async (call) => {
      if (call !== 'put' || !slow) return
      slow = false
      await here.clock.sleep(100_000)
    }
    const { lock, events } = take(here)
    await here.clock.advance(100_500)
    assert.equal(lock.serverNowMs(), here.clock.wallMs())
    assert.deepEqual(events, [], 'a slow store is no skew of clocks')
    await lock.release()
  })

  it('does not depend on how long it took to read all locks', async () => {
    const here = world()
    const holder = take(here, { type: 'shared', run: LOW })
    await here.clock.advance(LOCK_SETTLE_MS + 57_000)
    // the holder was listed as 59 s old, and refreshes while its file is being read
    const late = take(here, { type: 'deletion' })
    let slow = true
    here.faults.now = async (call, key) => {
      if (call !== 'open' || key !== lockKey(LOW) || !slow) return
      slow = false
      await here.clock.sleep(95_000)
    }
    for (let second = 0; second < 120; second++) {
      await here.clock.advance(1000)
      assert.ok(!(isHeld(holder.lock) && isHeld(late.lock)), `both hold it after ${second} s`)
    }
    assert.equal(slow, false)
    await holder.lock.release()
    await late.lock.release()
  })
})

describe('what goes wrong while locks are read', () => {
  it('a lock that vanishes between the listing and the reading is absent', async () => {
    const here = world()
    plant(here, LOW, { Type: 2, Acquired: true }, 5000)
    here.faults.now = (call, key) => {
      if (call === 'open' && key === lockKey(LOW)) here.store.objects.delete(key)
    }
    const { outcome, lock } = take(here)
    await here.clock.advance(LOCK_SETTLE_MS)
    assert.equal(outcome.state, 'acquired')
    await lock.release()
  })

  it('a listing that fails is an error, never "no locks"', async () => {
    const here = world()
    const failure = new DroverError('TARGET_UNREACHABLE', 'no listing today')
    here.faults.now = (call) => {
      if (call === 'list') throw failure
    }
    const { outcome, lock } = take(here, { timeoutMs: 60_000 })
    await here.clock.advance(60_000)
    assert.deepEqual(outcome, { state: 'refused', error: failure })
    assert.equal(isHeld(lock), false)
    await lock.release()
    assert.equal(here.store.objects.size, 0)
  })

  it('a lock file that cannot be read now is an error, too', async () => {
    const here = world()
    const failure = new DroverError('TARGET_UNREACHABLE', 'no reading today')
    plant(here, LOW, { Type: 1, Acquired: true }, 0)
    here.faults.now = (call) => {
      if (call === 'open') throw failure
    }
    const { outcome, lock } = take(here)
    await here.clock.advance(LOCK_SETTLE_MS)
    assert.deepEqual(outcome, { state: 'refused', error: failure })
    await lock.release()
  })

  it('a lock file that we may not read counts as one nobody can read', async () => {
    for (const code of ['TARGET_FORBIDDEN', 'UNSAFE_PATH'] as const) {
      const here = world()
      plant(here, LOW, { Type: 1, Acquired: true }, 0)
      here.faults.now = (call, key) => {
        if (call === 'open' && key === lockKey(LOW)) throw new DroverError(code, 'no')
      }
      const { outcome, lock } = take(here)
      await here.clock.advance(LOCK_SETTLE_MS)
      assert.ok(isDroverError(outcome.error, 'STORE_BUSY'))
      assert.equal(outcome.error.details['type'], 'unknown')
      assert.match(outcome.error.message, /unreadable lock file/)
      await lock.release()
    }
  })

  it('a listing without our own file is an error: it shows not what is there', async () => {
    const here = world()
    here.faults.now = (call) => {
      if (call === 'list') here.store.objects.delete(lockKey(OWN))
    }
    const { outcome, lock } = take(here, { timeoutMs: 60_000 })
    await here.clock.advance(60_000)
    assert.ok(isDroverError(outcome.error, 'TARGET_UNREACHABLE'))
    assert.match(outcome.error.message, /does not list the lock file/)
    assert.equal(isHeld(lock), false)
    await lock.release()
  })

  it('what is no lock file is not looked at', async () => {
    const here = world()
    for (const name of ['lock-1.lck.tmp', 'lock-1', 'other.lck', 'sub/lock-1.txt']) {
      const entry = { bytes: Buffer.from('x'), modifiedAtMs: here.clock.wallMs(), generation: 0 }
      here.store.objects.set(`${LOCKS_PREFIX}${name}`, entry)
    }
    plant(here, LOW, { Type: 1, Acquired: 'yes' }, 7)
    assert.deepEqual(await readLocks(here.store), [
      {
        name: `lock-${LOW}`,
        type: 'shared',
        acquired: false,
        modifiedAtMs: here.clock.wallMs() - 7,
      },
    ])
  })
})

describe('a store that is busy', () => {
  it('is told with the holder, its type and its age, after one try with a timeout of 0', async () => {
    for (const [type, number, says] of [
      ['shared', 2, /a deletion/],
      ['deletion', 1, /a backup or restore/],
    ] as const) {
      const here = world()
      plant(here, LOW, { Type: number, Acquired: true }, 30_000)
      const { outcome, lock, events } = take(here, { type, timeoutMs: 0 })
      await here.clock.advance(LOCK_SETTLE_MS)
      const { error } = outcome
      assert.ok(isDroverError(error, 'STORE_BUSY'))
      assert.equal(error.retryable, true)
      assert.deepEqual(error.details, {
        holder: `lock-${LOW}`,
        type: otherType(type),
        ageMs: 32_000,
        wanted: type,
      })
      assert.match(error.message, says)
      assert.match(error.message, new RegExp(`lock-${LOW}.* 32 s old`))
      assert.deepEqual(
        events.map(({ kind }) => kind),
        ['busy'],
      )
      assert.equal(here.store.objects.has(lockKey(OWN)), false)
      await lock.release()
    }
  })

  it('is waited for until the time is up, telling once for whom', async () => {
    const here = world()
    const holder = take(here, { type: 'deletion', run: LOW })
    await here.clock.advance(LOCK_SETTLE_MS)
    const { outcome, events, lock } = take(here, { timeoutMs: 300_000 })
    await here.clock.advance(295_000)
    assert.equal(outcome.state, 'pending')
    assert.equal(here.store.objects.has(lockKey(OWN)), false, 'nobody is kept out by us meanwhile')
    await here.clock.advance(5000)
    assert.ok(isDroverError(outcome.error, 'STORE_BUSY'))
    assert.match(outcome.error.message, /Waited 300 s/)
    assert.equal(events.length, 1)
    const [event] = events
    assert.ok(event?.kind === 'busy')
    assert.equal(event.holder.name, `lock-${LOW}`)
    assert.equal(event.holder.type, 'deletion')
    assert.equal(isHeld(holder.lock), true)
    await lock.release()
    await holder.lock.release()
  })

  it('is taken when its holder goes, and not before', async () => {
    const here = world()
    const holder = take(here, { type: 'deletion', run: HIGH })
    await here.clock.advance(LOCK_SETTLE_MS)
    const { outcome, lock, events } = take(here, { timeoutMs: 300_000 })
    await here.clock.advance(100_000)
    assert.equal(outcome.state, 'pending')
    await holder.lock.release()
    await here.clock.advance(LOCK_SETTLE_MS + 2000)
    assert.equal(outcome.state, 'acquired')
    assert.deepEqual(
      events.map(({ kind }) => kind),
      ['busy', 'acquired'],
    )
    await lock.release()
  })

  it('is taken when its holder died and its lock expired', async () => {
    const here = world()
    plant(here, LOW, { Type: 2, Acquired: true }, 0)
    const { outcome, lock } = take(here, { timeoutMs: 300_000 })
    await here.clock.advance(LOCK_EXPIRY_MS)
    assert.equal(outcome.state, 'pending')
    await here.clock.advance(LOCK_SETTLE_MS + 2001)
    assert.equal(outcome.state, 'acquired')
    await lock.release()
  })

  it('is settled for anew after waiting: the next one may have come before us', async () => {
    const here = world()
    plant(here, LOW, { Type: 2, Acquired: true }, 0)
    const { outcome, lock } = take(here, { timeoutMs: 300_000 })
    await here.clock.advance(9_000)
    here.store.objects.delete(lockKey(LOW))
    await here.clock.advance(1_000)
    // we write at 10 s; this one appears while we settle, held already
    plant(here, HIGH, { Type: 2, Acquired: true }, 0)
    await here.clock.advance(3_000)
    assert.equal(outcome.state, 'pending')
    here.store.objects.delete(lockKey(HIGH))
    await here.clock.advance(6_000)
    assert.equal(outcome.state, 'acquired')
    await lock.release()
  })

  it('is not waited for when its listing fails meanwhile', async () => {
    const here = world()
    plant(here, LOW, { Type: 2, Acquired: true }, 0)
    const { outcome, lock } = take(here, { timeoutMs: 300_000 })
    await here.clock.advance(5_000)
    here.faults.now = (call) => {
      if (call === 'list') throw new DroverError('TARGET_UNREACHABLE', 'gone')
    }
    await here.clock.advance(5_000)
    assert.ok(isDroverError(outcome.error, 'TARGET_UNREACHABLE'))
    await lock.release()
  })
})

describe('a lock is lost', () => {
  async function held(here: World) {
    const taken = take(here)
    await here.clock.advance(LOCK_SETTLE_MS)
    assert.equal(taken.outcome.state, 'acquired')
    return taken
  }
  function assertLost(lock: Lock): void {
    assert.throws(
      () => lock.assertHeld(),
      (error) => isDroverError(error, 'LOCK_LOST') && error.retryable,
    )
    assert.equal(lock.signal.aborted, true)
    assert.ok(isDroverError(lock.signal.reason, 'LOCK_LOST'))
  }

  it('when somebody removed it, and it is not written again', async () => {
    const here = world()
    const { lock } = await held(here)
    here.store.objects.delete(lockKey(OWN))
    await here.clock.advance(60_000)
    assertLost(lock)
    await here.clock.advance(300_000)
    assert.equal(here.store.objects.size, 0)
    await lock.release()
  })

  for (const call of ['put', 'stat'] as const) {
    it(`when it could not be refreshed for too long, before others take over (${call} fails)`, async () => {
      const here = world()
      const { lock } = await held(here)
      here.faults.now = (now) => {
        if (now === call) throw new DroverError('TARGET_UNREACHABLE', 'gone')
      }
      await here.clock.advance(135_000)
      assert.equal(isHeld(lock), true)
      assert.equal(lock.signal.aborted, false)
      await here.clock.advance(LOCK_EXPIRY_MS - 135_000)
      assert.equal(lock.signal.aborted, true, 'told without being asked')
      assertLost(lock)
      here.faults.now = () => undefined
      await lock.release()
      assert.equal(here.store.objects.size, 0)
    })
  }

  it('not when refreshing works again in time', async () => {
    const here = world()
    const { lock } = await held(here)
    here.faults.now = (call) => {
      if (call === 'put') throw new DroverError('TARGET_UNREACHABLE', 'gone')
    }
    await here.clock.advance(120_000)
    here.faults.now = () => undefined
    await here.clock.advance(6_000)
    const file = here.store.objects.get(lockKey(OWN))
    assert.ok(file && here.clock.wallMs() - file.modifiedAtMs <= 6_000)
    await here.clock.advance(600_000)
    assert.equal(isHeld(lock), true)
    await lock.release()
  })

  it('when a refresh never comes back', async () => {
    const here = world()
    const { lock } = await held(here)
    here.faults.now = async (call) => {
      if (call === 'put') await here.clock.sleep(1_000_000)
    }
    await here.clock.advance(135_000)
    assert.equal(isHeld(lock), true)
    await here.clock.advance(10_000)
    assertLost(lock)
    await here.clock.advance(1_000_000)
    assertLost(lock)
    await lock.release()
    assert.equal(here.store.objects.size, 0)
  })

  it('when the process was frozen: it is seen by the next who asks, before any timer', async () => {
    const here = world()
    const { lock } = await held(here)
    here.clock.jump(LOCK_EXPIRY_MS)
    assertLost(lock)
    await here.clock.advance(300_000)
    assertLost(lock)
    await lock.release()
    assert.equal(here.store.objects.size, 0)
  })

  it('when the process was frozen and nobody asks before it refreshes', async () => {
    const here = world()
    const { lock } = await held(here)
    here.clock.jump(LOCK_EXPIRY_MS + 1)
    await here.clock.advance(1)
    assertLost(lock)
    await lock.release()
  })

  it('not when the process was frozen for a while only', async () => {
    const here = world()
    const { lock } = await held(here)
    here.clock.jump(100_000)
    assert.equal(isHeld(lock), true)
    await here.clock.advance(300_000)
    assert.equal(isHeld(lock), true)
    await lock.release()
  })

  it('once for all: what comes back later does not hold it again', async () => {
    const here = world()
    const { lock } = await held(here)
    here.clock.jump(LOCK_EXPIRY_MS)
    assertLost(lock)
    here.clock.jump(-LOCK_EXPIRY_MS)
    assertLost(lock)
    await lock.release()
  })
})

describe('a lock that is taken too slowly', () => {
  it('is not held when the process was frozen while it settled; it is tried again', async () => {
    const here = world()
    const { lock, outcome } = take(here, { timeoutMs: 600_000 })
    await here.clock.advance(1000)
    here.clock.jump(LOCK_EXPIRY_MS + 1000)
    await here.clock.advance(100)
    assert.equal(isHeld(lock), false)
    await here.clock.advance(10_000)
    assert.equal(outcome.state, 'acquired')
    assert.equal(isHeld(lock), true)
    await lock.release()
  })

  it('is not even told as held when the process was frozen while it settled', async () => {
    const here = world()
    const { lock } = take(here, { timeoutMs: 600_000 })
    await here.clock.advance(1000)
    here.clock.jump(LOCK_EXPIRY_MS + 1000)
    // somebody took our file for expired, rightly
    const winner = { Name: `lock-${LOW}`, Type: 2, Acquired: false }
    plant(here, LOW, winner, 1)
    let told = false
    here.faults.now = (call, key) => {
      const now = here.clock.wallMs()
      const fresh = now - (here.store.objects.get(lockKey(OWN))?.modifiedAtMs ?? now) < 1000
      if (call === 'put' && key === lockKey(OWN) && !fresh) told = true
    }
    await here.clock.advance(0)
    assert.equal(told, false)
    await lock.release()
  })

  it('is not held when all steps together took so long that the first file had expired', async () => {
    const here = world()
    let puts = 0
    here.faults.now = async (call) => {
      if (puts >= 2) return
      if (call === 'list') await here.clock.sleep(100_000)
      if (call === 'put' && ++puts === 2) await here.clock.sleep(51_000)
    }
    const { lock, outcome } = take(here, { timeoutMs: 600_000 })
    await here.clock.advance(LOCK_SETTLE_MS + 151_000)
    assert.ok(puts >= 2)
    assert.equal(isHeld(lock), false)
    await here.clock.advance(10_000)
    assert.equal(outcome.state, 'acquired')
    await lock.release()
  })

  it('is not held when saying so took so long that the first file had expired', async () => {
    const here = world()
    let puts = 0
    here.faults.now = async (call) => {
      if (call === 'put' && ++puts === 2) await here.clock.sleep(LOCK_EXPIRY_MS)
    }
    const { lock, outcome } = take(here, { timeoutMs: 600_000 })
    await here.clock.advance(LOCK_SETTLE_MS + LOCK_EXPIRY_MS + 100)
    assert.ok(puts >= 2)
    assert.equal(outcome.state, 'pending')
    assert.equal(isHeld(lock), false)
    await here.clock.advance(10_000)
    assert.equal(outcome.state, 'acquired')
    await lock.release()
  })
})

describe('a store that is too slow for its lock', () => {
  it('is given up when the time to wait for the lock is over', async () => {
    const here = world()
    here.faults.now = async (call) => {
      if (call === 'list') await here.clock.sleep(LOCK_EXPIRY_MS)
    }
    const { lock, outcome } = take(here, { timeoutMs: 300_000 })
    await here.clock.advance(2_000_000)
    const { state } = outcome
    here.faults.now = () => undefined
    await Promise.all([lock.release(), here.clock.advance(LOCK_EXPIRY_MS)])
    assert.equal(state, 'refused')
    assert.equal(here.store.objects.size, 0)
  })
})

describe('giving a lock up', () => {
  it('while it settles removes its file and ends the trying', async () => {
    const here = world()
    const { lock, outcome } = take(here)
    await here.clock.advance(1000)
    assert.equal(here.store.objects.size, 1)
    await lock.release()
    assert.equal(here.store.objects.size, 0)
    assert.ok(isDroverError(outcome.error, 'INTERRUPTED'))
    await here.clock.advance(300_000)
    assert.equal(here.store.objects.size, 0)
  })

  it('while it waits for others ends the waiting at once', async () => {
    const here = world()
    plant(here, LOW, { Type: 2, Acquired: true }, 0)
    const { lock, outcome } = take(here, { timeoutMs: 300_000 })
    await here.clock.advance(10_000)
    await lock.release()
    assert.ok(isDroverError(outcome.error, 'INTERRUPTED'))
    assert.deepEqual([...here.store.objects.keys()], [lockKey(LOW)])
  })

  it('never throws; what could not be removed is told', async () => {
    const here = world()
    const { lock, events } = take(here)
    await here.clock.advance(LOCK_SETTLE_MS)
    const failure = new DroverError('TARGET_UNREACHABLE', 'gone')
    here.faults.now = (call) => {
      if (call === 'remove') throw failure
    }
    await lock.release()
    assert.deepEqual(events.at(-1), { kind: 'not-removed', error: failure })
    assert.equal(isHeld(lock), false)
  })

  it('may be done twice, and after somebody removed it', async () => {
    const here = world()
    const { lock } = take(here)
    await here.clock.advance(LOCK_SETTLE_MS)
    here.store.objects.clear()
    await lock.release()
    await lock.release()
    assert.equal(here.store.objects.size, 0)
  })

  it('leaves the file of another run alone', async () => {
    const here = world()
    plant(here, LOW, { Type: 1, Acquired: true }, 0)
    const { lock } = take(here)
    await here.clock.advance(LOCK_SETTLE_MS)
    await lock.release()
    assert.deepEqual([...here.store.objects.keys()], [lockKey(LOW)])
  })

  it('when the run is aborted while it settles: no lock, and no file after the release', async () => {
    const here = world()
    const abort = new AbortController()
    const { lock, outcome } = take(here, { signal: abort.signal, timeoutMs: 60_000 })
    await here.clock.advance(500)
    const reason = new DroverError('INTERRUPTED', 'enough')
    abort.abort(reason)
    await here.clock.advance(0)
    assert.deepEqual(outcome, { state: 'refused', error: reason })
    assert.equal(isHeld(lock), false)
    await lock.release()
    assert.equal(here.store.objects.size, 0)
  })

  it('before it began writes nothing at all', async () => {
    const here = world()
    const { lock, outcome } = take(here, { signal: AbortSignal.abort() })
    await here.clock.advance(60_000)
    assert.ok(isDroverError(outcome.error, 'INTERRUPTED'))
    assert.equal(here.store.objects.size, 0)
    await lock.release()
  })
})

describe('what a lock tells', () => {
  it('of others: those that live, of any kind, and never its own', async () => {
    const here = world()
    const { lock } = take(here)
    await here.clock.advance(LOCK_SETTLE_MS)
    plant(here, LOW, { Type: 1, Acquired: true }, LOCK_EXPIRY_MS)
    plant(here, HIGH, { Type: 2, Acquired: false }, 0)
    plant(here, runId(2), { Type: 1, Acquired: true }, LOCK_EXPIRY_MS + 1)
    plant(here, runId(3), 'garbage', 10)
    const others = await lock.others()
    assert.deepEqual(
      others.map(({ name, type, acquired }) => [name, type, acquired]),
      [
        [`lock-${LOW}`, 'shared', true],
        [`lock-${runId(3)}`, 'unknown', true],
        [`lock-${HIGH}`, 'deletion', false],
      ],
    )
    here.faults.now = (call) => {
      if (call === 'list') throw new DroverError('TARGET_UNREACHABLE', 'gone')
    }
    await assert.rejects(lock.others(), (error) => isDroverError(error, 'TARGET_UNREACHABLE'))
    here.faults.now = () => undefined
    await lock.release()
  })

  it('of clocks: a skew of more than a few seconds', async () => {
    for (const [skewMs, told] of [
      [0, false],
      [3000, false],
      [-3000, false],
      [10_000, true],
      [-10_000, true],
    ] as const) {
      const here = world(skewMs)
      const { lock, events } = take(here)
      await here.clock.advance(LOCK_SETTLE_MS)
      assert.equal(
        events.some((event) => event.kind === 'clock-skew' && event.skewMs === skewMs),
        told,
      )
      await lock.release()
    }
  })
})

const lockFiles = fc.record({
  name: fc.integer({ min: 0, max: 30 }).map((n) => `lock-${runId(n)}`),
  type: fc.constantFrom(...TYPES),
  acquired: fc.boolean(),
  modifiedAtMs: fc.oneof(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 200_000 })),
})
const lockSets = fc.uniqueArray(lockFiles, { selector: ({ name }) => name, maxLength: 8 })
const sign = (n: number) => Math.sign(n) + 0

describe('the order of locks', () => {
  it('is total: two locks of different names always come in the same order', () => {
    fc.assert(
      fc.property(lockFiles, lockFiles, (a, b) => {
        assert.equal(sign(compareLocks(a, b)), sign(-compareLocks(b, a)))
        if (a.name !== b.name) assert.notEqual(compareLocks(a, b), 0)
        assert.equal(compareLocks(a, a), 0)
      }),
      { numRuns: 2000 },
    )
  })

  it('is the same from whichever end it is looked at: sorting does not depend on the listing', () => {
    fc.assert(
      fc.property(lockSets, fc.infiniteStream(fc.nat()), (locks, randoms) => {
        const shuffled = locks
          .map((lock) => ({ lock, at: randoms.next().value ?? 0 }))
          .sort((a, b) => a.at - b.at)
          .map(({ lock }) => lock)
        const sorted = [...locks].sort(compareLocks)
        assert.deepEqual([...shuffled].sort(compareLocks), sorted)
        for (let a = 0; a < sorted.length; a++) {
          for (let b = a + 1; b < sorted.length; b++) {
            assert.ok(compareLocks(sorted[a] as LockFile, sorted[b] as LockFile) < 0)
          }
        }
      }),
      { numRuns: 1000 },
    )
  })

  it('puts what is held before what is tried for, then the older, then the lower name', () => {
    const base = { type: 'shared' as const, acquired: false, modifiedAtMs: 5, name: 'lock-b' }
    for (const before of [
      { ...base, acquired: true, modifiedAtMs: 9, name: 'lock-z' },
      { ...base, modifiedAtMs: 4, name: 'lock-z' },
      { ...base, name: 'lock-a' },
    ]) {
      assert.ok(compareLocks(before, base) < 0)
      assert.ok(compareLocks(base, before) > 0)
    }
  })

  it('lets only one type go on, and always one: whatever files there are', () => {
    fc.assert(
      fc.property(lockSets, fc.integer({ min: 0, max: 400_000 }), (locks, now) => {
        const alive = locks.filter((lock) => !isExpired(lock, now))
        const free = alive.filter((own) => keepsOut(own, own.type, locks, now) === undefined)
        assert.ok(new Set(free.map(({ type }) => type)).size <= 1)
        if (alive.length > 0) assert.ok(free.length > 0)
        for (const own of alive) {
          const holder = keepsOut(own, own.type, locks, now)
          if (!holder) continue
          assert.equal(holder.type, otherType(own.type))
          assert.ok(!isExpired(holder, now) && compareLocks(holder, own) < 0)
        }
      }),
      { numRuns: 3000 },
    )
  })
})

describe('many runs on one store', () => {
  const delays = fc.constantFrom(0, 0, 0, 10, 300, 1500, 2500)
  const actors = fc.array(
    fc.record({
      type: fc.constantFrom(...TYPES),
      startMs: fc.oneof(fc.integer({ min: 0, max: 4000 }), fc.integer({ min: 0, max: 200_000 })),
      holdMs: fc.oneof(fc.integer({ min: 0, max: 10_000 }), fc.integer({ min: 0, max: 300_000 })),
      timeoutMs: fc.constantFrom(0, 30_000, 400_000),
      /** How long the calls of this run take, one after the other. */
      delays: fc.array(delays, { minLength: 1, maxLength: 12 }),
      /** And one of them hangs. */
      hang: fc.option(
        fc.record({ call: fc.nat({ max: 8 }), ms: fc.integer({ min: 50_000, max: 170_000 }) }),
      ),
    }),
    { minLength: 2, maxLength: 5 },
  )

  it('never hold the lock for two kinds of work at once, however slow the store is', async () => {
    let acquired = 0
    let busy = 0
    await fc.assert(
      fc.asyncProperty(actors, fc.boolean(), async (actors, wholeSeconds) => {
        const clock = new FakeClock()
        const server = {
          wallMs: () => (wholeSeconds ? Math.floor(clock.wallMs() / 1000) * 1000 : clock.wallMs()),
        }
        const shared = openMemoryStore({ clock: server })
        const abort = new AbortController()
        const taken: Array<{ type: LockType; lock: Lock }> = []
        const check = () => {
          const types = new Set(taken.filter(({ lock }) => isHeld(lock)).map(({ type }) => type))
          assert.ok(types.size <= 1, 'a deletion and a backup both hold the lock')
        }
        const runs = actors.map(async (actor, n) => {
          let calls = 0
          const slow = () => {
            const call = calls++
            const hangs = call === actor.hang?.call ? actor.hang.ms : 0
            return clock.sleep(hangs + (actor.delays[call % actor.delays.length] ?? 0))
          }
          // each run has its own way to the one store
          const store: MemoryStore = {
            ...shared,
            stat: async (...args) => {
              await slow()
              return shared.stat(...args)
            },
            open: async (...args) => {
              await slow()
              return shared.open(...args)
            },
            put: async (...args) => {
              await slow()
              const put = await shared.put(...args)
              await slow()
              return put
            },
            remove: async (...args) => {
              await slow()
              return shared.remove(...args)
            },
            async *list(...args) {
              await slow()
              yield* shared.list(...args)
              await slow()
            },
          }
          await clock.sleep(actor.startMs)
          const lock = openLock({
            store,
            clock,
            type: actor.type,
            run: runId((n * 7) % 5),
            signal: abort.signal,
            timeoutMs: actor.timeoutMs,
            onEvent: ({ kind }) => {
              if (kind === 'acquired') acquired += 1
              if (kind === 'busy') busy += 1
            },
          })
          taken.push({ type: actor.type, lock })
          try {
            await lock.acquired
            check()
            await clock.sleep(actor.holdMs, abort.signal)
          } catch (error) {
            assert.ok(
              isDroverError(error, 'STORE_BUSY', 'INTERRUPTED', 'TARGET_UNREACHABLE'),
              String(error),
            )
          }
          await lock.release()
        })
        const all = Promise.all(runs)
        const progress = { done: false }
        all.then(
          () => (progress.done = true),
          () => (progress.done = true),
        )
        for (let second = 0; second < 2000 && !progress.done; second++) {
          if (second === 900) abort.abort()
          await clock.advance(1000)
          check()
        }
        assert.ok(progress.done, 'every run comes to an end')
        await all
        assert.equal(shared.objects.size, 0, 'no lock file is left')
      }),
      { numRuns: 200, endOnFailure: true },
    )
    assert.ok(acquired > 50 && busy > 10, `${acquired} acquired, ${busy} busy`)
  })
})

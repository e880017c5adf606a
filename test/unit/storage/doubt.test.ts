import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { CONFIGS_PREFIX, STAGING_PREFIX, stagingKey } from '../../../src/backupstore/layout.ts'
import type { RunId } from '../../../src/backupstore/layout.ts'
import { LOCKS_PREFIX, lockKey } from '../../../src/backupstore/layout.ts'
import type { LockEvent } from '../../../src/backupstore/lock-events.ts'
import { openLock } from '../../../src/backupstore/lock.ts'
import type { ObjectStore } from '../../../src/backupstore/object-store.ts'
import { bodyOf } from '../../../src/backupstore/object-store.ts'
import type { ErrorCode } from '../../../src/lib/errors.ts'
import { DroverError } from '../../../src/lib/errors.ts'
import { withDoubt } from '../../../src/storage/doubt.ts'
import { openMemoryStore } from '../../../src/storage/memory/memory-store.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'
import { world } from '../prune/world.ts'

const CONFIG = `${CONFIGS_PREFIX}disk/backing-image.cfg`
const BLOCK = 'backupstore/backing-images/blocks/aa/bb/x.blk'
const inDoubt = (store: ObjectStore) => store.inDoubt?.()
const body = bodyOf(Buffer.from('x'))
const RUN = '00000000000000aa' as RunId

function failing(code: ErrorCode) {
  const clock = new FakeClock()
  const fail = () => {
    throw new DroverError(code, 'failed')
  }
  const faults = { now: fail as () => void }
  const memory = openMemoryStore({ clock, faults: () => faults.now() })
  const store = withDoubt(
    {
      ...memory,
      removeAll: async () => ({ removed: [], failure: new DroverError(code, 'failed') }),
    },
    ['TARGET_UNREACHABLE'],
  )
  return { clock, store, faults }
}

describe('doubt', () => {
  const changes: Record<string, (store: ObjectStore) => Promise<unknown> | undefined> = {
    'a removal': (store) => store.remove(BLOCK),
    'the removal of many': (store) => store.removeAll?.([BLOCK]),
    'the config of a backup': (store) => store.put(CONFIG, body),
  }
  for (const [what, change] of Object.entries(changes)) {
    it(`remains of ${what} that was not answered`, async () => {
      const { store } = failing('TARGET_UNREACHABLE')
      assert.equal(inDoubt(store), false)
      await change(store)?.catch(() => undefined)
      assert.equal(inDoubt(store), true)
    })

    it(`does not remain of ${what} that was refused`, async () => {
      const { store } = failing('TARGET_FORBIDDEN')
      await change(store)?.catch(() => undefined)
      assert.equal(inDoubt(store), false)
    })
  }

  it('does not remain of a block, of a look, and of what was cancelled before it was sent', async () => {
    const { store } = failing('TARGET_UNREACHABLE')
    const signal = AbortSignal.abort(new DroverError('TARGET_UNREACHABLE', 'given up'))
    await assert.rejects(store.put(BLOCK, body))
    await assert.rejects(store.stat(CONFIG))
    await assert.rejects(store.remove(BLOCK, { signal }))
    await assert.rejects(store.put(CONFIG, body, { signal }))
    assert.equal(inDoubt(store), false)
  })

  it('keeps a lock from being given up, which is told', async () => {
    for (const doubt of [false, true]) {
      const clock = new FakeClock()
      const memory = openMemoryStore({ clock })
      const store = { ...memory, inDoubt: () => doubt }
      const events: LockEvent[] = []
      const lock = openLock({
        store,
        type: 'deletion',
        run: RUN,
        clock,
        signal: new AbortController().signal,
        timeoutMs: 0,
        onEvent: (event) => events.push(event),
      })
      await clock.advance(3000)
      await lock.acquired
      await lock.release()
      assert.equal(memory.objects.has(lockKey(RUN)), doubt)
      assert.equal(
        events.some(({ kind }) => kind === 'left'),
        doubt,
      )
    }
  })

  it('does not keep a lock file whose writing was never answered from being removed', async () => {
    const clock = new FakeClock()
    const memory = openMemoryStore({ clock })
    const store: ObjectStore = {
      ...memory,
      async put(key, bytes) {
        await memory.put(key, bytes)
        throw new DroverError('TARGET_UNREACHABLE', 'no answer')
      },
    }
    const lock = openLock({
      store,
      type: 'shared',
      run: RUN,
      clock,
      signal: new AbortController().signal,
      timeoutMs: 0,
    })
    await assert.rejects(lock.acquired, { code: 'TARGET_UNREACHABLE' })
    await lock.release()
    assert.deepEqual(
      [...memory.objects.keys()].filter((key) => key.startsWith(LOCKS_PREFIX)),
      [],
    )
  })
})

describe('what dead runs staged', () => {
  it('goes with a deletion, before its blocks do', async () => {
    const here = world()
    here.addBackup('disk', 1, 2)
    const dead = stagingKey('00000000000000bb' as RunId, '7')
    here.put(dead, Buffer.from('a config that may still get its name'))
    const order: string[] = []
    here.faults.now = (call, key) => {
      if (call === 'remove' && !key.startsWith(LOCKS_PREFIX)) order.push(key)
    }
    await here.delete('disk')
    assert.equal(order[0]?.endsWith('.cfg'), true)
    assert.equal(order[1], dead)
    assert.ok(order.slice(2).every((key) => key.endsWith('.blk')))
    assert.deepEqual(
      [...here.store.objects.keys()].filter((key) => key.startsWith(STAGING_PREFIX)),
      [],
    )
  })

  it('stays with a deletion as long as its run may live', async () => {
    const here = world()
    here.addBackup('disk', 1)
    const live = stagingKey('00000000000000bb' as RunId, '7')
    here.put(live, Buffer.from('a block'), 1000)
    await here.delete('disk')
    assert.equal(here.store.objects.has(live), true)
  })
})

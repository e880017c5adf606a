import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { commit } from '../../../src/backup/commit.ts'
import type { BackupRequest, BackupTools } from '../../../src/backup/request.ts'
import type { Checksum } from '../../../src/backupstore/block.ts'
import { BlockMap } from '../../../src/backupstore/block-map.ts'
import { configKey } from '../../../src/backupstore/layout.ts'
import type { RunId } from '../../../src/backupstore/layout.ts'
import { LOCK_SETTLE_MS, openLock } from '../../../src/backupstore/lock.ts'
import type { BackupName } from '../../../src/backupstore/names.ts'
import { silentObserver } from '../../../src/backupstore/observer.ts'
import { parseTargetUrl } from '../../../src/backupstore/target-url.ts'
import { isDroverError } from '../../../src/lib/errors.ts'
import { openMemoryStore } from '../../../src/storage/memory/memory-store.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'

const NAME = 'disk' as BackupName
const KEY = configKey(NAME)

/** A backup whose blocks are stored, about to be committed under a held lock. */
async function ready(onConfigPut: (clock: FakeClock) => void) {
  const clock = new FakeClock()
  const store = openMemoryStore({
    clock,
    faults: (call, key) => {
      if (call === 'put' && key === KEY) onConfigPut(clock)
    },
  })
  const { signal } = new AbortController()
  const run = '00000000000000aa' as RunId
  const lock = openLock({ store, type: 'shared', run, clock, signal, timeoutMs: 0 })
  await clock.advance(LOCK_SETTLE_MS)
  const tools: BackupTools = {
    store,
    mostPutOff: 0,
    clock,
    run,
    signal,
    observer: silentObserver,
    get compute(): never {
      throw new Error('a commit computes nothing')
    },
  }
  const request: BackupRequest = {
    file: '/images/disk.raw',
    target: parseTargetUrl('vfs:///store'),
    name: NAME,
    checksum: undefined,
    compression: 'lz4',
    labels: undefined,
    replace: false,
    lockTimeoutMs: 0,
  }
  const content = {
    sizeBytes: 512,
    checksum: 'ab'.repeat(64) as Checksum,
    blocks: new BlockMap(),
  }
  const go = () =>
    commit({
      request,
      tools,
      lock,
      content,
      compression: 'lz4',
      seen: { kind: 'none' },
      createdAt: '2026-01-01T00:00:00Z',
    })
  return { go, store, lock }
}

describe('a commit', () => {
  it('writes the config while the lock is held', async () => {
    const { go, store, lock } = await ready(() => undefined)
    assert.equal(await go(), 'created')
    assert.ok(store.objects.has(KEY))
    await lock.release()
  })

  it('writes none when the process was frozen in the middle of writing it', async () => {
    const { go, store, lock } = await ready((clock) => clock.jump(152_000))
    await assert.rejects(go(), (error) => isDroverError(error, 'LOCK_LOST'))
    assert.ok(!store.objects.has(KEY))
    await lock.release()
  })
})

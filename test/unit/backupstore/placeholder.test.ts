import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Lock } from '../../../src/backupstore/lock.ts'
import type { LockFile } from '../../../src/backupstore/lock-file.ts'
import type { ObjectInfo } from '../../../src/backupstore/object-store.ts'
import { isDeadPlaceholder } from '../../../src/backupstore/placeholder.ts'

const NOW = Date.UTC(2026, 0, 1)

const info = (ageMs: number, version = 'v1'): ObjectInfo => ({
  key: 'backupstore/backing-images/backing-images/ubuntu/backing-image.cfg',
  sizeBytes: 365,
  modifiedAtMs: NOW - ageMs,
  version,
})

const other = (type: LockFile['type'], acquired = true): LockFile => ({
  name: 'lock-0000000000000001',
  type,
  acquired,
  modifiedAtMs: NOW - 1000,
})

const lockWith = (others: LockFile[]): Lock => ({
  acquired: Promise.resolve(),
  signal: new AbortController().signal,
  assertHeld: () => undefined,
  confirm: () => Promise.resolve(),
  serverNowMs: () => NOW,
  others: () => Promise.resolve(others),
  release: () => Promise.resolve(),
})

describe('a placeholder is dead', () => {
  const cases: Array<
    [what: string, dead: boolean, ObjectInfo, ObjectInfo | undefined, LockFile[]]
  > = [
    [
      'when it is old, did not change and nobody else works',
      true,
      info(150_001),
      info(150_001),
      [],
    ],
    ['only after 150 s', false, info(150_000), info(150_000), []],
    ['only when its age is past', false, info(-5000), info(-5000), []],
    ['not when it changed since we first looked', false, info(200_000, 'v2'), info(900_000), []],
    ['not when it appeared since we first looked', false, info(200_000), undefined, []],
    ['not beside a live lock of a backup', false, info(200_000), info(200_000), [other('shared')]],
    [
      'not beside a lock that a backup is just taking',
      false,
      info(200_000),
      info(200_000),
      [other('deletion'), other('shared', false)],
    ],
    ['not beside a lock nobody can read', false, info(200_000), info(200_000), [other('unknown')]],
    [
      'beside a deletion, which writes none',
      true,
      info(200_000),
      info(200_000),
      [other('deletion')],
    ],
  ]
  for (const [what, dead, now, before, others] of cases) {
    it(what, async () => {
      assert.equal(await isDeadPlaceholder(now, before, lockWith(others)), dead)
    })
  }

  it('never on the strength of a listing that failed', async () => {
    const lock = { ...lockWith([]), others: () => Promise.reject(new Error('no listing')) }
    await assert.rejects(isDeadPlaceholder(info(200_000), info(200_000), lock), /no listing/)
  })
})

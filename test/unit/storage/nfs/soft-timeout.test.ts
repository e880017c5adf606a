import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { DroverError, isDroverError } from '../../../../src/lib/errors.ts'
import { firstWaitMs, readInTime } from '../../../../src/storage/nfs/soft-timeout.ts'

const failing = (code: 'OBJECT_UNREADABLE' | 'TARGET_FORBIDDEN', system: string) => async () => {
  throw new DroverError(code, 'reading x', { details: { system } })
}
const has = (code: DroverError['code']) => (error: unknown) => isDroverError(error, code)

describe('an error while a share is read', () => {
  test('is that of a bad disk when it came at once', async () => {
    const read = failing('OBJECT_UNREADABLE', 'EIO')
    await assert.rejects(readInTime(60_000, read), has('OBJECT_UNREADABLE'))
  })

  test('is that of a server which did not answer when it took as long as the mount waits', async () => {
    const read = failing('OBJECT_UNREADABLE', 'EIO')
    await assert.rejects(readInTime(0, read), has('TARGET_UNREACHABLE'))
  })

  test('stays what it is when it is another one, however long it took', async () => {
    await assert.rejects(
      readInTime(0, failing('OBJECT_UNREADABLE', 'EBADMSG')),
      has('OBJECT_UNREADABLE'),
    )
    await assert.rejects(
      readInTime(0, failing('TARGET_FORBIDDEN', 'EACCES')),
      has('TARGET_FORBIDDEN'),
    )
  })

  test('is waited for as the mount options say', () => {
    assert.equal(firstWaitMs('nfsvers=4.2,soft,timeo=300,retry=2'), 30_000)
    assert.equal(firstWaitMs('timeo=50'), 5000)
    assert.equal(firstWaitMs('nfsvers=4.2,soft'), 60_000)
  })
})

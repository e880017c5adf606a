import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  mayNotMount,
  mountFailure,
  noMountProgram,
} from '../../../../src/storage/nfs/mount-failure.ts'

// what mount.nfs4 of nfs-utils 2.6 said to us, by -v
const before = `mount.nfs4: timeout set for Fri Nov 20 13:36:32 2026
mount.nfs4: trying text-based options 'nfsvers=4.2,actimeo=1,soft,port=2049,addr=10.0.2.2'
`
const said = (output: string) =>
  mountFailure({ kind: 'ended', code: 32, output }, '10.0.2.2:/export', 60_000)

describe('the words of the mount program', () => {
  const table: ReadonlyArray<readonly [string, string, boolean]> = [
    [
      'mount.nfs4: mount(2): Protocol not supported\nmount.nfs4: Protocol not supported',
      'TARGET_UNSUPPORTED',
      true,
    ],
    [
      'mount.nfs4: requested NFS version or transport protocol is not supported',
      'TARGET_UNSUPPORTED',
      true,
    ],
    [
      'mount.nfs4: mount(2): Invalid argument\nmount.nfs4: an incorrect mount option was specified',
      'TARGET_UNSUPPORTED',
      true,
    ],
    [
      'mount.nfs4: access denied by server while mounting 10.0.2.2:/export',
      'TARGET_FORBIDDEN',
      false,
    ],
    [
      'mount.nfs4: mounting 10.0.2.2:/export failed, reason given by server: No such file or directory',
      'TARGET_NOT_FOUND',
      false,
    ],
    [
      'mount.nfs4: mount point /var/lib/drover/mounts/x does not exist',
      'TARGET_UNREACHABLE',
      false,
    ],
    [
      'mount.nfs4: mount(2): Connection refused\nmount.nfs4: Connection refused',
      'TARGET_UNREACHABLE',
      false,
    ],
    ['mount.nfs4: Connection timed out', 'TARGET_UNREACHABLE', false],
    ['mount.nfs4: No route to host', 'TARGET_UNREACHABLE', false],
    [
      'mount.nfs4: Failed to resolve server nosuch.invalid: Name or service not known',
      'TARGET_UNREACHABLE',
      false,
    ],
    ['mount.nfs4: No such device', 'TARGET_UNSUPPORTED', false],
    ['mount.nfs4: failed to apply fstab options', 'TARGET_UNSUPPORTED', false],
    ['mount.nfs4: Operation not permitted', 'TARGET_FORBIDDEN', false],
    ['mount.nfs4: something nobody has seen yet', 'TARGET_UNREACHABLE', false],
    ['', 'TARGET_UNREACHABLE', false],
  ]
  for (const [output, code, otherVersion] of table) {
    test(`mean ${code} when they are: ${output.split('\n').at(-1) || 'none'}`, () => {
      const failure = said(`${before}${output}\n`)
      assert.equal(failure.error.code, code)
      assert.equal(failure.otherVersion, otherVersion)
      assert.equal(failure.error.retryable, code === 'TARGET_UNREACHABLE')
      assert.ok(failure.error.message.startsWith('10.0.2.2:/export cannot be mounted: '))
      assert.ok(!failure.error.message.includes('trying text-based'))
    })
  }

  test('are told along with what a mount that took too long was doing', () => {
    const output = `${before}mount.nfs4: mount(2): Connection refused\n${before}`
    const { error, otherVersion } = mountFailure({ kind: 'too-late', output }, 's:/p', 5000)
    assert.equal(error.code, 'TARGET_UNREACHABLE')
    assert.equal(
      error.message,
      's:/p could not be mounted within 5s (last: mount(2): Connection refused)',
    )
    assert.equal(otherVersion, false)
  })

  test('are not needed to say what to do where nothing can be mounted', () => {
    assert.match(noMountProgram('s:/p').message, /nfs-common.*vfs:\/\/\//)
    assert.match(mayNotMount('s:/p').message, /root.*CAP_SYS_ADMIN.*vfs:\/\/\//)
    assert.equal(noMountProgram('s:/p').code, 'TARGET_UNSUPPORTED')
  })
})

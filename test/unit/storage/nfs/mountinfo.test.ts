import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { describe, test } from 'node:test'
import type { Mounted } from '../../../../src/storage/nfs/mountinfo.ts'
import {
  deviceName,
  isShare,
  mountedAt,
  parseMountinfo,
} from '../../../../src/storage/nfs/mountinfo.ts'

// as a kernel wrote it
const REAL = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
23 20 0:20 / /mnt/m rw,nosuid,nodev,noexec,relatime - nfs4 10.0.2.2:/export rw,vers=4.2,rsize=1048576,soft,proto=tcp,timeo=300,addr=10.0.2.2
36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue
`

const place = ({ device, mountPoint, type, source }: Mounted) => ({
  device,
  mountPoint,
  type,
  source,
})

describe('the list of mounts', () => {
  test('is read as the kernel writes it, with and without optional fields', () => {
    assert.deepEqual(parseMountinfo(REAL).map(place), [
      { device: '0:21', mountPoint: '/proc', type: 'proc', source: 'proc' },
      { device: '254:0', mountPoint: '/', type: 'ext4', source: '/dev/vda' },
      { device: '0:20', mountPoint: '/mnt/m', type: 'nfs4', source: '10.0.2.2:/export' },
      { device: '98:0', mountPoint: '/mnt2', type: 'ext3', source: '/dev/root' },
    ])
  })

  test('has paths with blanks, line breaks, backslashes and any letters', () => {
    const line = (path: string, source: string) => `1 2 0:3 / ${path} rw - nfs4 ${source} rw`
    const cases = [
      ['/a\\040b', 's:/x\\011y', '/a b', 's:/x\ty'],
      ['/a\\134040b', 's:/x\\012y', '/a\\040b', 's:/x\ny'],
      ['/ä€😀', 's:/ü\\040ö', '/ä€😀', 's:/ü ö'],
      ['/x\\043y', '[fd00::1]:/-', '/x#y', '[fd00::1]:/-'],
      ['/end\\', 's:/\\9', '/end\\', 's:/\\9'],
      ['/\\303\\244', 's:/', '/ä', 's:/'],
    ] as const
    for (const [written, writtenSource, mountPoint, source] of cases) {
      assert.deepEqual(parseMountinfo(line(written, writtenSource)).map(place), [
        { device: '0:3', mountPoint, type: 'nfs4', source },
      ])
    }
  })

  test('has the options of the mount point and those of the share', () => {
    const share = parseMountinfo(REAL).find(isShare)
    for (const option of ['nosuid', 'noexec', 'vers=4.2', 'soft', 'timeo=300']) {
      assert.ok(share?.options.includes(option), option)
    }
  })

  test('has no use for lines that say something else', () => {
    assert.deepEqual(parseMountinfo('\n\nnonsense\n1 2 3 - \n1 2 0:3 / /x rw -\n - nfs4 a b'), [])
  })

  test('tells shares from other file systems', () => {
    const shares = parseMountinfo(REAL).filter(isShare)
    assert.deepEqual(
      shares.map(({ mountPoint }) => mountPoint),
      ['/mnt/m'],
    )
  })

  test('has the device that a file of a mount has', async () => {
    const root = await mountedAt('/proc')
    assert.ok(root)
    assert.equal(deviceName(statSync('/proc', { bigint: true }).dev), root.device)
    assert.equal(await mountedAt('/proc/self'), undefined)
  })

  test('names devices with large numbers', () => {
    const made = (major: bigint, minor: bigint) =>
      ((major & 0xfffn) << 8n) |
      ((major & ~0xfffn) << 32n) |
      (minor & 0xffn) |
      ((minor & ~0xffn) << 12n)
    for (const [major, minor] of [
      [0n, 20n],
      [0n, 4095n],
      [254n, 0n],
      [4095n, 1_048_575n],
      [70_000n, 300n],
    ] as const) {
      assert.equal(deviceName(made(major, minor)), `${major}:${minor}`)
    }
  })
})

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { judgeFileSystem, judgeMountOptions } from '../../../src/storage/fs/probe-mount.ts'
import { parseMountinfo } from '../../../src/storage/nfs/mountinfo.ts'

const mounted = (type: string, options = 'rw') => {
  const line = `36 35 0:52 / /mnt/store rw,noatime shared:1 - ${type} the-source ${options}`
  return parseMountinfo(line)[0]
}

const nfs = (options: string) => judgeMountOptions(mounted('nfs4', options))

describe('what a folder lies on', () => {
  test('is told with its source and mount point', () => {
    const { verdict, message } = judgeFileSystem(mounted('xfs'))
    assert.equal(verdict, 'ok')
    assert.match(message, /xfs.*the-source.*\/mnt\/store/)
  })

  test('is warned of when it is memory, or goes with a container', () => {
    assert.match(judgeFileSystem(mounted('tmpfs')).message, /is memory/)
    assert.match(judgeFileSystem(mounted('overlay')).message, /container/)
    for (const type of ['tmpfs', 'ramfs', 'overlay']) {
      const { verdict, hint } = judgeFileSystem(mounted(type))
      assert.equal(verdict, 'warning')
      assert.ok(hint)
    }
  })

  test('is warned of when nobody tells', () => {
    assert.equal(judgeFileSystem(undefined).verdict, 'warning')
  })
})

describe('the options of a mount', () => {
  test('do not matter for what is no share', () => {
    assert.equal(judgeMountOptions(mounted('ext4')).verdict, 'skipped')
    assert.equal(judgeMountOptions(undefined).verdict, 'skipped')
  })

  test('are good when listings are never older than a second', () => {
    const short = 'rw,vers=4.2,acregmin=1,acregmax=1,acdirmin=1,acdirmax=1,soft'
    assert.equal(nfs(short).verdict, 'ok')
    assert.equal(nfs('rw,vers=4.1,noac,hard').verdict, 'ok')
    assert.match(nfs(short).message, /4\.2, soft/)
  })

  test('are warned of when listings may be older', () => {
    for (const options of ['rw,vers=4.2,hard', 'rw,vers=4.2,acregmax=1,acdirmax=30,soft']) {
      const { verdict, hint } = nfs(options)
      assert.equal(verdict, 'warning', options)
      assert.match(hint ?? '', /actimeo=1/)
    }
    assert.match(nfs('rw,hard').message, /60 s/)
  })
})

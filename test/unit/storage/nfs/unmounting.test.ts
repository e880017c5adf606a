/** What is unmounted, and what never: with file systems in memory in the place of shares. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import type { RunId } from '../../../../src/backupstore/layout.ts'
import { parseTargetUrl } from '../../../../src/backupstore/target-url.ts'
import { isDroverError } from '../../../../src/lib/errors.ts'
import { mountedAt } from '../../../../src/storage/nfs/mountinfo.ts'
import { helperOptions, openNfsStore } from '../../../../src/storage/nfs/nfs-store.ts'
import { unmountLater } from '../../../../src/storage/nfs/unmount-later.ts'
import type { StorageSettings } from '../../../../src/storage/settings.ts'
import { tempFolder } from '../../../helpers/temp.ts'
import { waitUntil } from '../../../helpers/wait-until.ts'

const run = promisify(execFile)

/** Something that says it is `source`, where the share `s:/p` would be. */
async function inPlaceOfShare(t: TestContext, source: string) {
  const target = parseTargetUrl('nfs://s:/p')
  assert.ok(target.kind === 'nfs')
  const mountDir = join(await tempFolder(t), 'mounts')
  const settings = { callTimeoutMs: 20_000, concurrency: 2, nfs: { mountDir } } as StorageSettings
  const id = randomBytes(8).toString('hex') as RunId
  const { place } = helperOptions(target, id, settings)
  const mountPoint = join(mountDir, place.name)
  await mkdir(mountPoint, { recursive: true, mode: 0o700 })
  try {
    await run('mount', ['-t', 'tmpfs', source, mountPoint])
  } catch {
    t.skip('needs the right to mount a file system')
    return undefined
  }
  // hooks run in the order they were given, and the folder's was first: the mount is gone by then
  const clear = () => run('umount', ['-l', mountPoint]).catch(() => undefined)
  const open = () => openNfsStore(target, id, settings, new AbortController().signal)
  return { place, mountPoint, open, clear, isThere: async () => !!(await mountedAt(mountPoint)) }
}

describe('what is mounted', () => {
  test('by a helper that was lost is unmounted', async (t) => {
    const mounted = await inPlaceOfShare(t, 's:/p')
    if (!mounted) return
    await unmountLater(mounted.place)
    await waitUntil(async () => !(await mounted.isThere()), 'it is unmounted')
  })

  test('by somebody else is refused, and stays', async (t) => {
    const mounted = await inPlaceOfShare(t, 'other:/p')
    if (!mounted) return
    try {
      await assert.rejects(mounted.open(), (error) => {
        assert.ok(isDroverError(error, 'TARGET_UNSUPPORTED'))
        assert.match(error.message, /other:\/p is mounted at/)
        return true
      })
      await unmountLater(mounted.place)
      assert.ok(await mounted.isThere())
    } finally {
      await mounted.clear()
    }
  })

  test('of another kind under the same name is refused, and stays', async (t) => {
    const mounted = await inPlaceOfShare(t, 's:/p')
    if (!mounted) return
    try {
      await assert.rejects(mounted.open(), /s:\/p is mounted at/)
      assert.ok(await mounted.isThere())
    } finally {
      await mounted.clear()
    }
  })
})

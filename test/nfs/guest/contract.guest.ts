import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { RunId } from '../../../src/backupstore/layout.ts'
import { parseTargetUrl } from '../../../src/backupstore/target-url.ts'
import { storageSettings } from '../../../src/config.ts'
import { openStore } from '../../../src/storage/open-store.ts'
import type { Opened } from '../../contract/object-store.ts'
import { testObjectStore } from '../../contract/object-store.ts'
import { nfsMounts, serverNamed, targetOf } from '../../helpers/nfs/guest.ts'
import { filesBelow } from '../../helpers/stores.ts'
import { waitUntil } from '../../helpers/wait-until.ts'

const server = serverNamed('main')
const settings = storageSettings({ ...process.env, DROVER_CALL_TIMEOUT: '5s' }, 4)
let count = 0

async function onShare(t: TestContext): Promise<Opened> {
  const name = `target-${++count}`
  const folder = join(await server.exported(), name)
  await mkdir(folder)
  const target = parseTargetUrl(targetOf(server, `/${name}`))
  const openRun = async () => {
    const run = randomBytes(8).toString('hex') as RunId
    const store = await openStore(target, run, settings, new AbortController().signal)
    t.after(() => store.close().catch(() => undefined))
    return store
  }
  return {
    store: await openRun(),
    another: openRun,
    everything: () => filesBelow(folder).catch(() => []),
    /** What was mounted is gone on the server, and what the kernel knew of it is a second old. */
    async breakTarget() {
      await rm(folder, { recursive: true })
      const mounts = (await nfsMounts()).filter(({ source }) => source.endsWith(`/${name}`))
      assert.equal(mounts.length, 1)
      const isGone = () =>
        stat(mounts[0]?.folder ?? '').then(
          () => false,
          () => true,
        )
      await waitUntil(isGone, 'the mount is stale')
    },
  }
}

testObjectStore('NFS', onShare, { staging: true, tellsRemoved: true, exactTimes: true })

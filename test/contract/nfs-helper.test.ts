/** A folder, seen through a helper process: the way an NFS target is reached, without the mount. */
import { randomBytes } from 'node:crypto'
import { mkdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { RunId } from '../../src/backupstore/layout.ts'
import type { ObjectStore } from '../../src/backupstore/object-store.ts'
import { GRANT_MS, openRemoteStore } from '../../src/storage/nfs/remote-store.ts'
import { filesBelow } from '../helpers/stores.ts'
import { tempFolder } from '../helpers/temp.ts'
import type { Opened } from './object-store.ts'
import { testObjectStore } from './object-store.ts'

const throughHelper = async (t: TestContext): Promise<Opened> => {
  const stores: ObjectStore[] = []
  // hooks run in the order they were given: this one before the folder is removed
  t.after(() => Promise.allSettled(stores.map((store) => store.close())))
  const folder = join(await tempFolder(t), 'target')
  await mkdir(folder)
  const openRun = async (): Promise<ObjectStore> => {
    const store = await openRemoteStore({
      label: folder,
      place: { kind: 'folder', path: folder },
      run: randomBytes(8).toString('hex') as RunId,
      callTimeoutMs: 30_000,
      concurrency: 2,
      grantMs: GRANT_MS,
    })
    stores.push(store)
    return store
  }
  return {
    store: await openRun(),
    another: openRun,
    everything: () => filesBelow(folder),
    async breakTarget() {
      await rename(folder, `${folder}-unmounted`)
      await mkdir(folder)
    },
  }
}

testObjectStore('a folder through a helper', throughHelper, {
  staging: true,
  tellsRemoved: true,
  exactTimes: true,
})

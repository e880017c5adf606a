/** The S3 driver against the suite that every driver passes, on two servers of different make. */
import type { TestContext } from 'node:test'
import { after, before, describe } from 'node:test'
import type { Opened } from '../contract/object-store.ts'
import { testObjectStore } from '../contract/object-store.ts'
import type { S3Admin } from '../helpers/s3/admin.ts'
import { noCeph, startCeph } from '../helpers/s3/ceph.ts'
import type { Server } from '../helpers/s3/target.ts'
import { openTarget } from '../helpers/s3/target.ts'
import { startTcpProxy } from '../helpers/s3/tcp-proxy.ts'
import { buildVersity, startVersity } from '../helpers/s3/versity.ts'

interface Running extends Server {
  readonly port: number
  readonly admin: S3Admin
  readonly stop: () => Promise<void>
}

const traits = { staging: false, tellsRemoved: false, exactTimes: false }

/** Long enough for a busy machine; a target that is gone takes as long to be given up. */
const callTimeoutMs = 2500

/** A bucket of the test's own, behind a proxy that can be taken away. */
async function openIn(t: TestContext, server: Running, path: string): Promise<Opened> {
  const bucket = await server.admin.makeBucket()
  const proxy = await startTcpProxy(server.port)
  t.after(() => proxy.stop())
  const another = async () => {
    const store = openTarget(
      `s3://${bucket}/${path}`,
      { url: proxy.url, keys: server.keys },
      { callTimeoutMs },
    )
    t.after(() => store.close())
    return store
  }
  return {
    store: await another(),
    another,
    everything: () => server.admin.keys(bucket, path),
    breakTarget: () => proxy.stop(),
  }
}

function testOn(name: string, path: string, start: () => Promise<Running>, skip: string | false) {
  describe(name, { skip }, () => {
    let server: Running
    before(async () => {
      server = await start()
    })
    after(async () => {
      server.admin.close()
      await server.stop()
    })
    testObjectStore(`a bucket of ${name}`, (t) => openIn(t, server, path), traits)
  })
}

const versity = await buildVersity()

testOn('Ceph', 'a path/in it/', startCeph, noCeph)
testOn(
  'versitygw',
  '',
  () => {
    if (typeof versity === 'string') throw new Error(versity)
    return startVersity(versity)
  },
  typeof versity === 'string' && versity,
)

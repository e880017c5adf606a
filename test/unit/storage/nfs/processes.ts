/** Helpers as the system sees them, and stores that use one on a plain folder. */
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { RunId } from '../../../../src/backupstore/layout.ts'
import type { ObjectStore } from '../../../../src/backupstore/object-store.ts'
import type { KeeperOptions } from '../../../../src/storage/nfs/helper-keeper.ts'
import { GRANT_MS, openRemoteStore } from '../../../../src/storage/nfs/remote-store.ts'
import { tempFolder } from '../../../helpers/temp.ts'
import { waitUntil } from '../../../helpers/wait-until.ts'

export interface Remote {
  readonly folder: string
  readonly store: ObjectStore
  /** The helper that works now. */
  readonly helper: () => Promise<number>
}

/** A store on a folder through a helper, closed when the test ends. */
export async function openRemote(
  t: TestContext,
  options: Partial<KeeperOptions> = {},
): Promise<Remote> {
  let opened: ObjectStore | undefined
  // hooks run in the order they were given: this one before the folder is removed
  t.after(() => opened?.close().catch(() => undefined))
  const folder = join(await tempFolder(t), 'target')
  await mkdir(folder)
  const before = new Set(await helpersOf(process.pid))
  const store = await openRemoteStore(optionsFor(folder, options))
  opened = store
  return {
    folder,
    store,
    async helper() {
      const ours = (await helpersOf(process.pid)).filter((pid) => !before.has(pid))
      const [pid, ...more] = ours
      if (pid === undefined || more.length > 0) throw new Error(`${ours.length} helpers`)
      return pid
    },
  }
}

export const optionsFor = (
  folder: string,
  options: Partial<KeeperOptions> = {},
): KeeperOptions => ({
  label: 'server:/export',
  place: { kind: 'folder', path: folder },
  run: randomBytes(8).toString('hex') as RunId,
  callTimeoutMs: 30_000,
  concurrency: 2,
  grantMs: GRANT_MS,
  ...options,
})

/** Helpers that a process has started and that run, or are stopped. */
export async function helpersOf(parent: number): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
  const found = await Promise.all(
    pids.map(async (pid) => {
      const [stat, command] = await Promise.all(
        ['stat', 'cmdline'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')),
      )
      const isChild = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[1] === String(parent)
      return isChild && command?.includes('nfs-helper') ? pid : undefined
    }),
  )
  return found.filter((pid) => pid !== undefined)
}

/** Z and X are what is left of a process that ended. */
export async function stateOf(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return stat === '' ? 'X' : (stat.slice(stat.lastIndexOf(')') + 2)[0] ?? 'X')
}

export const waitUntilGone = (pid: number): Promise<void> =>
  waitUntil(async () => /[ZX]/.test(await stateOf(pid)), `process ${pid} ends`)

/** Stops a process, and returns when it really stands still. */
export async function freeze(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP')
  await waitUntil(async () => (await stateOf(pid)) === 'T', `process ${pid} stands still`)
}

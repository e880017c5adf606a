import assert from 'node:assert/strict'
import { cp, mkdir, readdir, rename } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { TestContext } from 'node:test'
import { before, test } from 'node:test'
import { droverJson } from '../../helpers/drover.ts'
import type { KnownImage } from '../../helpers/known-image.ts'
import { makeKnownImage } from '../../helpers/known-image.ts'
import type { Timed } from '../../helpers/nfs/guest.ts'
import { nfsMounts, serverNamed, startTimed, targetOf, urlOf } from '../../helpers/nfs/guest.ts'
import { sha512 } from '../../helpers/images.ts'
import {
  assertBlocksProven,
  assertConfigOf,
  assertHoldsExactly,
  letDeadRunsExpire,
  stateOf,
} from '../../helpers/store-state.ts'
import { age, blockFiles } from '../../helpers/stores.ts'
import { tempFolder } from '../../helpers/temp.ts'
import { waitUntil } from '../../helpers/wait-until.ts'
import { failed, fails, snapshot } from '../../helpers/workspace.ts'

const main = serverNamed('main')
const small = serverNamed('small')

/** With these alone a server that hangs would be waited for for minutes. */
const PATIENT = ['soft', 'timeo=600', 'retrans=5', 'retry=2', 'actimeo=1']
const DEADLINE_SECONDS = 3
const ENV = { DROVER_CALL_TIMEOUT: `${DEADLINE_SECONDS}s` }
/**
 * For the rest of a run: starts and ends of processes on a slow machine, and the few calls that wait
 * for the server one after the other.
 */
const MARGIN_SECONDS = 45

/** Images of 8 MiB each, the same in all tests. */
let images: ReadonlyMap<string, KnownImage>
/** A store that holds the first. */
let prepared: string
before(async () => {
  const folder = await tempFolder({ after: () => undefined }) // gone with the guest
  const make = (name: string, from: number) =>
    makeKnownImage(
      join(folder, `${name}.raw`),
      [0, 1, 2, 3].map((n) => ({ kind: 'noise', seed: from + n })),
    )
  images = new Map([
    ['first', await make('first', 1)],
    ['second', await make('second', 11)],
  ])
  prepared = join(folder, 'store')
  await mkdir(prepared)
  await backUp(`vfs://${prepared}`, 'first')
})

type Name = 'first' | 'second'

function image(name: Name): KnownImage {
  const found = images.get(name)
  assert.ok(found)
  return found
}

interface Target {
  readonly target: string
  /** The folder of the host that it is. */
  readonly folder: string
}

let count = 0

/** A target of the test's own that holds the first backup. Its server runs, then and afterwards. */
async function openTarget(t: TestContext, options?: readonly string[]): Promise<Target> {
  t.after(async () => {
    await main.kill()
    await main.start()
    await waitUntil(async () => (await nfsMounts()).length === 0, 'nothing is mounted any more')
  })
  const name = `target-${++count}`
  const folder = join(await main.exported(), name)
  await cp(prepared, folder, { recursive: true })
  return { target: targetOf(main, `/${name}`, options), folder }
}

const backUp = (target: string, name: Name) =>
  droverJson('backup', image(name).file, '--target', target)

const startBackup = (target: string, env?: Record<string, string>) =>
  startTimed(['backup', image('second').file, '--target', target], env)

async function assertRestores(t: TestContext, target: string, name: Name): Promise<void> {
  const file = join(await tempFolder(t), name)
  await droverJson('restore', urlOf(target, name), file)
  assert.equal(await sha512(file), image(name).sha512)
}

/** What the folder of a server holds is whole: each config, and each block in the pool. */
async function assertWhole(folder: string): Promise<readonly string[]> {
  const { configs, blocks, strays } = await stateOf(folder)
  assert.deepEqual(strays, [])
  for (const name of configs) await assertConfigOf(folder, name, image(name as Name))
  const lengths = new Map([...images.values()].flatMap(({ lengths }) => [...lengths]))
  await assertBlocksProven(folder, blocks, lengths, new Set())
  for (const { id } of configs.flatMap((name) => image(name as Name).entries)) {
    assert.ok(blocks.has(id), `${id} is needed and not there`)
  }
  return configs
}

/** What is there is whole, and what a run that failed left behind hinders no other. */
async function assertSound({ target, folder }: Target): Promise<void> {
  const configs = await assertWhole(folder)
  assert.ok(configs.includes('first'))
  await backUp(target, 'second')
  assert.deepEqual([...(await assertWhole(folder))].sort(), ['first', 'second'])
}

/** As `assertSound`; and gc removes all that is left of the run that failed. */
async function assertSoundAndTidied({ target, folder }: Target): Promise<void> {
  await assertSound({ target, folder })
  await letDeadRunsExpire(folder)
  await droverJson('gc', '--target', target, '--min-age', '0s')
  await assertHoldsExactly(folder, images)
}

function assertInTime({ seconds }: Pick<Timed, 'seconds'>): void {
  assert.ok(seconds < DEADLINE_SECONDS + MARGIN_SECONDS, `it took ${seconds} s`)
}

const secondsSince = (start: number): number => (performance.now() - start) / 1000

/** Until a run that works on a store has put some blocks there, out of sight or in the pool. */
const untilItWrites = (folder: string): Promise<void> => main.untilMoreFiles(basename(folder), 3)

test('a server that hangs fails each command within its deadline, and no other target', async (t) => {
  const opened = await openTarget(t, PATIENT)
  const { target, folder } = opened
  const other = join(await tempFolder(t), 'folder')
  await cp(folder, other, { recursive: true })
  await main.pause()
  const out = await tempFolder(t)
  const hung = [
    startTimed(['list', '--target', target], ENV),
    startBackup(target, ENV),
    startTimed(['restore', urlOf(target, 'first'), join(out, 'out')], ENV),
  ]
  const { backups } = await droverJson('list', '--target', `vfs://${other}`)
  assert.equal(backups.length, 1)
  for (const { done } of hung) {
    const outcome = await done
    failed(outcome, 1, 'TARGET_UNREACHABLE')
    assertInTime(outcome)
  }
  assert.deepEqual(await readdir(out), [])
  await main.resume()
  await assertSound(opened)
})

test('a server that hangs in the middle of a backup fails it within its deadline', async (t) => {
  const opened = await openTarget(t, PATIENT)
  const { done } = startBackup(opened.target, ENV)
  await untilItWrites(opened.folder)
  await main.pause()
  const start = performance.now()
  failed(await done, 1, 'TARGET_UNREACHABLE')
  assertInTime({ seconds: secondsSince(start) })
  await main.resume()
  await assertSoundAndTidied(opened)
})

test('a server that hangs in the middle of a restore fails it within its deadline', async (t) => {
  const opened = await openTarget(t, PATIENT)
  const out = await tempFolder(t)
  const args = ['restore', urlOf(opened.target, 'first'), join(out, 'out')]
  const { done } = startTimed(args, ENV)
  await waitUntil(async () => (await readdir(out)).length > 0, 'the restore writes')
  await main.pause()
  const start = performance.now()
  failed(await done, 1, 'TARGET_UNREACHABLE')
  assertInTime({ seconds: secondsSince(start) })
  assert.deepEqual(await readdir(out), [])
  await main.resume()
  await assertSound(opened)
})

for (const grace of [false, true]) {
  const how = grace ? 'lets clients claim what they had' : 'has forgotten its clients'
  test(`a server that crashes in the middle of a backup and ${how} loses nothing`, async (t) => {
    const opened = await openTarget(t)
    const { done } = startBackup(opened.target, { DROVER_CALL_TIMEOUT: '20s' })
    await untilItWrites(opened.folder)
    await main.kill()
    await main.start({ grace })
    const outcome = await done
    if (outcome.code !== 0) failed(outcome, 1, 'TARGET_UNREACHABLE')
    t.diagnostic(`${outcome.code}: ${outcome.stderr}`)
    await assertSound(opened)
  })
}

test('a server that crashes and stays away fails a backup with a clear error', async (t) => {
  const opened = await openTarget(t)
  const { done } = startBackup(opened.target, ENV)
  await untilItWrites(opened.folder)
  await main.kill()
  const start = performance.now()
  failed(await done, 1, 'TARGET_UNREACHABLE')
  assertInTime({ seconds: secondsSince(start) })
  await main.start()
  await assertSound(opened)
})

test('an export that became read-only can be restored from and not backed up to', async (t) => {
  const { target, folder } = await openTarget(t)
  await main.kill()
  await main.start({ access: 'read-only' })
  const before = await snapshot(folder)
  const args = ['backup', image('second').file, '--target', target]
  await fails(1, 'TARGET_READ_ONLY', args)
  const out = join(await tempFolder(t), 'out')
  await droverJson('restore', urlOf(target, 'first'), out)
  assert.equal(await sha512(out), image('first').sha512)
  assert.deepEqual(await snapshot(folder), before)
})

test('an export that squashes root to somebody without rights is TARGET_FORBIDDEN', async (t) => {
  const { target, folder } = await openTarget(t)
  await main.kill()
  await main.start({ access: 'squashed' })
  const before = await snapshot(folder)
  await fails(1, 'TARGET_FORBIDDEN', ['backup', image('second').file, '--target', target])
  assert.deepEqual(await snapshot(folder), before)
})

test('an export without room for a backup fails it with NO_SPACE and keeps what it had', async (t) => {
  const folder = join(await small.exported(), 'target')
  await cp(prepared, folder, { recursive: true })
  const target = targetOf(small, '/target')
  await fails(1, 'NO_SPACE', ['backup', image('second').file, '--target', target])
  assert.deepEqual(await assertWhole(folder), ['first'])
  await assertRestores(t, target, 'first')
  await droverJson('gc', '--target', target, '--min-age', '0s')
  await assertHoldsExactly(folder, new Map([['first', image('first')]]))
})

test('a mount that a dead run left and that became stale is replaced', async (t) => {
  const { target, folder } = await openTarget(t)
  const { child, done } = startBackup(target)
  await untilItWrites(folder)
  child.kill('SIGKILL')
  await done
  await main.replaceExport()
  await mkdir(join(await main.exported(), basename(folder)))
  const { backups } = await droverJson('list', '--target', target)
  assert.deepEqual(backups, [])
  assert.deepEqual(await nfsMounts(), [])
})

test('a share that comes back empty loses no backup to delete or gc', async (t) => {
  const { target, folder } = await openTarget(t)
  const store = join(folder, 'backupstore')
  const aside = `${folder}-aside`
  await rename(store, aside)
  await fails(3, 'BACKUP_NOT_FOUND', ['delete', urlOf(target, 'first'), '--min-age', '0s'])
  await mkdir(join(store, 'backing-images'), { recursive: true })
  await rename(join(aside, 'backing-images/blocks'), join(store, 'backing-images/blocks'))
  await age(store, 7 * 24 * 3600)
  const before = await blockFiles(folder)
  await fails(1, 'STORE_CHANGED', ['gc', '--target', target])
  assert.deepEqual(await blockFiles(folder), before)
})

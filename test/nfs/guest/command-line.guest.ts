import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { lstat, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { droverJson } from '../../helpers/drover.ts'
import { nfsMounts, serverNamed, startTimed, targetOf, urlOf } from '../../helpers/nfs/guest.ts'
import { HOST } from '../../helpers/nfs/uml.ts'
import { BLOCK, MiB, makeImage, noise, sha512, text } from '../../helpers/images.ts'
import { filesBelow, golden, unpackGolden } from '../../helpers/stores.ts'
import { tempFolder } from '../../helpers/temp.ts'
import { waitUntil } from '../../helpers/wait-until.ts'
import { assertTidy, fails, snapshot } from '../../helpers/workspace.ts'

const run = promisify(execFile)
const main = serverNamed('main')
const standard = serverNamed('standard')

/** A target of the test's own, and the folder of the host that it is. */
async function openTarget(name: string): Promise<{ target: string; folder: string }> {
  const folder = join(await main.exported(), name)
  await mkdir(folder)
  return { target: targetOf(main, `/${name}`), folder }
}

/** An image of 9 MiB with a hole in it. */
async function anImage(t: TestContext, name = 'disk'): Promise<string> {
  const file = join(await tempFolder(t), `${name}.raw`)
  await makeImage(file, 9 * MiB, [
    [0, noise(1, BLOCK)],
    [2 * BLOCK, text(1, BLOCK)],
    [4 * BLOCK, noise(2, MiB)],
  ])
  return file
}

const named = (backups: ReadonlyArray<{ name: string }>) => backups.map(({ name }) => name)

test('the store that Longhorn wrote is listed, proven and restored, and not changed', async (t) => {
  const { target, folder } = await openTarget('golden')
  await unpackGolden(folder)
  const before = await snapshot(folder)
  const { backups, incomplete } = await droverJson('list', '--target', target)
  assert.deepEqual(named(backups), Object.keys(golden).sort())
  assert.deepEqual(named(incomplete), ['interrupted'])
  const verified = await droverJson('verify', urlOf(target, 'derived'))
  assert.equal(verified.checksum, golden['derived']?.sha512)
  const file = join(await tempFolder(t), 'base')
  const restored = await droverJson('restore', urlOf(target, 'base'), file)
  assert.equal(restored.verified, 'full')
  assert.equal(await sha512(file), golden['base']?.sha512)
  assert.deepEqual(await snapshot(folder), before)
  assert.deepEqual(await nfsMounts(), [], 'unmounted')
})

test('a backup is made, listed, proven, restored, deleted, and its blocks collected', async (t) => {
  const { target, folder } = await openTarget('life')
  const image = await anImage(t)
  const made = await droverJson('backup', image, '--target', target)
  assert.equal(made.outcome, 'created')
  assert.deepEqual(made.blocks, { total: 5, zero: 2, reused: 0, new: 3 })
  await assertTidy(folder)
  const { backups } = await droverJson('list', '--target', target)
  assert.deepEqual(named(backups), ['disk'])
  const { ok, blocks } = await droverJson('verify', urlOf(target, 'disk'))
  assert.deepEqual([ok, blocks], [true, { total: 3, checked: 3 }])
  const restored = join(await tempFolder(t), 'restored.raw')
  await droverJson('restore', urlOf(target, 'disk'), restored)
  assert.equal(await sha512(restored), await sha512(image))
  const { removedBlocks } = await droverJson('delete', urlOf(target, 'disk'))
  assert.equal(removedBlocks, 0, 'they are too young')
  const { removed, kept } = await droverJson('gc', '--target', target, '--min-age', '0s')
  assert.deepEqual([removed, kept], [3, 0])
  assert.deepEqual(await filesBelow(folder), [])
  assert.deepEqual(await nfsMounts(), [], 'unmounted')
})

test('a share and the folder behind it are the same store', async (t) => {
  const { target, folder } = await openTarget('same')
  const image = await anImage(t)
  await droverJson('backup', image, '--target', `vfs://${folder}`, '--name', 'by-folder')
  const byShare = await droverJson('backup', image, '--target', target, '--name', 'by-share')
  assert.deepEqual(byShare.blocks, { total: 5, zero: 2, reused: 3, new: 0 })
  const { ok, checksum } = await droverJson('verify', urlOf(`vfs://${folder}`, 'by-share'))
  assert.deepEqual([ok, checksum], [true, await sha512(image)])
  const restored = join(await tempFolder(t), 'restored.raw')
  await droverJson('restore', urlOf(target, 'by-folder'), restored)
  assert.equal(await sha512(restored), await sha512(image))
})

test('a share that somebody else mounted serves as a folder', async (t) => {
  const { folder } = await openTarget('by-hand')
  const point = await tempFolder(t)
  await run('mount.nfs4', [`${HOST}:/export/by-hand`, point, '-o', `port=${main.port}`])
  try {
    const image = await anImage(t)
    await droverJson('backup', image, '--target', `vfs://${point}`)
    const restored = join(await tempFolder(t), 'restored.raw')
    await droverJson('restore', urlOf(`vfs://${point}`, 'disk'), restored)
    assert.equal(await sha512(restored), await sha512(image))
    await assertTidy(folder)
    assert.equal((await nfsMounts()).length, 1, 'it stays mounted')
  } finally {
    await run('umount', [point])
  }
})

for (const [newest, minorVersions] of [
  ['4.2', [0, 1, 2]],
  ['4.1', [0, 1]],
  ['4.0', [0]],
] as const) {
  test(`without options a server that speaks up to ${newest} is spoken to in ${newest}`, async () => {
    await standard.kill()
    await standard.start({ minorVersions })
    const { done } = startTimed(['list', '--target', `nfs://${HOST}:/export`])
    const seen = new Set<string>()
    let isOver = false
    void done.finally(() => (isOver = true))
    await waitUntil(async () => {
      for (const { source, options } of await nfsMounts()) seen.add([source, ...options].join())
      return isOver
    }, 'the listing is over')
    const outcome = await done
    assert.equal(outcome.code, 0, outcome.stderr)
    assert.deepEqual(outcome.json().backups, [])
    const [mount, ...others] = [...seen].filter((each) => each.includes('vers='))
    assert.ok(mount && others.length === 0, [...seen].join(' | '))
    const said = mount.split(',')
    const wanted = [`${HOST}:/export`, `vers=${newest}`, 'soft', 'timeo=300', 'acregmax=1']
    for (const each of [...wanted, 'nosuid', 'nodev', 'noexec']) {
      assert.ok(said.includes(each), `${each} in ${mount}`)
    }
  })
}

test('runs at once share one mount, and the last one unmounts it', async (t) => {
  const { target, folder } = await openTarget('shared')
  const image = await anImage(t)
  const runs = ['one', 'two'].map((name) =>
    startTimed(['backup', image, '--target', target, '--name', name]),
  )
  let isOver = false
  void Promise.all(runs.map(({ done }) => done)).finally(() => (isOver = true))
  let most = 0
  await waitUntil(async () => {
    most = Math.max(most, (await nfsMounts()).length)
    return isOver
  }, 'both are over')
  for (const { done } of runs) {
    const { code, stderr } = await done
    assert.equal(code, 0, stderr)
  }
  assert.equal(most, 1)
  assert.deepEqual(await nfsMounts(), [])
  await assertTidy(folder)
  const { backups } = await droverJson('list', '--target', `vfs://${folder}`)
  assert.deepEqual(named(backups), ['one', 'two'])
})

test('mount options that are not known to be harmless are refused, and nothing is mounted', async () => {
  for (const options of ['exec', 'soft%2Cexec', 'soft -o exec', 'nosuchoption=1']) {
    const target = `nfs://${HOST}:/export?nfsOptions=${options}`
    await fails(2, 'INVALID_URL', ['list', '--target', target])
    assert.deepEqual(await nfsMounts(), [], options)
  }
})

test('an export that is not there is named', async () => {
  const target = targetOf(main, '/none')
  const { message } = await fails(1, 'TARGET_NOT_FOUND', ['list', '--target', target])
  assert.match(message, /10\.0\.2\.2:\/export\/none/)
  assert.deepEqual(await nfsMounts(), [])
  await assert.rejects(lstat(join(await main.exported(), 'none')), { code: 'ENOENT' })
})

test('a server that is not there is TARGET_UNREACHABLE', async () => {
  const target = `nfs://${HOST}:/export?nfsOptions=port=1,retry=0`
  await fails(1, 'TARGET_UNREACHABLE', ['list', '--target', target])
  assert.deepEqual(await nfsMounts(), [])
})

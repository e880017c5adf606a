/** A folder that is looked over: verdicts, hints, exit codes, and no traces. */
import assert from 'node:assert/strict'
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { drover, startDrover } from '../helpers/drover.ts'
import { mountTmpfs } from '../helpers/privileges.ts'
import { unpackGolden } from '../helpers/stores.ts'
import { waitUntil } from '../helpers/wait-until.ts'
import { fails, foldersBelow, openWorkspace, runJson, snapshot } from '../helpers/workspace.ts'

const STEPS = [
  'folder',
  'file system',
  'mount options',
  'free space',
  'permissions',
  'write',
  'durable write',
  'hard link',
  'rename',
  'list',
  'read',
  'throughput',
  'clean-up',
]

interface Told {
  readonly code: number | null
  readonly document: any
  readonly stderr: string
  /** Verdicts by step. */
  readonly verdicts: Record<string, string>
  readonly step: (name: string) => any
}

async function doctor(target: string): Promise<Told> {
  const { code, document, stderr } = await runJson(['doctor', '--target', target])
  const step = (name: string) => document.steps.find((each: any) => each.name === name)
  const verdicts = Object.fromEntries(document.steps.map((each: any) => [each.name, each.verdict]))
  return { code, document, stderr, verdicts, step }
}

/** All that can be seen of a folder, except the times of folders. */
const stateOf = async (folder: string) => ({
  files: await snapshot(folder),
  folders: await foldersBelow(folder),
})

describe('drover doctor on a folder', { concurrency: 4 }, () => {
  test('finds a good folder good, in one document', async (t) => {
    const { store, target } = await openWorkspace(t)
    const { code, document, verdicts, step } = await doctor(target)
    assert.equal(code, 0)
    assert.deepEqual(Object.keys(document), ['target', 'ok', 'steps', 'seconds'])
    assert.equal(document.target, target)
    assert.equal(document.ok, true)
    assert.equal(typeof document.seconds, 'number')
    assert.deepEqual(Object.keys(verdicts), STEPS)
    for (const { name, verdict, message, hint, ms } of document.steps) {
      assert.ok(['ok', 'warning', 'skipped'].includes(verdict), `${name}: ${verdict} ${message}`)
      assert.ok(typeof message === 'string' && message !== '', name)
      assert.ok(Number.isInteger(ms), name)
      assert.equal(typeof hint, verdict === 'warning' ? 'string' : 'undefined', name)
    }
    assert.equal(step('throughput').details.bytes, 64 * 1024 * 1024)
    assert.ok(step('throughput').details.writeMiBPerSecond > 0)
    assert.ok(step('free space').details.freeBytes > 0)
    assert.deepEqual(await foldersBelow(store), [])
  })

  test('says so line by line for a person, and the verdict last', async (t) => {
    const { target } = await openWorkspace(t)
    const { code, stdout, stderr } = await drover('doctor', '--target', target)
    assert.equal(code, 0)
    assert.equal(stderr, '')
    const lines = stdout.trimEnd().split('\n')
    for (const name of STEPS) {
      assert.equal(lines.filter((line) => line.slice(9).startsWith(`${name} `)).length, 1, name)
    }
    assert.match(lines.at(-1) ?? '', /^good, with \d+ warnings? \(/)
  })

  test('tells on stderr how it goes beside a document, and nothing when quiet', async (t) => {
    const { target } = await openWorkspace(t)
    assert.match((await doctor(target)).stderr, /^ok +permissions /m)
    const quiet = await drover('doctor', '--target', target, '--json', '--quiet')
    assert.equal(quiet.stderr, '')
    assert.equal(quiet.json().ok, true)
  })

  test('leaves a store as it was', async (t) => {
    const { store, target } = await openWorkspace(t)
    await unpackGolden(store)
    await mkdir(join(store, 'backupstore/drover/staging/0123456789abcdef'), { recursive: true })
    await writeFile(join(store, 'backupstore/drover/staging/0123456789abcdef/7'), 'of another run')
    const before = await stateOf(store)
    const { code, step } = await doctor(target)
    assert.equal(code, 0)
    assert.equal(step('permissions').details.isStore, true)
    assert.deepEqual(await stateOf(store), before)
  })

  test('says that a folder is missing, and skips the rest', async (t) => {
    const { target } = await openWorkspace(t)
    const { code, document, verdicts, step } = await doctor(`${target}/missing`)
    assert.equal(code, 1)
    assert.equal(document.ok, false)
    assert.equal(step('folder').details.code, 'TARGET_NOT_FOUND')
    assert.match(step('folder').hint, /make the folder/)
    const expected = STEPS.map((name) => [name, name === 'folder' ? 'failed' : 'skipped'])
    assert.deepEqual(verdicts, Object.fromEntries(expected))
  })

  test('says that a file is no folder', async (t) => {
    const { target, path } = await openWorkspace(t)
    await writeFile(path('store/file'), '')
    const { code, step } = await doctor(`${target}/file`)
    assert.equal(code, 1)
    assert.equal(step('folder').details.code, 'TARGET_NOT_FOUND')
  })

  test('says that a file system is read-only, and writes nothing', async (t) => {
    const mounted = await mountTmpfs(t, 'size=16m')
    if (!mounted) return
    await mounted.makeReadOnly()
    const { code, verdicts, step } = await doctor(`vfs://${mounted.folder}`)
    assert.equal(code, 1)
    assert.equal(verdicts['file system'], 'warning')
    assert.equal(step('permissions').details.code, 'TARGET_READ_ONLY')
    assert.match(step('permissions').hint, /mount it for writing/)
    assert.equal(verdicts['write'], 'skipped')
    assert.equal(verdicts['throughput'], 'skipped')
    assert.notEqual(verdicts['clean-up'], 'failed')
  })

  test('says that there is no space', async (t) => {
    const mounted = await mountTmpfs(t, 'size=1m')
    if (!mounted) return
    const { code, step, verdicts } = await doctor(`vfs://${mounted.folder}`)
    assert.equal(code, 1)
    assert.equal(step('free space').details.code, 'NO_SPACE')
    assert.equal(verdicts['write'], 'skipped')
    assert.deepEqual(await foldersBelow(mounted.folder), [])
  })

  test('measures nothing where that would fill the disk', async (t) => {
    const mounted = await mountTmpfs(t, 'size=40m')
    if (!mounted) return
    const { code, verdicts, step } = await doctor(`vfs://${mounted.folder}`)
    assert.equal(code, 0)
    assert.equal(verdicts['free space'], 'warning')
    assert.match(step('file system').message, /is memory/)
    assert.equal(verdicts['throughput'], 'skipped')
    assert.deepEqual(await foldersBelow(mounted.folder), [])
  })

  test('says that a link stands in the place of the store', async (t) => {
    const { store, target, path } = await openWorkspace(t)
    await mkdir(path('elsewhere'))
    await symlink(path('elsewhere'), join(store, 'backupstore'))
    const { code, step } = await doctor(target)
    assert.equal(code, 1)
    assert.equal(step('permissions').details.code, 'UNSAFE_PATH')
    assert.deepEqual(await foldersBelow(path('elsewhere')), [])
  })

  test('matches mode and owner of a store, and says whose it is', async (t) => {
    const { store, target } = await openWorkspace(t)
    await mkdir(join(store, 'backupstore'))
    await chmod(join(store, 'backupstore'), 0o750)
    const { step } = await doctor(target)
    assert.equal(step('permissions').details.mode, 0o750)
    assert.match(step('permissions').message, /mode 0750/)
    assert.deepEqual(await foldersBelow(store), ['backupstore'])
  })

  test('removes its traces when it is interrupted, and ends with 130', async (t) => {
    const { store, target } = await openWorkspace(t)
    const { child, done } = startDrover(['doctor', '--target', target, '--json'])
    const staging = join(store, 'backupstore/drover/staging')
    await waitUntil(() => existsSync(staging), 'something was written')
    child.kill('SIGINT')
    const { code, stdout } = await done
    assert.equal(code, 130)
    assert.equal(JSON.parse(stdout).error.code, 'INTERRUPTED')
    assert.deepEqual(await foldersBelow(store), [])
  })

  test('refuses what is no target as a wrong usage', async () => {
    await fails(2, 'INVALID_URL', ['doctor', '--target', '/a/folder'])
    await fails(2, 'USAGE', ['doctor'])
  })
})

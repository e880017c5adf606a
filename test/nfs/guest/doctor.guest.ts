import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { drover, startDrover } from '../../helpers/drover.ts'
import { QUICK, nfsMounts, serverNamed, targetOf } from '../../helpers/nfs/guest.ts'
import { filesBelow, unpackGolden } from '../../helpers/stores.ts'
import { waitUntil } from '../../helpers/wait-until.ts'
import { fails, foldersBelow, snapshot } from '../../helpers/workspace.ts'

const main = serverNamed('main')
const readOnly = serverNamed('readOnly')
const squashed = serverNamed('squashed')

interface Told {
  readonly code: number | null
  readonly document: any
  readonly having: (verdict: string) => string[]
  readonly step: (name: string) => any
}

async function doctor(target: string, env: Record<string, string> = {}): Promise<Told> {
  const { done } = startDrover(['doctor', '--target', target, '--json', '--quiet'], { env })
  const { code, stdout, stderr } = await done
  assert.notEqual(stdout, '', stderr)
  const document = JSON.parse(stdout)
  assert.equal(document.ok, code === 0, stdout)
  return {
    code,
    document,
    having: (verdict) =>
      document.steps
        .filter((each: any) => each.verdict === verdict)
        .map(({ name }: { name: string }) => name),
    step: (name) => document.steps.find((each: any) => each.name === name),
  }
}

async function openTarget(name: string, options?: readonly string[]) {
  const folder = join(await main.exported(), name)
  await mkdir(folder)
  return { folder, target: targetOf(main, `/${name}`, options && [...options]) }
}

test('finds a good export good, and leaves it as it was', async () => {
  const { folder, target } = await openTarget('good')
  await unpackGolden(folder)
  const before = [await snapshot(folder), await foldersBelow(folder)]
  const { code, document, having, step } = await doctor(target)
  assert.equal(code, 0, JSON.stringify(document))
  assert.deepEqual(having('failed'), [])
  assert.deepEqual(having('skipped'), ['name resolution'])
  assert.match(step('mount options').message, /^NFS 4\.[12], soft/)
  assert.equal(step('permissions').details.isStore, true)
  assert.ok(step('throughput').details.writeMiBPerSecond > 0)
  assert.deepEqual([await snapshot(folder), await foldersBelow(folder)], before)
  assert.deepEqual(await nfsMounts(), [], 'unmounted')
})

test('says it line by line for a person', async () => {
  const { target } = await openTarget('lines')
  const { code, stdout, stderr } = await drover('doctor', '--target', target)
  assert.equal(code, 0, stdout + stderr)
  assert.match(stdout, /^ok +mount +/m)
  assert.match(stdout, /^good, with /m)
})

test('warns of a mount whose listings may be old', async () => {
  const { target } = await openTarget('cached', ['soft', 'timeo=10', 'retrans=1', 'actimeo=30'])
  const { code, having, step } = await doctor(target)
  assert.equal(code, 0)
  assert.ok(having('warning').includes('mount options'))
  assert.match(step('mount options').hint, /actimeo=1/)
})

test('says that there is no such folder on the server', async () => {
  const { code, having, step } = await doctor(targetOf(main, '/missing'))
  assert.equal(code, 1)
  assert.deepEqual(having('failed'), ['mount'])
  assert.equal(step('mount').details.code, 'TARGET_NOT_FOUND')
  assert.equal(step('write').verdict, 'skipped')
  assert.deepEqual(await nfsMounts(), [], 'unmounted')
})

test('says that nothing listens at the port', async () => {
  const { target } = await openTarget('port')
  const { code, having, step } = await doctor(target.replace(/port=\d+/, 'port=1'))
  assert.equal(code, 1)
  assert.deepEqual(having('failed'), ['connection'])
  assert.match(step('connection').hint, /NFS server/)
})

test('says that an option is not allowed', async () => {
  const { target } = await openTarget('option')
  const { code, having, step } = await doctor(`${target},exec`)
  assert.equal(code, 1)
  assert.deepEqual(having('failed'), ['options'])
  assert.match(step('options').hint, /nfsOptions/)
})

test('says that an export is read-only, and one where root may nothing', async () => {
  for (const server of [readOnly, squashed]) {
    const { code, having, step } = await doctor(targetOf(server, ''))
    assert.equal(code, 1)
    const [first = ''] = having('failed')
    assert.ok(['permissions', 'write', 'mount'].includes(first), JSON.stringify(step(first)))
    assert.match(step(first).details.code, /TARGET_(READ_ONLY|FORBIDDEN)/)
    assert.match(step(first).hint, /export it/)
    assert.deepEqual(await filesBelow(await server.exported()), [])
  }
})

test('ends within its deadlines while the server hangs', async (t) => {
  const { target } = await openTarget('hangs', ['soft', 'timeo=600', 'retry=0', 'actimeo=1'])
  t.after(() => main.resume())
  await main.pause()
  const startMs = performance.now()
  const { code, having } = await doctor(target, { DROVER_CALL_TIMEOUT: '2s' })
  assert.equal(code, 1)
  assert.equal(having('failed').length, 1)
  assert.ok(performance.now() - startMs < 40_000)
})

test('removes its traces when it is interrupted', async () => {
  const { folder, target } = await openTarget('interrupted', QUICK)
  const { child, done } = startDrover(['doctor', '--target', target, '--json'])
  await waitUntil(async () => (await filesBelow(folder)).length > 0, 'something was written')
  child.kill('SIGINT')
  const { code } = await done
  assert.equal(code, 130)
  assert.deepEqual(await foldersBelow(folder), [])
  assert.deepEqual(await nfsMounts(), [], 'unmounted')
})

test('refuses what is no target as a wrong usage', async () => {
  await fails(2, 'INVALID_URL', ['doctor', '--target', 'nfs://server'])
})

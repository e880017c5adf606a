/**
 * Mounting with programs that only look like the real ones: what they are given, and what becomes
 * of those that fail or hang. On real mounts the suite for NFS runs, in a kernel of its own.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import {
  chmod,
  chown,
  mkdir,
  readFile,
  readdir,
  rmdir,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import type { RunId } from '../../../../src/backupstore/layout.ts'
import { parseTargetUrl } from '../../../../src/backupstore/target-url.ts'
import type { ErrorCode } from '../../../../src/lib/errors.ts'
import { DroverError, isDroverError } from '../../../../src/lib/errors.ts'
import { openNfsStore } from '../../../../src/storage/nfs/nfs-store.ts'
import type { StorageSettings } from '../../../../src/storage/settings.ts'
import { isRoot } from '../../../helpers/privileges.ts'
import { tempFolder } from '../../../helpers/temp.ts'
import { waitUntil } from '../../../helpers/wait-until.ts'
import { helpersOf, waitUntilGone } from './processes.ts'

const needsRoot = isRoot ? false : 'needs the right to mount'

/** A folder of programs that are found first, and one for mount points. */
async function withProgram(t: TestContext, script: string) {
  const folder = await tempFolder(t)
  const bin = join(folder, 'bin')
  const log = join(folder, 'log')
  await mkdir(bin)
  await writeFile(log, '')
  const program = join(bin, 'mount.nfs4')
  await writeFile(program, `#!/bin/sh\nfor a in "$@"; do echo "<$a>" >> ${log}; done\n${script}\n`)
  await chmod(program, 0o755)
  const { PATH = '' } = process.env
  process.env['PATH'] = `${bin}${delimiter}${PATH}`
  t.after(() => (process.env['PATH'] = PATH))
  const mountDir = join(folder, 'mounts')
  return {
    folder,
    mountDir,
    log: () => readFile(log, 'utf8'),
    open: (url: string, { callTimeoutMs = 20_000, signal = new AbortController().signal } = {}) => {
      const target = parseTargetUrl(url)
      assert.ok(target.kind === 'nfs')
      const run = randomBytes(8).toString('hex') as RunId
      const settings = { callTimeoutMs, concurrency: 2, nfs: { mountDir } }
      return openNfsStore(target, run, settings as StorageSettings, signal)
    },
  }
}

const hasCode = (code: ErrorCode) => (error: unknown) => isDroverError(error, code)
const failing = (words: string) => `echo 'mount.nfs4: ${words}' >&2; exit 32`

describe('mounting', { skip: needsRoot }, () => {
  test('steps down through the versions while the server lacks them', async (t) => {
    const { open, log, mountDir } = await withProgram(t, failing('Protocol not supported'))
    await assert.rejects(open('nfs://server:/export/a b'), hasCode('TARGET_UNSUPPORTED'))
    const given = (await log()).trim().split('\n')
    assert.equal(given.length, 15)
    for (const [n, version] of ['4.2', '4.1', '4.0'].entries()) {
      const [source, mountPoint = '', ...rest] = given.slice(5 * n, 5 * n + 5)
      assert.equal(source, '<server:/export/a b>')
      assert.ok(mountPoint.startsWith(`<${mountDir}/`))
      const options = `nfsvers=${version},actimeo=1,soft,timeo=300,retry=2,nosuid,nodev,noexec`
      assert.deepEqual(rest, ['<-v>', '<-o>', `<${options}>`])
    }
    const [name = '', ...more] = await readdir(mountDir)
    assert.deepEqual(more, [`${name}.lock`], 'one folder, to be used again')
    assert.deepEqual(await readdir(join(mountDir, name)), [])
  })

  test('does not step down for any other failure, nor with options of the URL', async (t) => {
    const denied = await withProgram(t, failing('access denied by server while mounting s:/p'))
    await assert.rejects(denied.open('nfs://s:/p'), hasCode('TARGET_FORBIDDEN'))
    assert.equal((await denied.log()).match(/<s:\/p>/g)?.length, 1)
    const old = await withProgram(t, failing('Protocol not supported'))
    const url = 'nfs://s:/p?nfsOptions=nfsvers=4.1,soft'
    await assert.rejects(old.open(url), hasCode('TARGET_UNSUPPORTED'))
    assert.equal((await old.log()).match(/<s:\/p>/g)?.length, 1)
    assert.ok((await old.log()).includes('<actimeo=1,nfsvers=4.1,soft,nosuid,nodev,noexec>'))
  })

  test('starts nothing for options that are not allowed', async (t) => {
    const { open, log, mountDir } = await withProgram(t, 'exit 0')
    const before = await helpersOf(process.pid)
    for (const options of ['exec', 'soft%2Csuid', 'addr=1.2.3.4', 'soft%0Aexec']) {
      await assert.rejects(open(`nfs://s:/p?nfsOptions=${options}`), hasCode('INVALID_URL'))
    }
    assert.deepEqual(await helpersOf(process.pid), before)
    assert.equal(await log(), '')
    await assert.rejects(readdir(mountDir), 'not even the folder is made')
  })

  test('gives no shell anything to understand', async (t) => {
    const { open, log, folder } = await withProgram(t, failing('No such device'))
    const evil = `/$(touch ${folder}/evil);touch ${folder}/evil`
    const url = `nfs://s:${evil.split('/').map(encodeURIComponent).join('/')}`
    await assert.rejects(open(url), hasCode('TARGET_UNSUPPORTED'))
    assert.ok((await log()).startsWith(`<s:${evil}>\n`))
    assert.ok(!(await readdir(folder)).includes('evil'))
  })

  test('does not believe a program that says it mounted and did not', async (t) => {
    const { open } = await withProgram(t, 'exit 0')
    await assert.rejects(open('nfs://s:/p'), hasCode('TARGET_UNREACHABLE'))
  })

  test('that hangs ends at its deadline, with the program', async (t) => {
    const hang = 'echo "mount.nfs4: mount(2): Connection refused"; echo $$ > $0.pid; exec sleep 600'
    const { open, folder } = await withProgram(t, hang)
    const since = performance.now()
    await assert.rejects(open('nfs://s:/p', { callTimeoutMs: 1000 }), (error) => {
      assert.ok(isDroverError(error, 'TARGET_UNREACHABLE'))
      assert.match(error.message, /within 1s \(last: mount\(2\): Connection refused\)/)
      return true
    })
    assert.ok(performance.now() - since < 8000)
    await waitUntilGone(Number(await readFile(join(folder, 'bin/mount.nfs4.pid'), 'utf8')))
  })

  test('that hangs ends with whoever waits for it', async (t) => {
    const { open, folder, log } = await withProgram(t, 'echo $$ > $0.pid; exec sleep 600')
    const before = await helpersOf(process.pid)
    const abort = new AbortController()
    const opening = open('nfs://s:/p', { signal: abort.signal })
    await waitUntil(async () => (await log()).includes('<-o>'), 'the program runs')
    const reason = new DroverError('INTERRUPTED', 'enough')
    abort.abort(reason)
    await assert.rejects(opening, (error) => error === reason)
    const pid = join(folder, 'bin/mount.nfs4.pid')
    await waitUntilGone(Number(await readFile(pid, 'utf8')))
    await waitUntil(
      async () => (await helpersOf(process.pid)).length === before.length,
      'the helper ends',
    )
  })

  test('is one attempt at a time for one target', async (t) => {
    const script = `mkdir $0.busy || echo '<two at once>' >> $0.log; sleep 0.3; rmdir $0.busy; ${failing('No route to host')}`
    const { open, folder } = await withProgram(t, script)
    const results = await Promise.allSettled([1, 2, 3].map(() => open('nfs://s:/p')))
    for (const result of results) assert.equal(result.status, 'rejected')
    assert.ok(!(await readdir(join(folder, 'bin'))).includes('mount.nfs4.log'))
  })

  test('needs a place for mount points', async (t) => {
    const { mountDir, open } = await withProgram(t, 'exit 0')
    await writeFile(mountDir, 'a file')
    await assert.rejects(open('nfs://s:/p'), hasCode('INVALID_CONFIG'))
  })

  const unsafe: Record<string, (mountDir: string, folder: string) => Promise<unknown>> = {
    'a link': (mountDir, folder) => symlink(folder, mountDir),
    'writable by others': (mountDir) => mkdir(mountDir).then(() => chmod(mountDir, 0o777)),
    "somebody else's": (mountDir) => mkdir(mountDir).then(() => chown(mountDir, 65_534, 65_534)),
  }
  for (const [what, make] of Object.entries(unsafe)) {
    test(`refuses a place for mount points that is ${what}`, async (t) => {
      const { mountDir, open, log, folder } = await withProgram(t, 'exit 0')
      await make(mountDir, folder)
      await assert.rejects(open('nfs://s:/p'), (error) => {
        assert.ok(isDroverError(error, 'INVALID_CONFIG'))
        assert.match(error.message, /DROVER_MOUNT_DIR/)
        return true
      })
      assert.equal(await log(), '')
    })
  }

  test('follows no link in the place of its lock or its mount point', async (t) => {
    const { mountDir, open, log, folder } = await withProgram(t, failing('No route to host'))
    await assert.rejects(open('nfs://s:/p'), hasCode('TARGET_UNREACHABLE'))
    const mountPoint = join(mountDir, (await readdir(mountDir))[0] ?? '')
    const before = await log()
    await rmdir(mountPoint)
    await symlink(folder, mountPoint)
    await assert.rejects(open('nfs://s:/p'), hasCode('INVALID_CONFIG'))
    await unlink(mountPoint)
    await unlink(`${mountPoint}.lock`)
    await symlink(join(folder, 'evil'), `${mountPoint}.lock`)
    await assert.rejects(open('nfs://s:/p'), hasCode('INVALID_CONFIG'))
    assert.ok(!(await readdir(folder)).includes('evil'))
    assert.equal(await log(), before)
  })

  test('goes on without a lock where no program can take one', async (t) => {
    const { folder, open } = await withProgram(t, failing('No route to host'))
    const flock = join(folder, 'bin/flock')
    await writeFile(flock, '#!/bin/sh\necho "flock: unrecognized option" >&2; exit 1\n')
    await chmod(flock, 0o755)
    await assert.rejects(open('nfs://s:/p'), /No route to host/)
  })

  test('does not wait for ever while another process mounts', async (t) => {
    const { folder, open, log } = await withProgram(t, 'exit 0')
    const flock = join(folder, 'bin/flock')
    await writeFile(flock, '#!/bin/sh\nexec sleep 600\n')
    await chmod(flock, 0o755)
    await assert.rejects(open('nfs://s:/p', { callTimeoutMs: 1000 }), /mounting s:\/p for too long/)
    assert.equal(await log(), '')
  })

  test('looks again where somebody else has just mounted it', async (t) => {
    const { open, log } = await withProgram(t, failing('/m is busy or already mounted'))
    await assert.rejects(open('nfs://s:/p'), /is somebody else unmounting it/)
    assert.equal((await log()).match(/<s:\/p>/g)?.length, 4)
  })

  test('gives its programs nothing of our environment but the path', async (t) => {
    process.env['AWS_SECRET_ACCESS_KEY'] = 'not for you'
    t.after(() => delete process.env['AWS_SECRET_ACCESS_KEY'])
    const { open, folder } = await withProgram(t, `env > $0.env; ${failing('No route to host')}`)
    await assert.rejects(open('nfs://s:/p'), hasCode('TARGET_UNREACHABLE'))
    const environment = await readFile(join(folder, 'bin/mount.nfs4.env'), 'utf8')
    const names = environment.split('\n').map((line) => line.split('=')[0])
    assert.deepEqual(
      names.filter(
        (name) => name !== '' && !['PATH', 'LC_ALL', 'PWD', 'SHLVL', '_'].includes(name ?? ''),
      ),
      [],
    )
  })
})

import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmod,
  lstat,
  mkdir,
  open,
  readFile,
  readdir,
  readlink,
  rename,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { join, relative } from 'node:path'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import { FOREIGN_DEAD_AFTER_MS, tempNameFor } from '../../../src/image/temp-name.ts'
import { openImageWriter } from '../../../src/image/writer.ts'
import type { ErrorCode } from '../../../src/lib/errors.ts'
import { isDroverError } from '../../../src/lib/errors.ts'
import { BLOCK, MiB, allocatedBytes, noise } from '../../helpers/images.ts'
import { asNobody, mountTmpfs, openFolder } from '../../helpers/privileges.ts'
import { tempFolder } from '../../helpers/temp.ts'
import { waitUntil } from '../../helpers/wait-until.ts'

const run = promisify(execFile)

describe('writing an image', () => {
  test('the file appears whole and at once, when it is committed', async (t) => {
    const { folder, file } = await place(t)
    const writer = await openWriter(t, file, { sizeBytes: 3 * MiB + 5 })
    assert.equal(writer.file, file)
    await writer.write(noise(1, MiB), 0)
    await writer.write(noise(2, 5), 3 * MiB)
    await assert.rejects(lstat(file), 'nothing under the real name yet')
    await writer.commit()
    const expected = Buffer.alloc(3 * MiB + 5)
    noise(1, MiB).copy(expected)
    noise(2, 5).copy(expected, 3 * MiB)
    assert.ok((await readFile(file)).equals(expected))
    assert.deepEqual(await readdir(folder), ['disk.img'])
  })

  test('what is not written stays a hole', async (t) => {
    const { file } = await place(t)
    const writer = await openWriter(t, file, { sizeBytes: 512 * MiB })
    await writer.write(noise(1, BLOCK), 100 * MiB)
    await writer.write(noise(2, 700), 512 * MiB - 700)
    await writer.commit()
    assert.equal((await stat(file)).size, 512 * MiB)
    assert.ok((await allocatedBytes(file)) < BLOCK + MiB, `${await allocatedBytes(file)} bytes`)
    const handle = await open(file)
    t.after(() => handle.close())
    const at = async (offset: number, length: number) =>
      (await handle.read(Buffer.alloc(length, 'x'), 0, length, offset)).buffer
    assert.ok((await at(100 * MiB, BLOCK)).equals(noise(1, BLOCK)))
    assert.ok((await at(102 * MiB, BLOCK)).every((byte) => byte === 0))
    assert.ok((await at(512 * MiB - 700, 700)).equals(noise(2, 700)))
  })

  test('an image without any data has its size and takes no space', async (t) => {
    const { file } = await place(t)
    const writer = await openWriter(t, file, { sizeBytes: 32 * 1024 * MiB })
    await writer.commit()
    assert.equal((await stat(file)).size, 32 * 1024 * MiB)
    assert.ok((await allocatedBytes(file)) < MiB)
  })

  test('pieces may come in any order and at the same time', async (t) => {
    const { file } = await place(t)
    const bytes = noise(9, 64 * 10_000 + 1)
    const writer = await openWriter(t, file, { sizeBytes: bytes.length })
    const offsets = Array.from({ length: 65 }, (_, n) => ((n * 37) % 65) * 10_000)
    await Promise.all(
      offsets.map((from) => writer.write(bytes.subarray(from, from + 10_000), from)),
    )
    await writer.commit()
    assert.ok((await readFile(file)).equals(bytes))
  })

  test('a relative path and a folder reached through a link name the same file', async (t) => {
    const { folder, file } = await place(t)
    await mkdir(join(folder, 'real'))
    await symlink(join(folder, 'real'), join(folder, 'link'))
    const near = await openWriter(t, relative(process.cwd(), file))
    assert.equal(near.file, file)
    await near.commit()
    const through = await openWriter(t, join(folder, 'link/disk.img'))
    await through.commit()
    assert.deepEqual(await readdir(join(folder, 'real')), ['disk.img'])
    assert.ok((await lstat(join(folder, 'link'))).isSymbolicLink())
  })

  const names: Record<string, string> = {
    'of 255 bytes': 'x'.repeat(255),
    'of 255 bytes in 85 characters': '€'.repeat(85),
    'of 181 bytes': 'y'.repeat(181),
    'that looks like a temporary file': '.disk.img.drover-01234567-1-1.partial',
    'with spaces, quotes and a newline': ' a "b"\n\'c\' ',
    'that begins with a dash': '-rf',
  }
  for (const [what, name] of Object.entries(names)) {
    test(`a file name ${what} is written, and its dead remains are recognised`, async (t) => {
      const { folder } = await place(t)
      const file = join(folder, name)
      const dead = await tempNameOf(name, await deadProcess())
      await writeFile(join(folder, dead), 'remains')
      const writer = await openWriter(t, file)
      assert.ok(!(await readdir(folder)).includes(dead), 'the remains are gone')
      await writer.write(noise(1, 1000), 0)
      await writer.commit()
      assert.ok((await readFile(file)).equals(noise(1, 1000)))
      assert.deepEqual(await readdir(folder), [name])
    })
  }
})

describe('a file that exists', () => {
  const existing: Record<string, (file: string, folder: string) => Promise<unknown>> = {
    'a file': (file) => writeFile(file, 'theirs'),
    'an empty file': (file) => writeFile(file, ''),
    'a folder': (file) => mkdir(file),
    'a named pipe': (file) => run('mkfifo', [file]),
    'a link': async (file, folder) => {
      await writeFile(join(folder, 'elsewhere'), 'theirs')
      await symlink('elsewhere', file)
    },
    'a link to nowhere': (file, folder) => symlink(join(folder, 'nowhere'), file),
  }
  for (const [what, make] of Object.entries(existing)) {
    test(`${what} is refused and left alone`, async (t) => {
      const { folder, file } = await place(t)
      await make(file, folder)
      const before = await lstat(file, { bigint: true })
      const names = await readdir(folder)
      await assert.rejects(openWriter(t, file), hasCode('FILE_EXISTS'))
      const after = await lstat(file, { bigint: true })
      assert.deepEqual([after.ino, after.mtimeNs], [before.ino, before.mtimeNs])
      assert.deepEqual(await readdir(folder), names)
    })
  }

  test('stays untouched with force until the new one is committed', async (t) => {
    const { folder, file } = await place(t)
    await writeFile(file, 'theirs')
    const before = await stat(file, { bigint: true })
    const writer = await openWriter(t, file, { force: true, sizeBytes: 4 })
    await writer.write(Buffer.from('ours'), 0)
    const during = await stat(file, { bigint: true })
    assert.deepEqual([during.ino, during.mtimeNs], [before.ino, before.mtimeNs])
    assert.equal(await readFile(file, 'utf8'), 'theirs')
    await writer.commit()
    assert.equal(await readFile(file, 'utf8'), 'ours')
    assert.deepEqual(await readdir(folder), ['disk.img'])
  })

  test('is as it was when a forced run gives up', async (t) => {
    const { folder, file } = await place(t)
    await writeFile(file, 'theirs')
    const writer = await openWriter(t, file, { force: true, sizeBytes: 4 })
    await writer.write(Buffer.from('ours'), 0)
    await writer.abort()
    assert.equal(await readFile(file, 'utf8'), 'theirs')
    assert.deepEqual(await readdir(folder), ['disk.img'])
  })

  test('as a link is neither followed nor replaced, even by force', async (t) => {
    const { folder, file } = await place(t)
    await existing['a link']?.(file, folder)
    await assert.rejects(openWriter(t, file, { force: true }), /name the file it leads to/)
    assert.ok((await lstat(file)).isSymbolicLink())
    assert.equal(await readFile(join(folder, 'elsewhere'), 'utf8'), 'theirs')
  })

  test('is replaced by one with its mode and owner; a new one is private', async (t) => {
    const { file } = await place(t)
    for (const mode of [0o600, 0o640, 0o400]) {
      const writer = await openWriter(t, file, { force: true, sizeBytes: 4 })
      await writer.write(Buffer.from('ours'), 0)
      await writer.commit()
      assert.equal((await lstat(file)).mode & 0o777, mode, 'as the one before')
      await chmod(file, mode === 0o600 ? 0o640 : 0o400)
    }
  })

  for (const what of ['a folder', 'a named pipe']) {
    test(`as ${what} is not replaced even by force`, async (t) => {
      const { folder, file } = await place(t)
      await existing[what]?.(file, folder)
      await assert.rejects(openWriter(t, file, { force: true }), hasCode('FILE_UNWRITABLE'))
      assert.deepEqual(await readdir(folder), ['disk.img'])
    })
  }

  test('since somebody made it meanwhile is theirs, unless forced', async (t) => {
    for (const force of [false, true]) {
      const { folder, file } = await place(t)
      const writer = await openWriter(t, file, { force, sizeBytes: 4 })
      await writer.write(Buffer.from('ours'), 0)
      await writeFile(file, 'theirs')
      if (force) await writer.commit()
      else await assert.rejects(writer.commit(), hasCode('FILE_EXISTS'))
      assert.equal(await readFile(file, 'utf8'), force ? 'ours' : 'theirs')
      await writer.abort()
      assert.deepEqual(await readdir(folder), ['disk.img'])
    }
  })

  test('since somebody made a folder of it meanwhile stays, forced or not', async (t) => {
    for (const force of [false, true]) {
      const { folder, file } = await place(t)
      const writer = await openWriter(t, file, { force })
      await mkdir(file)
      await assert.rejects(writer.commit(), hasCode(force ? 'FILE_UNWRITABLE' : 'FILE_EXISTS'))
      await writer.abort()
      assert.ok((await stat(file)).isDirectory())
      assert.deepEqual(await readdir(folder), ['disk.img'])
    }
  })

  test('of several writers without force exactly one gets the name', async (t) => {
    const { folder, file } = await place(t)
    const others = await Promise.all([1, 2, 3].map(() => otherWriter(t, file)))
    assert.equal((await readdir(folder)).length, 3, 'each has a temporary file of its own')
    const outcomes = await Promise.all(others.map((each) => each.commit()))
    assert.deepEqual(outcomes.sort(), ['FILE_EXISTS', 'FILE_EXISTS', 'committed'])
    assert.deepEqual(await readdir(folder), ['disk.img'])
  })
})

describe('giving up', () => {
  test('abort leaves nothing, whatever was written, and may be repeated', async (t) => {
    const { folder, file } = await place(t)
    const writer = await openWriter(t, file, { sizeBytes: 10 * MiB })
    await writer.write(noise(1, MiB), 5 * MiB)
    await writer.abort()
    assert.deepEqual(await readdir(folder), [])
    await writer.abort()
    assert.deepEqual(await openFilesBelow(folder), [], 'no handle stays open')
  })

  test('abort after the commit leaves the file', async (t) => {
    const { folder, file } = await place(t)
    const writer = await openWriter(t, file, { sizeBytes: 1 })
    await writer.commit()
    await writer.abort()
    assert.deepEqual(await readdir(folder), ['disk.img'])
    assert.deepEqual(await openFilesBelow(folder), [], 'no handle stays open')
  })

  test('a late abort after the commit does not touch the next writer of that file', async (t) => {
    const { file } = await place(t)
    const first = await openWriter(t, file, { sizeBytes: 1 })
    await first.commit()
    const next = await openWriter(t, file, { sizeBytes: 4, force: true })
    await next.write(Buffer.from('next'), 0)
    await first.abort()
    await next.commit()
    assert.equal(await readFile(file, 'utf8'), 'next')
  })

  test('abort is quiet when somebody removed the temporary file', async (t) => {
    const { folder, file } = await place(t)
    const writer = await openWriter(t, file)
    await rename(join(folder, tempNameFor('disk.img')), join(folder, 'taken'))
    await writer.abort()
    assert.deepEqual(await readdir(folder), ['taken'])
  })
})

describe('remains of other runs', () => {
  test('those of dead processes go', async (t) => {
    const { folder, file } = await place(t)
    const dead = [
      await tempNameOf('disk.img', await deadProcess()),
      await tempNameOf('disk.img', { pid: process.pid, start: '1' }), // its pid is ours now
    ]
    const zombie = await zombieProcess(t)
    dead.push(await tempNameOf('disk.img', zombie))
    for (const name of dead) await writeFile(join(folder, name), 'remains')
    const writer = await openWriter(t, file)
    assert.deepEqual(await readdir(folder), [tempNameFor('disk.img')])
    await writer.abort()
  })

  test('those of a live process stay, and go when it is dead', async (t) => {
    const { folder, file } = await place(t)
    const other = await otherWriter(t, file)
    const [theirs] = await readdir(folder)
    assert.ok(theirs !== undefined && theirs.includes(`-${other.pid}-`))
    const writer = await openWriter(t, file)
    assert.ok((await readdir(folder)).includes(theirs))
    await writer.abort()
    await other.kill()
    assert.deepEqual(await readdir(folder), [theirs], 'kill -9 leaves it')
    const next = await openWriter(t, file)
    await next.abort()
    assert.deepEqual(await readdir(folder), [])
  })

  test('those of another machine stay until they are old', async (t) => {
    const { folder, file } = await place(t)
    const theirs = '.disk.img.drover-00000000-1-1.partial'
    await writeFile(join(folder, theirs), 'remains')
    const ageTo = async (ageMs: number) => {
      const then = new Date(Date.now() - ageMs)
      await utimes(join(folder, theirs), then, then)
      const writer = await openWriter(t, file)
      await writer.abort()
      return (await readdir(folder)).includes(theirs)
    }
    assert.equal(await ageTo(FOREIGN_DEAD_AFTER_MS - 60_000), true)
    assert.equal(await ageTo(FOREIGN_DEAD_AFTER_MS + 60_000), false)
  })

  test('nothing else in the folder is taken for remains', async (t) => {
    const { folder, file } = await place(t)
    const dead = await deadProcess()
    const others = [
      await tempNameOf('disk.img2', dead),
      await tempNameOf('other.img', dead),
      (await tempNameOf('disk.img', dead)).slice(1),
      `${await tempNameOf('disk.img', dead)}.bak`,
      'disk.img.partial',
      '.disk.img.partial',
      '.disk.img.drover-zzzzzzzz-1-1.partial',
    ]
    for (const name of others) await writeFile(join(folder, name), 'precious')
    const link = await tempNameOf('disk.img', { pid: dead.pid, start: '2' })
    await symlink('other', join(folder, link))
    const sub = await tempNameOf('disk.img', { pid: dead.pid, start: '3' })
    await mkdir(join(folder, sub))
    const writer = await openWriter(t, file)
    await writer.abort()
    assert.deepEqual((await readdir(folder)).sort(), [...others, link, sub].sort())
  })

  test('a second writer in the same process is refused and does not disturb the first', async (t) => {
    const { folder, file } = await place(t)
    const first = await openWriter(t, file, { sizeBytes: 4 })
    await first.write(Buffer.from('ours'), 0)
    await assert.rejects(openWriter(t, file), hasCode('FILE_UNWRITABLE'))
    await first.commit()
    assert.equal(await readFile(file, 'utf8'), 'ours')
    assert.deepEqual(await readdir(folder), ['disk.img'])
  })

  test('a file being written is touched, so that other machines see that it lives', async (t) => {
    const { folder, file } = await place(t)
    t.mock.timers.enable({ apis: ['setInterval'] })
    const writer = await openWriter(t, file)
    const temp = join(folder, tempNameFor('disk.img'))
    const longAgo = new Date(Date.now() - FOREIGN_DEAD_AFTER_MS)
    await utimes(temp, longAgo, longAgo)
    t.mock.timers.tick(60_000)
    const fresh = async () => (await stat(temp)).mtimeMs > Date.now() - 300_000
    await waitUntil(fresh, 'the temporary file is fresh')
    await writer.abort()
  })
})

describe('space and permission', () => {
  test('too little space for the data is told before the first byte', async (t) => {
    const mounted = await mountTmpfs(t, 'size=1m')
    if (!mounted) return
    const file = join(mounted.folder, 'disk.img')
    await assert.rejects(
      openWriter(t, file, { sizeBytes: 3 * MiB, dataBytes: 2 * MiB }),
      (error) =>
        isDroverError(error, 'NO_SPACE') &&
        error.details['neededBytes'] === 2 * MiB &&
        error.details['freeBytes'] === MiB,
    )
    assert.deepEqual(await readdir(mounted.folder), [])
  })

  test('an image larger than the disk is restored when its data fits', async (t) => {
    const mounted = await mountTmpfs(t, 'size=1m')
    if (!mounted) return
    const file = join(mounted.folder, 'disk.img')
    const writer = await openWriter(t, file, { sizeBytes: 1024 * MiB, dataBytes: 500_000 })
    await writer.write(noise(1, 500_000), 700 * MiB)
    await writer.commit()
    assert.equal((await stat(file)).size, 1024 * MiB)
  })

  test('the space that dead remains take is counted as free', async (t) => {
    const mounted = await mountTmpfs(t, 'size=1m')
    if (!mounted) return
    const dead = await tempNameOf('disk.img', await deadProcess())
    await writeFile(join(mounted.folder, dead), noise(1, 700_000))
    const file = join(mounted.folder, 'disk.img')
    const writer = await openWriter(t, file, { sizeBytes: 700_000, dataBytes: 700_000 })
    await writer.write(noise(2, 700_000), 0)
    await writer.commit()
    assert.deepEqual(await readdir(mounted.folder), ['disk.img'])
  })

  test('a disk that fills up while it is written is no space, and abort clears it', async (t) => {
    const mounted = await mountTmpfs(t, 'size=1m')
    if (!mounted) return
    const file = join(mounted.folder, 'disk.img')
    const writer = await openWriter(t, file, { sizeBytes: 3 * MiB, dataBytes: 1000 })
    await assert.rejects(writer.write(noise(1, 2 * MiB), 0), hasCode('NO_SPACE'))
    await writer.abort()
    assert.deepEqual(await readdir(mounted.folder), [])
    await writeFile(file, noise(1, 900_000))
  })

  test('a folder that is missing, a file, closed or read-only is told as such', async (t) => {
    const { folder, file } = await place(t)
    await writeFile(file, 'x')
    await assert.rejects(openWriter(t, join(folder, 'no/disk')), hasCode('FILE_UNWRITABLE'))
    await assert.rejects(openWriter(t, join(file, 'disk')), hasCode('FILE_UNWRITABLE'))
    const closed = await openFolder(t)
    await chmod(closed, 0o555)
    await asNobody(async () => {
      await assert.rejects(openWriter(t, join(closed, 'disk')), hasCode('FILE_UNWRITABLE'))
    })
    const mounted = await mountTmpfs(t, 'size=1m')
    if (!mounted) return
    await mounted.makeReadOnly()
    await assert.rejects(
      openWriter(t, join(mounted.folder, 'disk.img')),
      hasCode('FILE_UNWRITABLE'),
    )
  })

  test('a temporary file cut or removed by somebody is no reason to commit half', async (t) => {
    const { folder, file } = await place(t)
    const writer = await openWriter(t, file)
    await truncate(join(folder, tempNameFor('disk.img')), 1)
    await rename(join(folder, tempNameFor('disk.img')), join(folder, 'taken'))
    await assert.rejects(writer.commit(), hasCode('FILE_UNWRITABLE'))
    await writer.abort()
    assert.deepEqual(await readdir(folder), ['taken'])
  })
})

const hasCode = (code: ErrorCode) => (error: unknown) => isDroverError(error, code)

async function place(t: TestContext): Promise<{ folder: string; file: string }> {
  const folder = await tempFolder(t)
  return { folder, file: join(folder, 'disk.img') }
}

interface Options {
  readonly sizeBytes?: number
  readonly dataBytes?: number
  readonly force?: boolean
}

async function openWriter(t: TestContext, file: string, options: Options = {}) {
  const { sizeBytes = 1000, dataBytes = 0, force = false } = options
  const writer = await openImageWriter(file, { sizeBytes, dataBytes, force })
  t.after(() => writer.abort().catch(() => undefined))
  return writer
}

interface Process {
  readonly pid: number
  /** When it started, as the system tells it. */
  readonly start: string
}

/** What a process calls its temporary file: our own name for it with its facts put in. */
async function tempNameOf(base: string, { pid, start }: Process): Promise<string> {
  return tempNameFor(base).replace(/-\d+-\d+\.partial$/, `-${pid}-${start}.partial`)
}

async function processOf(pid: number): Promise<Process & { state: string }> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return { pid, start: fields[19] ?? '', state: fields[0] ?? '' }
}

async function deadProcess(): Promise<Process> {
  const child = spawn('sleep', ['60'])
  await once(child, 'spawn')
  const facts = await processOf(child.pid ?? 0)
  child.kill('SIGKILL')
  await once(child, 'exit')
  return facts
}

/** A process that ended and that its parent does not ask after. */
async function zombieProcess(t: TestContext): Promise<Process> {
  const parent = spawn('sh', ['-c', 'sleep 0.3 & echo $!; exec sleep 60'])
  t.after(() => endChild(parent))
  const [line] = (await once(parent.stdout, 'data')) as [Buffer]
  const pid = Number(line.toString())
  await waitUntil(async () => (await processOf(pid)).state === 'Z', 'a zombie')
  return processOf(pid)
}

/** A writer in a process of its own, which waits to be told to commit. */
async function otherWriter(t: TestContext, file: string) {
  const script = `
    const { openImageWriter } = await import(process.argv[1])
    const writer = await openImageWriter(process.argv[2], { sizeBytes: 9, dataBytes: 0, force: false })
    console.log('open')
    process.stdin.once('data', async () => {
      const outcome = await writer.commit().then(() => 'committed', (error) => error.code)
      await writer.abort()
      console.log(outcome)
      process.exit()
    })`
  const module = new URL('../../../src/image/writer.ts', import.meta.url).href
  const child = spawn(
    process.execPath,
    ['--no-warnings', '--input-type=module', '-e', script, module, file],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  )
  t.after(() => endChild(child))
  const says = async () => String(((await once(child.stdout, 'data')) as [Buffer])[0]).trim()
  assert.equal(await says(), 'open')
  return {
    pid: child.pid,
    async commit() {
      const said = says()
      child.stdin.write('go\n')
      return said
    },
    kill: () => endChild(child),
  }
}

async function endChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

/** What this process has open below a folder. */
async function openFilesBelow(folder: string): Promise<string[]> {
  const fds = await readdir('/proc/self/fd')
  const paths = await Promise.all(fds.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')))
  return paths.filter((path) => path.startsWith(folder))
}

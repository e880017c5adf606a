import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import {
  appendFile,
  chmod,
  mkdir,
  open,
  readdir,
  readlink,
  rename,
  rm,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { createServer } from 'node:net'
import { join, relative } from 'node:path'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import { openImageSource } from '../../../src/image/source.ts'
import type { ErrorCode } from '../../../src/lib/errors.ts'
import { DroverError, isDroverError } from '../../../src/lib/errors.ts'
import { BLOCK, MiB, makeImage, noise } from '../../helpers/images.ts'
import { asNobody, openFolder } from '../../helpers/privileges.ts'
import { tempFolder } from '../../helpers/temp.ts'
import { waitUntil } from '../../helpers/wait-until.ts'

const run = promisify(execFile)

describe('reading an image', () => {
  test('the bytes at any offset are those of the file, holes as zeros', async (t) => {
    const file = join(await tempFolder(t), 'disk.img')
    const [data, end] = [noise(1, 1000), noise(2, 700)]
    await makeImage(file, 64 * MiB + 700, [
      [5, data],
      [64 * MiB, end],
    ])
    const source = await openSource(t, file)
    assert.equal(source.sizeBytes, 64 * MiB + 700)
    assert.equal(source.file, file)
    const read = async (offset: number, length: number) => {
      const into = Buffer.alloc(length, 'x')
      await source.read(into, offset)
      return into
    }
    assert.ok((await read(5, 1000)).equals(data))
    assert.ok((await read(64 * MiB, 700)).equals(end))
    assert.ok((await read(32 * MiB, BLOCK)).every((byte) => byte === 0))
    assert.equal((await read(0, 0)).length, 0)
    await source.checkUnchanged()
  })

  test('a relative path and a link lead to the file', async (t) => {
    const folder = await tempFolder(t)
    const file = join(folder, 'disk.img')
    await writeFile(file, 'bytes')
    await symlink('disk.img', join(folder, 'link'))
    assert.equal((await openSource(t, relative(process.cwd(), file))).file, file)
    assert.equal((await openSource(t, join(folder, 'link'))).sizeBytes, 5)
  })

  test('an aborted read ends with the reason', async (t) => {
    const file = join(await tempFolder(t), 'disk.img')
    await writeFile(file, 'bytes')
    const source = await openSource(t, file)
    const reason = new DroverError('LOCK_LOST', 'the reason')
    const read = source.read(Buffer.alloc(5), 0, AbortSignal.abort(reason))
    await assert.rejects(read, (error) => error === reason)
  })

  test('a source that was closed, or refused, holds no file open', async (t) => {
    const folder = await tempFolder(t)
    const file = join(folder, 'disk.img')
    await writeFile(file, 'bytes')
    await writeFile(join(folder, 'empty'), '')
    const source = await openImageSource(file)
    await source.close()
    await assert.rejects(openImageSource(join(folder, 'empty')))
    await assert.rejects(openImageSource(folder))
    const fds = await readdir('/proc/self/fd')
    const paths = await Promise.all(
      fds.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
    )
    assert.deepEqual(
      paths.filter((path) => path.startsWith(folder)),
      [],
    )
  })
})

describe('an image that changes while it is read', () => {
  const changes: Record<string, (file: string) => Promise<unknown>> = {
    'grew by a byte': (file) => appendFile(file, 'x'),
    'was cut by a byte': (file) => truncate(file, 999),
    'was emptied': (file) => truncate(file, 0),
    'was written to in place': async (file) => {
      const handle = await open(file, 'r+')
      await handle.write('x', 500)
      await handle.close()
    },
    'was given another time': (file) => utimes(file, new Date(), new Date(1e12)),
    'was cut and made as long again': async (file) => {
      await truncate(file, 10)
      await truncate(file, 1000)
    },
  }
  for (const [what, change] of Object.entries(changes)) {
    test(`one that ${what} is told from one that stayed`, async (t) => {
      const file = join(await tempFolder(t), 'disk.img')
      await writeFile(file, noise(1, 1000))
      // long enough ago that any write since has another time, however coarse the clock
      await utimes(file, new Date(1.5e12), new Date(1.5e12))
      const source = await openSource(t, file)
      await source.checkUnchanged()
      await change(file)
      await assert.rejects(source.checkUnchanged(), hasCode('SOURCE_CHANGED'))
    })
  }

  test('reading past the end of one that was cut fails, and never gives short data', async (t) => {
    const file = join(await tempFolder(t), 'disk.img')
    await writeFile(file, noise(1, 10_000))
    const source = await openSource(t, file)
    await truncate(file, 5000)
    const into = Buffer.alloc(5000)
    await source.read(into, 0)
    assert.ok(into.equals(noise(1, 10_000).subarray(0, 5000)))
    for (const offset of [1, 4999, 5000, 9000]) {
      await assert.rejects(source.read(into, offset), hasCode('SOURCE_CHANGED'))
    }
  })

  test('one that was replaced or removed is read to its end as it was', async (t) => {
    const folder = await tempFolder(t)
    const file = join(folder, 'disk.img')
    await writeFile(file, 'old bytes')
    const source = await openSource(t, file)
    await writeFile(join(folder, 'new'), 'new bytes')
    await rename(join(folder, 'new'), file)
    await rm(file)
    const into = Buffer.alloc(9)
    await source.read(into, 0)
    assert.equal(into.toString(), 'old bytes')
    await source.checkUnchanged()
  })

  test('one that was only read stayed as it is', async (t) => {
    const file = join(await tempFolder(t), 'disk.img')
    await writeFile(file, noise(1, 1000))
    const source = await openSource(t, file)
    const other = await openSource(t, file)
    await other.read(Buffer.alloc(1000), 0)
    await chmod(file, 0o600)
    await source.checkUnchanged()
  })
})

describe('what is no image', () => {
  test('an absent file, a path through nothing and a link to nowhere are not found', async (t) => {
    const folder = await tempFolder(t)
    await symlink('nowhere', join(folder, 'dangling'))
    for (const name of ['missing.img', 'missing/disk.img', 'dangling']) {
      const refused = hasCode('SOURCE_NOT_FOUND')
      await assert.rejects(openImageSource(join(folder, name)), refused, name)
    }
  })

  test('an empty file is refused as empty', async (t) => {
    const file = join(await tempFolder(t), 'disk.img')
    await writeFile(file, '')
    await assert.rejects(openImageSource(file), hasCode('SOURCE_EMPTY'))
  })

  test('a folder, a path through a file and a device are unreadable', async (t) => {
    const folder = await tempFolder(t)
    await writeFile(join(folder, 'file'), 'x')
    for (const path of [folder, join(folder, 'file/disk.img'), '/dev/null', '/dev/zero']) {
      await assert.rejects(openImageSource(path), hasCode('SOURCE_UNREADABLE'), path)
    }
  })

  test('a socket is unreadable', async (t) => {
    const path = join(await tempFolder(t), 'socket')
    const server = createServer()
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(path, resolve)
    })
    t.after(() => server.close())
    await assert.rejects(openImageSource(path), hasCode('SOURCE_UNREADABLE'))
  })

  test('a named pipe is unreadable, and nobody waits for its writer', async (t) => {
    const path = join(await tempFolder(t), 'pipe')
    await run('mkfifo', [path])
    let settled: unknown
    const opening = openImageSource(path).then(
      (source) => source.close().then(() => (settled = 'opened')),
      (error: unknown) => (settled = error),
    )
    try {
      await waitUntil(() => settled !== undefined, 'the pipe is refused', 3000)
    } finally {
      // whoever waits for a writer gets one, so that the test ends
      const writer = await open(path, constants.O_RDWR | constants.O_NONBLOCK)
      await opening
      await writer.close()
    }
    assert.ok(isDroverError(settled, 'SOURCE_UNREADABLE'), String(settled))
  })

  test('a file that may not be read is unreadable', async (t) => {
    const folder = await openFolder(t)
    const file = join(folder, 'disk.img')
    await writeFile(file, 'bytes')
    await chmod(file, 0)
    await mkdir(join(folder, 'closed'))
    await writeFile(join(folder, 'closed/disk.img'), 'bytes')
    await chmod(join(folder, 'closed'), 0)
    await asNobody(async () => {
      for (const path of [file, join(folder, 'closed/disk.img')]) {
        await assert.rejects(openImageSource(path), hasCode('SOURCE_UNREADABLE'), path)
      }
    })
  })
})

const hasCode = (code: ErrorCode) => (error: unknown) => isDroverError(error, code)

async function openSource(t: TestContext, file: string) {
  const source = await openImageSource(file)
  t.after(() => source.close())
  return source
}

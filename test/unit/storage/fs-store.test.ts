/** What only the folder driver meets: links, odd files, owners, other people's hands, full disks. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chmod,
  chown,
  lstat,
  mkdir,
  readFile,
  readdir,
  readlink,
  rename,
  rm,
  rmdir,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import type { Key, RunId } from '../../../src/backupstore/layout.ts'
import {
  BLOCKS_PREFIX,
  CONFIGS_PREFIX,
  LOCKS_PREFIX,
  STAGING_PREFIX,
  STORE_PREFIX,
} from '../../../src/backupstore/layout.ts'
import type { ObjectStore, StagingArea } from '../../../src/backupstore/object-store.ts'
import { bodyOf } from '../../../src/backupstore/object-store.ts'
import type { ErrorCode } from '../../../src/lib/errors.ts'
import { DroverError, isDroverError } from '../../../src/lib/errors.ts'
import { openFsStore } from '../../../src/storage/fs/fs-store.ts'
import { noise } from '../../helpers/images.ts'
import { asNobody, isRoot, mountTmpfs, openFolder } from '../../helpers/privileges.ts'
import { filesBelow } from '../../helpers/stores.ts'
import { tempFolder } from '../../helpers/temp.ts'
import { waitUntil } from '../../helpers/wait-until.ts'

const run = promisify(execFile)

const BLOCK_KEY = `${BLOCKS_PREFIX}aa/bb/aabb${'0'.repeat(60)}.blk`
const CONFIG_KEY = `${CONFIGS_PREFIX}disk/backing-image.cfg`
const LOCK_KEY = `${LOCKS_PREFIX}lock-0123456789abcdef.lck`
const HOUR_MS = 3_600_000

describe('links in a store', () => {
  for (const key of [BLOCK_KEY, CONFIG_KEY, LOCK_KEY]) {
    for (const link of pathsDownTo(key)) {
      const where = link === key ? `the file ${shown(link)}` : `the folder ${shown(link)}`

      test(`${where} as a link to the outside is not read through`, async (t) => {
        const { target, outside } = await linked(t, link, key)
        const store = await openRun(t, target)
        await refusedOrAbsent(store.stat(key))
        await refusedOrAbsent(store.open(key))
        const buffer = Buffer.alloc(100, '.')
        await refusedOrAbsent(store.readInto(key, buffer))
        assert.equal(buffer.toString(), '.'.repeat(100))
        const prefix = `${dirname(key)}/`
        for (const below of [prefix, `${dirname(dirname(key))}/`, STORE_PREFIX]) {
          await refusedOrAbsent(listedPlain(store, below))
        }
        await outside.isUntouched()
      })

      test(`${where} as a link to the outside is not written through`, async (t) => {
        for (const [call, write] of Object.entries(writes)) {
          const { target, outside } = await linked(t, link, key)
          const store = await openRun(t, target)
          const refused = await write(store, key).then(
            () => false,
            (error: unknown) => {
              assert.ok(isDroverError(error, 'UNSAFE_PATH'), `${call}: ${String(error)}`)
              return true
            },
          )
          await store.close()
          await outside.isUntouched(call)
          if (link === key) assert.ok(!refused, `${call} deals with the link itself`)
          else if (call !== 'removeEmptyFolders') assert.ok(refused, `${call} is refused`)
        }
      })
    }
  }

  test('a put replaces a link at the final name, also one that leads nowhere', async (t) => {
    for (const to of ['existing', 'nowhere']) {
      const folder = await tempFolder(t)
      const outside = join(folder, 'existing')
      await writeFile(outside, 'canary')
      const target = join(folder, 'target')
      await mkdir(join(target, dirname(LOCK_KEY)), { recursive: true })
      await symlink(join(folder, to), join(target, LOCK_KEY))
      const store = await openRun(t, target)
      const put = await store.put(LOCK_KEY, bodyOf(Buffer.from('ours')), { durable: true })
      assert.ok(put.written)
      assert.ok((await lstat(join(target, LOCK_KEY))).isFile())
      assert.equal(await readFile(join(target, LOCK_KEY), 'utf8'), 'ours')
      assert.equal(await readFile(outside, 'utf8'), 'canary')
      assert.deepEqual((await readdir(folder)).sort(), ['existing', 'target'])
    }
  })

  for (const link of pathsDownTo(STAGING_PREFIX.slice(0, -1))) {
    test(`nothing is staged through ${shown(link)} as a link to the outside`, async (t) => {
      const { target, outside } = await linked(t, link, `${STAGING_PREFIX}keep`)
      const store = await openRun(t, target)
      await assert.rejects(store.put(BLOCK_KEY, bodyOf(noise(1, 10))), hasCode('UNSAFE_PATH'))
      await assert.rejects(stage(store, BLOCK_KEY), hasCode('UNSAFE_PATH'))
      await store.close()
      await outside.isUntouched()
    })
  }

  test('removing a link removes the link, not what it points to', async (t) => {
    const { target, outside } = await linked(t, CONFIG_KEY, CONFIG_KEY)
    const store = await openRun(t, target)
    assert.equal(await store.remove(CONFIG_KEY), true)
    await assert.rejects(lstat(join(target, CONFIG_KEY)))
    await outside.isUntouched()
  })

  test('a target reached through a link is the folder that the link named at the start', async (t) => {
    const folder = await tempFolder(t)
    const [first, second, link] = ['first', 'second', 'link'].map((name) => join(folder, name))
    assert.ok(first && second && link)
    await mkdir(first)
    await mkdir(second)
    await symlink(first, link)
    const store = await openRun(t, link)
    await store.put(CONFIG_KEY, bodyOf(Buffer.from('1')))
    await rm(link)
    await symlink(second, link)
    await store.put(LOCK_KEY, bodyOf(Buffer.from('2')))
    await store.close()
    assert.deepEqual(await filesBelow(first), [CONFIG_KEY, LOCK_KEY].sort())
    assert.deepEqual(await readdir(second), [])
  })
})

describe('what is no plain file', () => {
  const KEY = 'backupstore/odd'
  const kinds: Record<string, (path: string, t: TestContext) => Promise<unknown>> = {
    'a named pipe': (path) => run('mkfifo', [path]),
    'a socket': async (path, t) => {
      const server = createServer()
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject).listen(path, resolve)
      })
      t.after(() => server.close())
    },
    'a folder': (path) => mkdir(path),
  }
  for (const [kind, make] of Object.entries(kinds)) {
    const prepare = async (t: TestContext) => {
      const target = await tempFolder(t)
      await mkdir(join(target, STORE_PREFIX))
      await make(join(target, KEY), t)
      return { target, store: await openRun(t, target) }
    }

    test(`${kind} in place of an object is refused and not waited for`, async (t) => {
      const { store } = await prepare(t)
      await refusedOrAbsent(store.stat(KEY))
      await refusedOrAbsent(store.open(KEY))
      await refusedOrAbsent(store.readInto(KEY, Buffer.alloc(10)))
    })

    test(`${kind} among objects is no plain object in a listing`, async (t) => {
      const { store } = await prepare(t)
      await store.put(`${KEY}-not`, bodyOf(Buffer.from('x')))
      const plain = (await listedPlain(store, STORE_PREFIX)).map(({ key }) => key)
      assert.deepEqual(plain, [`${KEY}-not`])
      const all = (await listed(store, STORE_PREFIX)).map(({ key }) => key).sort()
      assert.deepEqual(all, kind === 'a folder' ? [`${KEY}-not`] : [KEY, `${KEY}-not`])
    })

    test(`${kind} in place of an object is replaced by a write, or refused`, async (t) => {
      for (const [call, write] of Object.entries(writes)) {
        if (call === 'removeEmptyFolders') continue
        const { target, store } = await prepare(t)
        await write(store, KEY).then(
          async () => {
            if (call === 'remove') return
            assert.ok((await lstat(join(target, KEY))).isFile(), `${call} wrote it`)
          },
          (error: unknown) => {
            assert.ok(isDroverError(error, 'UNSAFE_PATH'), `${call}: ${String(error)}`)
          },
        )
        await store.close()
        assert.deepEqual(await readdir(join(target, STORE_PREFIX)).then(odd), odd(['odd']))
      }
    })
  }

  test('a file in place of a folder is refused, and left alone', async (t) => {
    const target = await tempFolder(t)
    await mkdir(join(target, STORE_PREFIX))
    const path = join(target, dirname(dirname(CONFIG_KEY)).slice(0, -'/backing-images'.length))
    await writeFile(path, 'in the way')
    const store = await openRun(t, target)
    await refusedOrAbsent(store.stat(CONFIG_KEY))
    await refusedOrAbsent(store.open(CONFIG_KEY))
    await assert.rejects(store.put(CONFIG_KEY, bodyOf(noise(1, 10))), hasCode('UNSAFE_PATH'))
    await assert.rejects(stage(store, CONFIG_KEY), hasCode('UNSAFE_PATH'))
    assert.equal(await readFile(path, 'utf8'), 'in the way')
  })

  test('a name that is no text does not hide the others', async (t) => {
    const target = await tempFolder(t)
    const store = await openRun(t, target)
    await store.put('backupstore/a', bodyOf(Buffer.from('x')))
    await store.put('backupstore/z', bodyOf(Buffer.from('x')))
    const path = Buffer.concat([
      Buffer.from(join(target, 'backupstore/')),
      Buffer.from([0xff, 0xfe]),
    ])
    await writeFile(path, 'odd')
    const keys = (await listed(store, STORE_PREFIX)).map(({ key }) => key)
    assert.ok(keys.includes('backupstore/a') && keys.includes('backupstore/z'))
  })

  test('an object cut short while it is streamed is not passed off as whole', async (t) => {
    const target = await tempFolder(t)
    const store = await openRun(t, target)
    await store.put(CONFIG_KEY, bodyOf(noise(3, 1_000_000)))
    const object = await store.open(CONFIG_KEY)
    assert.ok(object)
    const drain = async () => {
      for await (const chunk of object.chunks) {
        assert.ok(chunk.length > 0)
        await truncate(join(target, CONFIG_KEY), 10)
      }
    }
    await assert.rejects(drain(), DroverError)
  })

  test('no file stays open after an object was read in part, or refused', async (t) => {
    const target = await tempFolder(t)
    const store = await openRun(t, target)
    await store.put(CONFIG_KEY, bodyOf(noise(3, 1_000_000)))
    await run('mkfifo', [join(target, 'backupstore/pipe')])
    const abort = new AbortController()
    const readOne = async (signal?: AbortSignal) => {
      const object = await store.open(CONFIG_KEY, signal ? { signal } : {})
      assert.ok(object)
      for await (const chunk of object.chunks) {
        if (!signal) break
        assert.ok(chunk.length > 0)
        abort.abort()
      }
    }
    await readOne()
    await assert.rejects(readOne(abort.signal), hasCode('INTERRUPTED'))
    await store.readInto(CONFIG_KEY, Buffer.alloc(1))
    await refusedOrAbsent(store.open('backupstore/pipe'))
    const open = await Promise.all(
      (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
    )
    assert.deepEqual(
      open.filter((path) => path.startsWith(target)),
      [],
    )
  })
})

describe('owner and mode', () => {
  const skip = isRoot ? false : 'needs root to give files away'

  for (const mode of [0o700, 0o770, 0o755]) {
    test(
      `new folders and files are like a backupstore/ of mode ${mode.toString(8)}`,
      { skip },
      async (t) => {
        const target = await tempFolder(t)
        const top = join(target, STORE_PREFIX)
        await mkdir(top)
        await chmod(top, mode)
        await chown(top, 1234, 1235)
        const store = await openRun(t, target)
        await store.put(CONFIG_KEY, bodyOf(noise(1, 10)))
        await store.put(LOCK_KEY, bodyOf(noise(1, 10)), { expect: 'absent' })
        await stage(store, BLOCK_KEY)
        await (await stagingOf(store)).add(`${BLOCK_KEY}2`, noise(1, 10))
        const entries = await readdir(target, { recursive: true, withFileTypes: true })
        assert.ok(entries.length > 15)
        for (const entry of entries) {
          const path = join(entry.parentPath, entry.name)
          const stats = await lstat(path)
          const wanted = entry.isDirectory() ? mode : mode & 0o666
          assert.equal((stats.mode & 0o777).toString(8), wanted.toString(8), path)
          assert.deepEqual([stats.uid, stats.gid], [1234, 1235], path)
        }
      },
    )
  }

  test('a store made by Drover has mode 0700 and is its own', async (t) => {
    const target = await tempFolder(t)
    await chmod(target, 0o755)
    const store = await openRun(t, target)
    await store.put(CONFIG_KEY, bodyOf(noise(1, 10)))
    for (const path of pathsDownTo(CONFIG_KEY)) {
      const stats = await lstat(join(target, path))
      assert.equal((stats.mode & 0o777).toString(8), path === CONFIG_KEY ? '600' : '700', path)
      assert.equal(stats.uid, process.geteuid?.())
    }
    assert.equal((await lstat(target)).mode & 0o777, 0o755, 'the target itself is as it was')
  })

  test('folders that were there keep their owner and mode', { skip }, async (t) => {
    const target = await tempFolder(t)
    const there = join(target, dirname(CONFIG_KEY))
    await mkdir(there, { recursive: true })
    await chmod(there, 0o711)
    await chown(there, 77, 78)
    const store = await openRun(t, target)
    await store.put(CONFIG_KEY, bodyOf(noise(1, 10)))
    const stats = await lstat(there)
    assert.deepEqual([stats.mode & 0o777, stats.uid, stats.gid], [0o711, 77, 78])
  })

  test('a run that may not give files away writes them as its own', { skip }, async (t) => {
    const target = await openFolder(t)
    await mkdir(join(target, STORE_PREFIX))
    await chmod(join(target, STORE_PREFIX), 0o777)
    await chown(join(target, STORE_PREFIX), 1234, 1235)
    await asNobody(async () => {
      const store = await openRun(t, target)
      await store.put(CONFIG_KEY, bodyOf(noise(1, 10)))
      await store.close()
    })
    assert.equal((await lstat(join(target, CONFIG_KEY))).uid, 65534)
  })
})

describe('others at work in the same folder', () => {
  test('folders removed while they are empty for a moment do not fail a write', async (t) => {
    const target = await tempFolder(t)
    const store = await openRun(t, target)
    const staging = await stagingOf(store)
    let removed = 0
    // what Longhorn does after each delete: up from the deleted object, as long as it is empty
    const removeUpwards = async (afterTurns: number) => {
      for (let n = 0; n < afterTurns; n++) await new Promise((resolve) => setImmediate(resolve))
      for (const path of pathsDownTo(BLOCK_KEY).slice(1, -1).reverse()) {
        await rmdir(join(target, path)).then(
          () => (removed += 1),
          () => undefined,
        )
      }
    }
    const disturbed = async <T>(work: () => Promise<T>, n: number): Promise<T> => {
      const [result] = await Promise.all([work(), removeUpwards(n % 23), removeUpwards(n % 40)])
      return result
    }
    for (let n = 0; n < 300; n++) {
      const body = bodyOf(Buffer.from(String(n)))
      const put = await disturbed(() => store.put(BLOCK_KEY, body, { durable: n % 3 === 0 }), n)
      assert.ok(put.written)
      await store.remove(BLOCK_KEY)
      await staging.add(BLOCK_KEY, Buffer.from(String(n)))
      const { created } = await disturbed(() => staging.publish(() => undefined), n)
      assert.deepEqual(created, [BLOCK_KEY])
      await store.remove(BLOCK_KEY)
    }
    t.diagnostic(`${removed} folders were removed meanwhile`)
  })

  test('runs that begin and end at the same time do not disturb each other', async (t) => {
    const target = await tempFolder(t)
    const life = async (n: number) => {
      for (let round = 0; round < 60; round++) {
        const store = await openFsStore(target, newRun())
        const key = `${LOCKS_PREFIX}lock-${n}.lck`
        await store.put(key, bodyOf(Buffer.from('x')))
        if (round % 20 === 0) await stage(store, `${CONFIGS_PREFIX}${n}/${round}`)
        assert.equal(await store.remove(key), true)
        await store.close()
      }
    }
    const lives = await Promise.allSettled(Array.from({ length: 5 }, (_, n) => life(n)))
    for (const each of lives) if (each.status === 'rejected') throw each.reason
    const files = await filesBelow(target)
    assert.equal(files.length, 15)
    assert.ok(files.every((path) => path.startsWith(CONFIGS_PREFIX)))
    assert.deepEqual(await readdir(join(target, STORE_PREFIX)), ['backing-images'])
  })

  test('the staging folder of a run that waits shows that it lives', async (t) => {
    const target = await tempFolder(t)
    t.mock.timers.enable({ apis: ['setInterval'] })
    const store = await openFsStore(target, 'feedfeedfeedfeed' as RunId)
    await (await stagingOf(store)).add(BLOCK_KEY, noise(1, 10))
    const folder = join(target, STAGING_PREFIX, 'feedfeedfeedfeed')
    const longAgo = new Date(Date.now() - HOUR_MS)
    const fresh = async () => {
      const files = await filesBelow(folder)
      const times = await Promise.all(files.map(async (file) => lstat(join(folder, file))))
      return times.some(({ mtimeMs }) => mtimeMs > Date.now() - HOUR_MS / 2)
    }
    for (let round = 0; round < 2; round++) {
      for (const file of await filesBelow(folder))
        await utimes(join(folder, file), longAgo, longAgo)
      assert.equal(await fresh(), false)
      t.mock.timers.tick(60_000)
      await waitUntil(fresh, 'a file in the staging folder is fresh')
    }
    await store.close()
    t.mock.timers.tick(120_000)
    assert.deepEqual(await filesBelow(target), [])
  })
})

describe('tidying', () => {
  test('remove takes the folders that it empties, but not backupstore/', async (t) => {
    const target = await tempFolder(t)
    const store = await openRun(t, target)
    await store.put(BLOCK_KEY, bodyOf(noise(1, 10)))
    await store.put(CONFIG_KEY, bodyOf(noise(1, 10)))
    await store.close()
    await store.remove(BLOCK_KEY)
    assert.deepEqual(await readdir(join(target, 'backupstore/backing-images')), ['backing-images'])
    await store.remove(CONFIG_KEY)
    assert.deepEqual(await readdir(join(target, STORE_PREFIX)), [])
  })

  test('remove leaves a folder that still holds something', async (t) => {
    const target = await tempFolder(t)
    const store = await openRun(t, target)
    await store.put(CONFIG_KEY, bodyOf(noise(1, 10)))
    await store.put(`${CONFIGS_PREFIX}disk/another`, bodyOf(noise(1, 10)))
    await store.remove(CONFIG_KEY)
    assert.deepEqual(await readdir(join(target, dirname(CONFIG_KEY))), ['another'])
  })

  const trees = async (t: TestContext) => {
    const target = await tempFolder(t)
    const store = await openRun(t, target)
    await store.put(`${CONFIGS_PREFIX}full/backing-image.cfg`, bodyOf(noise(1, 10)))
    const at = (path: string) => join(target, CONFIGS_PREFIX, path)
    for (const path of ['old', 'new', 'old-deep/b/c', 'old-with-new/fresh', 'full/old']) {
      await mkdir(at(path), { recursive: true })
    }
    await mkdir(at('with-link'))
    await symlink(target, at('with-link/link'))
    const then = new Date(Date.now() - 2 * HOUR_MS)
    const old = ['old', 'old-deep/b/c', 'old-deep/b', 'old-deep', 'full/old', 'with-link', 'full']
    for (const path of [...old, 'old-with-new']) await utimes(at(path), then, then)
    return { target, store, names: async () => (await readdir(at(''))).sort() }
  }
  const all = ['full', 'new', 'old', 'old-deep', 'old-with-new', 'with-link']

  test('empty folders of an age go, with those that are empty then', async (t) => {
    const { store, names, target } = await trees(t)
    // old, old-deep/b/c, old-deep/b, old-deep, full/old
    assert.equal(await store.removeEmptyFolders?.(CONFIGS_PREFIX, { minAgeMs: HOUR_MS }), 5)
    assert.deepEqual(await names(), ['full', 'new', 'old-with-new', 'with-link'])
    assert.deepEqual(await readdir(join(target, CONFIGS_PREFIX, 'full')), ['backing-image.cfg'])
    assert.deepEqual(await readdir(join(target, CONFIGS_PREFIX, 'with-link')), ['link'])
  })

  test('a dry run counts the same and removes nothing', async (t) => {
    const { store, names, target } = await trees(t)
    const options = { minAgeMs: HOUR_MS, dryRun: true }
    assert.equal(await store.removeEmptyFolders?.(CONFIGS_PREFIX, options), 5)
    assert.deepEqual(await names(), all)
    assert.ok((await lstat(join(target, CONFIGS_PREFIX, 'old-deep/b/c'))).isDirectory())
  })

  test('without an age all empty folders go, the prefix itself too when it is one', async (t) => {
    const { store, names, target } = await trees(t)
    assert.equal(await store.removeEmptyFolders?.(CONFIGS_PREFIX, { minAgeMs: 0 }), 8)
    assert.deepEqual(await names(), ['full', 'with-link'])
    await mkdir(join(target, LOCKS_PREFIX), { recursive: true })
    assert.equal(await store.removeEmptyFolders?.(LOCKS_PREFIX, { minAgeMs: 0 }), 1)
    await assert.rejects(lstat(join(target, LOCKS_PREFIX)))
    assert.equal(await store.removeEmptyFolders?.(LOCKS_PREFIX, { minAgeMs: 0 }), 0)
  })

  test('the age of a folder is told by the clock of the file system, not by ours', async (t) => {
    const { store, names } = await trees(t)
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 24 * HOUR_MS })
    assert.equal(await store.removeEmptyFolders?.(CONFIGS_PREFIX, { minAgeMs: HOUR_MS }), 5)
    assert.ok((await names()).includes('new'), 'made just now')
  })

  test('an aborted tidying stops with the reason', async (t) => {
    const { store, names } = await trees(t)
    const reason = new DroverError('LOCK_LOST', 'the reason')
    const tidy = store.removeEmptyFolders?.(CONFIGS_PREFIX, {
      minAgeMs: 0,
      signal: AbortSignal.abort(reason),
    })
    await assert.rejects(Promise.resolve(tidy), (error) => error === reason)
    assert.deepEqual(await names(), all)
  })
})

describe('the folder of a target', () => {
  test('one that does not exist, or is no folder, is not found', async (t) => {
    const folder = await tempFolder(t)
    await writeFile(join(folder, 'file'), 'x')
    await symlink(join(folder, 'nowhere'), join(folder, 'dangling'))
    for (const name of ['missing', 'missing/deeper', 'file', 'file/deeper', 'dangling']) {
      const open = openFsStore(join(folder, name), newRun())
      await assert.rejects(open, hasCode('TARGET_NOT_FOUND'), name)
    }
    assert.deepEqual((await readdir(folder)).sort(), ['dangling', 'file'])
  })

  test('one that is not ours to enter is forbidden', async (t) => {
    const folder = await openFolder(t)
    await mkdir(join(folder, 'closed/inner'), { recursive: true })
    await chmod(join(folder, 'closed'), 0)
    await asNobody(async () => {
      const open = openFsStore(join(folder, 'closed/inner'), newRun())
      await assert.rejects(open, hasCode('TARGET_FORBIDDEN'))
    })
  })

  for (const then of ['another stands there', 'nothing stands there', 'a file stands there']) {
    test(`moved away so that ${then}, it is unreachable for every call`, async (t) => {
      const target = join(await tempFolder(t), 'target')
      await mkdir(target)
      const store = await openRun(t, target)
      await store.put(CONFIG_KEY, bodyOf(noise(1, 10)))
      await rename(target, `${target}-away`)
      if (then.startsWith('another')) await mkdir(target)
      if (then.startsWith('a file')) await writeFile(target, '')
      const unreachable = hasCode('TARGET_UNREACHABLE')
      await assert.rejects(listed(store, STORE_PREFIX), unreachable, 'list')
      for (const [call, write] of Object.entries(writes)) {
        await assert.rejects(write(store, CONFIG_KEY), unreachable, call)
      }
      await assert.rejects(store.stat(CONFIG_KEY), unreachable, 'stat')
      await assert.rejects(store.open(CONFIG_KEY), unreachable, 'open')
      await assert.rejects(store.readInto(CONFIG_KEY, Buffer.alloc(9)), unreachable, 'readInto')
      if (then.startsWith('another')) assert.deepEqual(await readdir(target), [])
    })
  }

  test('a folder that may not be written is forbidden to writes and open to reads', async (t) => {
    const target = await openFolder(t)
    const first = await openRun(t, target)
    for (const key of [CONFIG_KEY, BLOCK_KEY]) await first.put(key, bodyOf(Buffer.from('x')))
    await first.close()
    await run('chmod', ['-R', 'a+rX,a-w', target])
    await asNobody(async () => {
      const store = await openRun(t, target)
      assert.equal(await store.readInto(CONFIG_KEY, Buffer.alloc(9)), 1)
      assert.equal((await listed(store, STORE_PREFIX)).length, 2)
      for (const [call, write] of Object.entries(writes)) {
        if (call === 'removeEmptyFolders') continue
        await assert.rejects(write(store, CONFIG_KEY), hasCode('TARGET_FORBIDDEN'), call)
      }
      await store.close()
    })
  })

  test('what may not be read is forbidden, and never absent', async (t) => {
    const target = await openFolder(t)
    const owner = await openRun(t, target)
    for (const key of [CONFIG_KEY, BLOCK_KEY]) await owner.put(key, bodyOf(Buffer.from('x')))
    await owner.close()
    await run('chmod', ['-R', 'a+rwX', target])
    await chmod(join(target, CONFIG_KEY), 0)
    const closed = join(target, BLOCKS_PREFIX, 'aa')
    await chmod(closed, 0)
    const forbidden = hasCode('TARGET_FORBIDDEN')
    await asNobody(async () => {
      const store = await openRun(t, target)
      await assert.rejects(store.open(CONFIG_KEY), forbidden)
      await assert.rejects(store.readInto(CONFIG_KEY, Buffer.alloc(9)), forbidden)
      await assert.rejects(store.stat(BLOCK_KEY), forbidden)
      await assert.rejects(store.remove(BLOCK_KEY), forbidden)
      await assert.rejects(listed(store, BLOCKS_PREFIX), forbidden)
      await assert.rejects(listed(store, STORE_PREFIX), forbidden)
    })
  })

  test('a listing that cannot enter one folder fails as a whole', async (t) => {
    const target = await tempFolder(t)
    const store = await openRun(t, target)
    for (let n = 0; n < 20; n++) await store.put(`${BLOCKS_PREFIX}${n}/x`, bodyOf(noise(1, 1)))
    // deeper than a path can be long: a folder that is there and cannot be read
    const deep = `for (let n = 0; n < 20; n++) {
      fs.mkdirSync('d'.repeat(250))
      process.chdir('d'.repeat(250))
    }`
    const top = join(target, BLOCKS_PREFIX, '9')
    await run(process.execPath, ['-e', deep], { cwd: top })
    try {
      await assert.rejects(listed(store, STORE_PREFIX), DroverError)
    } finally {
      await run('rm', ['-rf', top])
    }
    assert.equal((await listed(store, STORE_PREFIX)).length, 19)
  })

  test('a read-only file system is told from a forbidden one', async (t) => {
    const mounted = await mountTmpfs(t, 'size=4m,mode=0755')
    if (!mounted) return
    const first = await openRun(t, mounted.folder)
    for (const key of [CONFIG_KEY, BLOCK_KEY]) await first.put(key, bodyOf(Buffer.from('x')))
    await first.close()
    await mounted.makeReadOnly()
    const store = await openRun(t, mounted.folder)
    assert.equal(await store.readInto(CONFIG_KEY, Buffer.alloc(9)), 1)
    assert.equal((await listed(store, STORE_PREFIX)).length, 2)
    for (const [call, write] of Object.entries(writes)) {
      if (call === 'removeEmptyFolders') continue
      await assert.rejects(write(store, CONFIG_KEY), hasCode('TARGET_READ_ONLY'), call)
    }
    assert.equal(await store.readInto(CONFIG_KEY, Buffer.alloc(9)), 1)
  })

  test('a full file system is no space, and nothing half stays', async (t) => {
    const mounted = await mountTmpfs(t, 'size=1m')
    if (!mounted) return
    const store = await openRun(t, mounted.folder)
    await store.put(CONFIG_KEY, bodyOf(Buffer.from('old')))
    const large = noise(1, 2_000_000)
    for (const [call, write] of Object.entries(writesOf(large))) {
      if (!call.includes('put') && call !== 'staging') continue
      for (const key of [CONFIG_KEY, BLOCK_KEY]) {
        if (call.includes('absent') && key === CONFIG_KEY) continue
        await assert.rejects(write(store, key), hasCode('NO_SPACE'), `${call} ${key}`)
      }
    }
    assert.deepEqual(await filesBelow(mounted.folder), [CONFIG_KEY])
    assert.equal(await readFile(join(mounted.folder, CONFIG_KEY), 'utf8'), 'old')
    const small = await store.put(BLOCK_KEY, bodyOf(noise(1, 500_000)))
    assert.ok(small.written, 'the space was given back')
  })

  test('a file system without room for names is no space too', async (t) => {
    const mounted = await mountTmpfs(t, 'size=4m,nr_inodes=6')
    if (!mounted) return
    const store = await openRun(t, mounted.folder)
    await assert.rejects(store.put(BLOCK_KEY, bodyOf(noise(1, 10))), hasCode('NO_SPACE'))
    await store.close()
    assert.deepEqual(await filesBelow(mounted.folder), [])
  })
})

type Write = (store: ObjectStore, key: Key) => Promise<unknown>

/** Everything that changes a store, by name. */
function writesOf(bytes: Buffer): Record<string, Write> {
  return {
    put: (store, key) => store.put(key, bodyOf(bytes)),
    'durable put': (store, key) => store.put(key, bodyOf(bytes), { durable: true }),
    'put if absent': (store, key) => store.put(key, bodyOf(bytes), { expect: 'absent' }),
    staging: (store, key) => stage(store, key, bytes),
    remove: (store, key) => store.remove(key),
    removeEmptyFolders: async (store, key) =>
      store.removeEmptyFolders?.(`${dirname(key)}/`, { minAgeMs: 0 }),
  }
}
const writes = writesOf(Buffer.from('ours'))

const newRun = (): RunId => randomBytes(8).toString('hex') as RunId

async function openRun(t: TestContext, target: string): Promise<ObjectStore> {
  const store = await openFsStore(target, newRun())
  t.after(() => store.close().catch(() => undefined))
  return store
}

async function stagingOf(store: ObjectStore): Promise<StagingArea> {
  const staging = await store.openStaging?.()
  assert.ok(staging)
  return staging
}

async function stage(store: ObjectStore, key: Key, bytes?: Buffer): Promise<void> {
  const staging = await stagingOf(store)
  await staging.add(key, bytes ?? Buffer.from('ours'))
  await staging.publish(() => undefined)
}

/** `a`, `a/b`, `a/b/c` for `a/b/c`. */
function pathsDownTo(key: Key): string[] {
  const segments = key.split('/')
  return segments.map((_, n) => segments.slice(0, n + 1).join('/'))
}

function shown(path: string): string {
  return path.replace(/[0-9a-f]{40,}/, '…')
}

/** Names in backupstore/ but for the driver's own folder, which may stand while it is open. */
const odd = (names: string[]) => names.filter((name) => name !== 'odd')

/**
 * A target whose folders are real down to `link`, which points to the same place in a complete
 * store outside.
 */
async function linked(t: TestContext, link: string, key: Key) {
  const folder = await tempFolder(t)
  const outside = join(folder, 'outside')
  const target = join(folder, 'target')
  for (const each of [BLOCK_KEY, CONFIG_KEY, LOCK_KEY, `${STAGING_PREFIX}keep`, key]) {
    await mkdir(dirname(join(outside, each)), { recursive: true })
    await writeFile(join(outside, each), `canary ${each}`)
  }
  await mkdir(dirname(join(target, link)), { recursive: true })
  await symlink(join(outside, link), join(target, link))
  const before = await snapshot(outside)
  return {
    target,
    outside: {
      async isUntouched(what = 'outside') {
        const now = await snapshot(outside)
        const changed = now.filter((line) => !before.includes(line))
        const gone = before.filter((line) => !now.includes(line))
        assert.deepEqual([...gone, ...changed], [], `${what} changed something outside`)
      },
    },
  }
}

async function snapshot(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const lines = entries.map(async (entry) => {
    const path = join(entry.parentPath, entry.name)
    const { mode, uid, mtimeNs } = await lstat(path, { bigint: true })
    const content = entry.isFile() ? await readFile(path, 'utf8') : ''
    return [path.slice(folder.length + 1), mode, uid, mtimeNs, content].join(' ')
  })
  return Promise.all(lines)
}

async function listed(store: ObjectStore, prefix: Key) {
  const all = []
  for await (const page of store.list(prefix)) all.push(...page)
  return all
}

/** Without what the listing says is no plain object. */
const listedPlain = async (store: ObjectStore, prefix: Key) =>
  (await listed(store, prefix)).filter(({ notPlain }) => !notPlain)

const hasCode = (code: ErrorCode) => (error: unknown) => isDroverError(error, code)

/** Settles when a call was refused as unsafe, or found nothing. */
async function refusedOrAbsent(call: Promise<unknown>): Promise<void> {
  try {
    const found = await call
    if (found !== undefined) assert.deepEqual(found, [])
  } catch (error) {
    assert.ok(isDroverError(error, 'UNSAFE_PATH'), String(error))
  }
}

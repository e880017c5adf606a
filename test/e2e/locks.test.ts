/** Locks, placeholders and ages: who may do what beside whom. */
import assert from 'node:assert/strict'
import {
  cp,
  mkdir,
  readFile,
  rename,
  rm,
  rmdir,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { TestContext } from 'node:test'
import { after, before, describe, it } from 'node:test'
import { droverJson, startDrover } from '../helpers/drover.ts'
import { BLOCK, makeImage, sha512, text } from '../helpers/images.ts'
import { mountTmpfs } from '../helpers/privileges.ts'
import { age, blockFiles, filesBelow } from '../helpers/stores.ts'
import { waitUntil } from '../helpers/wait-until.ts'
import type { HandLock, Workspace } from '../helpers/workspace.ts'
import {
  CONFIGS,
  LOCKS,
  ageFile,
  assertTidy,
  backUp,
  blockPath,
  configPath,
  fails,
  foldersBelow,
  lockFiles,
  openWorkspace,
  placeholder,
  readConfig,
  runJson,
  snapshot,
  writeConfig,
  writeLock,
} from '../helpers/workspace.ts'

/** A store with two backups that share a block, made once; each test works on a copy. */
let kept: Workspace
const leave: Array<() => unknown> = []
before(async () => {
  kept = await openWorkspace({ after: (fn) => void leave.push(() => (fn as () => unknown)()) })
  await makeImage(kept.path('disk.raw'), 3 * BLOCK, [[0, text(1, 2 * BLOCK)]])
  await makeImage(kept.path('other.raw'), 2 * BLOCK, [
    [0, text(1, BLOCK)],
    [BLOCK, text(2, BLOCK)],
  ])
  await Promise.all([backUp(kept, kept.path('disk.raw')), backUp(kept, kept.path('other.raw'))])
})
after(async () => {
  for (const step of leave) await step()
})

interface Bench extends Workspace {
  readonly image: string
  /** The last argument of commands that are not to wait. */
  readonly backup: (name: string, ...more: string[]) => string[]
}

async function copyOfStore(t: TestContext): Promise<Bench> {
  const space = await openWorkspace(t)
  await cp(kept.store, space.store, { recursive: true, preserveTimestamps: true })
  const image = kept.path('disk.raw')
  const backup = (name: string, ...more: string[]) => [
    'backup',
    image,
    '--target',
    space.target,
    '--name',
    name,
    ...more,
  ]
  return { ...space, image, backup }
}

const AT_ONCE = ['--lock-timeout', '0s']

async function restores({ url, path, image }: Bench, name = 'disk'): Promise<void> {
  const file = path(`${name}.restored`)
  await droverJson('restore', url(name), file, '--force')
  if (name === 'disk') assert.equal(await sha512(file), await sha512(image))
}

/** Starts a command and gives access to what it says while it runs. */
function start(t: TestContext, args: readonly string[]) {
  const running = startDrover([...args, '--json'])
  t.after(() => running.child.kill('SIGKILL'))
  let said = ''
  running.child.stderr?.on('data', (text: string) => (said += text))
  return { ...running, said: () => said }
}

describe("somebody else's lock", { concurrency: 4 }, () => {
  it('of a deletion keeps a backup out, which names it and changes nothing', async (t) => {
    const { store, backup } = await copyOfStore(t)
    const lock = await writeLock(store, { type: 2, ageSeconds: 20 })
    const before = await snapshot(store)
    const { message, details } = await fails(1, 'STORE_BUSY', backup('new', ...AT_ONCE))
    assert.equal(details['holder'], basename(lock, '.lck'))
    assert.equal(details['type'], 'deletion')
    assert.ok(details['ageMs'] >= 20_000 && details['ageMs'] < 150_000)
    assert.match(message, /lock-0123456789abcdef \(a deletion\) is \d\d+ s old/)
    assert.deepEqual(await snapshot(store), before)
  })

  it('of a backup keeps deletions out, which name it and change nothing', async (t) => {
    const { store, url, target } = await copyOfStore(t)
    await writeLock(store, { type: 1 })
    const before = await snapshot(store)
    const errors = await Promise.all([
      fails(1, 'STORE_BUSY', ['delete', url('disk'), '--min-age=0s', ...AT_ONCE]),
      fails(1, 'STORE_BUSY', ['gc', '--target', target, '--min-age=0s', ...AT_ONCE]),
      fails(1, 'STORE_BUSY', ['gc', '--target', target, '--dry-run', ...AT_ONCE]),
    ])
    for (const { message, details } of errors) {
      assert.deepEqual([details['holder'], details['type']], ['lock-0123456789abcdef', 'shared'])
      assert.match(message, /a backup or restore/)
    }
    assert.deepEqual(await snapshot(store), before)
  })

  it('of the same kind keeps nobody out', async (t) => {
    const shared = await copyOfStore(t)
    const deleting = await copyOfStore(t)
    await writeLock(shared.store, { type: 1 })
    await writeLock(deleting.store, { type: 2 })
    await Promise.all([
      droverJson(...shared.backup('new', ...AT_ONCE)),
      droverJson('delete', deleting.url('disk'), ...AT_ONCE),
    ])
    assert.equal((await lockFiles(shared.store)).length, 1)
    assert.equal((await lockFiles(deleting.store)).length, 1)
  })

  const keepOut: Record<string, HandLock> = {
    'that is acquired': { acquired: true },
    'that is not acquired, but older': { acquired: false, ageSeconds: 5 },
    'that was acquired later': { acquired: true, ageSeconds: -30 },
    'that is 140 s old': { acquired: true, ageSeconds: 140 },
    'that is empty': { raw: '' },
    'that is garbage': { raw: '\u0000\u0001 not json' },
    'that is cut off': { raw: '{"Name":"lock-0123456789abcdef","Ty' },
    'of an unknown type': { raw: '{"Name":"lock-0123456789abcdef","Type":3,"Acquired":true}' },
    'that is huge': { raw: `{"Type":1,"Acquired":true,"x":"${'x'.repeat(200_000)}"}` },
    'that is null': { raw: 'null' },
  }
  for (const [what, lock] of Object.entries(keepOut)) {
    it(`keeps out when it is one ${what}`, async (t) => {
      const { store, url, backup } = await copyOfStore(t)
      await writeLock(store, { type: 2, ...lock })
      const runs = [fails(1, 'STORE_BUSY', backup('new', ...AT_ONCE))]
      // what cannot be read counts as the other kind for everybody
      if (lock.raw !== undefined) {
        runs.push(fails(1, 'STORE_BUSY', ['delete', url('disk'), ...AT_ONCE]))
      }
      const errors = await Promise.all(runs)
      for (const { details } of errors) assert.equal(details['holder'], 'lock-0123456789abcdef')
      assert.deepEqual(
        (await lockFiles(store)).map((path) => basename(path)),
        ['lock-0123456789abcdef.lck'],
      )
    })
  }

  const letIn: Record<string, HandLock> = {
    'that expired': { acquired: true, ageSeconds: 151 },
    'that expired and cannot be read': { raw: 'garbage', ageSeconds: 151 },
    'that is neither acquired nor older': { acquired: false, ageSeconds: -60 },
  }
  for (const [what, lock] of Object.entries(letIn)) {
    it(`lets in when it is one ${what}`, async (t) => {
      const { store, url, backup } = await copyOfStore(t)
      const path = await writeLock(store, { type: 2, ...lock })
      await droverJson(...backup('new', ...AT_ONCE))
      assert.deepEqual(
        (await lockFiles(store)).map((file) => join(store, file)),
        [path],
        "another's lock is not ours to remove",
      )
      await rm(path)
      await writeLock(store, { ...lock, type: 1 })
      await droverJson('delete', url('disk'), ...AT_ONCE)
    })
  }

  it('is no matter for what can be proven without one', async (t) => {
    const bench = await copyOfStore(t)
    const { store, url } = bench
    const path = await writeLock(store, { type: 2 })
    await Promise.all([
      restores(bench),
      droverJson('verify', url('disk'), ...AT_ONCE),
      droverJson('verify', url('disk'), '--level', 'exists', ...AT_ONCE),
      droverJson('inspect', url('disk')),
    ])
    assert.deepEqual(
      (await lockFiles(store)).map((file) => join(store, file)),
      [path],
    )
  })

  it('of a deletion keeps back a bad verdict, which could be its doing', async (t) => {
    const { store, url, path } = await copyOfStore(t)
    const { Blocks = [] } = await readConfig(store, 'disk')
    await rm(blockPath(store, Blocks[1]?.BlockChecksum ?? ''))
    const lock = await writeLock(store, { type: 2 })
    await Promise.all([
      fails(1, 'STORE_BUSY', ['restore', url('disk'), path('out'), ...AT_ONCE]),
      fails(1, 'STORE_BUSY', ['verify', url('disk'), ...AT_ONCE]),
      fails(1, 'STORE_BUSY', ['verify', url('disk'), '--level=exists', ...AT_ONCE]),
      fails(1, 'STORE_BUSY', ['restore', url('none'), path('out'), ...AT_ONCE]),
    ])
    await assert.rejects(readFile(path('out')))
    await rm(lock)
    await Promise.all([
      fails(3, 'BLOCK_MISSING', ['restore', url('disk'), path('out'), ...AT_ONCE]),
      fails(3, 'BACKUP_NOT_FOUND', ['restore', url('none'), path('out'), ...AT_ONCE]),
    ])
  })

  it('is waited for, and named meanwhile', async (t) => {
    const bench = await copyOfStore(t)
    const { store, backup, url } = bench
    const lock = await writeLock(store, { type: 2 })
    const running = start(t, backup('new', '--lock-timeout', '60s'))
    await waitUntil(() => running.said().includes('waiting for lock-'), 'it waits')
    assert.match(running.said(), /waiting for lock-0123456789abcdef \(a deletion, [\d.]+m?s old\)/)
    const [before] = await lockFiles(store)
    assert.equal(join(store, before ?? ''), lock, 'no lock of its own while it waits')
    assert.equal((await filesBelow(join(store, CONFIGS))).length, 2)
    await rm(lock)
    const { code, stderr } = await running.done
    assert.equal(code, 0, stderr)
    await assertTidy(store)
    assert.equal((await droverJson('verify', url('new'))).ok, true)
  })

  it('is waited for no longer than asked', async (t) => {
    const { store, url } = await copyOfStore(t)
    await writeLock(store, { type: 1 })
    const { message } = await fails(1, 'STORE_BUSY', ['delete', url('disk'), '--lock-timeout=3s'])
    assert.match(message, /lock-0123456789abcdef/)
  })
})

describe('a lock of Drover', { concurrency: 4 }, () => {
  it('is seen while it works, says what it is, and is gone afterwards', async (t) => {
    const { store, target, path } = await openWorkspace(t)
    const image = path('large.raw')
    await makeImage(image, 3 * 1024 ** 3, [[0, text(1, BLOCK)]])
    const running = start(t, ['backup', image, '--target', target])
    const readLock = async () => {
      const [file] = await lockFiles(store)
      const bytes = file && (await readFile(join(store, file), 'utf8').catch(() => ''))
      return file && bytes ? { file, ...JSON.parse(bytes) } : undefined
    }
    await waitUntil(async () => (await readLock()) !== undefined, 'a lock')
    const { file, Name, Type, Acquired } = await readLock()
    assert.match(file, new RegExp(`^${LOCKS}/lock-[0-9a-f]{16}\\.lck$`))
    assert.deepEqual([Name, Type, Acquired], [basename(file, '.lck'), 1, false])
    assert.deepEqual(await blockFiles(store), [], 'nothing is published without it')
    await waitUntil(async () => (await readLock())?.Acquired === true, 'an acquired lock')
    assert.equal((await readLock()).file, file)
    running.child.kill('SIGINT')
    const { code, stderr } = await running.done
    assert.equal(code, 130, stderr)
    assert.deepEqual(await lockFiles(store), [])
  })

  it('of a deletion is one of type 2', async (t) => {
    const { store, url } = await copyOfStore(t)
    const running = start(t, ['delete', url('disk')])
    await waitUntil(async () => (await lockFiles(store)).length > 0, 'a lock')
    const [file = ''] = await lockFiles(store)
    assert.equal(JSON.parse(await readFile(join(store, file), 'utf8')).Type, 2)
    assert.equal((await running.done).code, 0)
    assert.deepEqual(await lockFiles(store), [])
  })

  it('that somebody removes ends the run that it was for', async (t) => {
    const { store, url } = await copyOfStore(t)
    const running = start(t, ['delete', url('disk'), ...AT_ONCE])
    await waitUntil(async () => (await lockFiles(store)).length > 0, 'a lock')
    // while it settles: a lock that nobody could see protects nothing
    const [file = ''] = await lockFiles(store)
    await rm(join(store, file))
    const { code } = await running.done
    assert.equal(code, 1)
    assert.equal((await droverJson('verify', url('disk'))).ok, true)
  })

  it('stands beside many others of its kind, from the first in an empty store to the last', async (t) => {
    const space = await openWorkspace(t)
    const names = Array.from({ length: 8 }, (_, n) => `backup-${n}`)
    const missing = Array.from({ length: 8 }, (_, n) => space.url(`none-${n}`))
    const images = names.map((_, n) => space.path(`image-${n}.raw`))
    for (const [n, image] of images.entries()) {
      await makeImage(image, BLOCK + 512, [[0, text(n % 3, BLOCK + 512)]])
    }
    // those that find nothing end first, and tidy up behind themselves
    await Promise.all([
      ...images.map((image, n) => backUp(space, image, '--name', names[n] ?? '')),
      ...missing.map((url) => fails(3, 'BACKUP_NOT_FOUND', ['verify', url])),
    ])
    const { backups } = await droverJson('list', '--target', space.target)
    assert.deepEqual(
      backups.map(({ name }: { name: string }) => name),
      names,
    )
    assert.equal((await blockFiles(space.store)).length, 6)
    await assertTidy(space.store)
  })

  it('can be taken while others keep removing the empty folders that it needs', async (t) => {
    const space = await openWorkspace(t)
    await makeImage(space.path('disk.raw'), BLOCK, [[0, text(1, BLOCK)]])
    const parents = [
      LOCKS,
      CONFIGS,
      'backupstore/drover/staging',
      'backupstore/backing-images/blocks',
    ]
    const over = new AbortController()
    const removing = (async () => {
      while (!over.signal.aborted) {
        for (const parent of parents) {
          for (let at = parent; at !== 'backupstore'; at = dirname(at)) {
            await rmdir(join(space.store, at)).catch(() => undefined)
          }
        }
        await new Promise((resolve) => setTimeout(resolve, 1))
      }
    })()
    try {
      for (let round = 0; round < 3; round++) {
        await Promise.all([
          backUp(space, space.path('disk.raw'), '--name', `round-${round}`),
          fails(3, 'BACKUP_NOT_FOUND', ['verify', space.url('none')]),
        ])
      }
    } finally {
      over.abort()
      await removing
    }
  })

  it('is not taken with --no-lock, which says so and works where nothing can be written', async (t) => {
    const mounted = await mountTmpfs(t, 'size=32m')
    if (!mounted) return
    await cp(kept.store, mounted.folder, { recursive: true })
    const { Blocks = [] } = await readConfig(mounted.folder, 'other')
    await rm(blockPath(mounted.folder, Blocks[1]?.BlockChecksum ?? ''))
    await mounted.makeReadOnly()
    const { path } = await openWorkspace(t)
    const url = (name: string) => `vfs://${mounted.folder}?backingImage=${name}`

    const good = await runJson(['restore', url('disk'), path('disk.raw'), '--no-lock', '--quiet'])
    assert.equal(good.code, 0, good.stderr)
    assert.match(good.stderr, /^warning: no lock is taken/m)
    assert.equal(await sha512(path('disk.raw')), await sha512(kept.path('disk.raw')))
    const bad = await runJson(['verify', url('other'), '--no-lock'])
    assert.equal(bad.code, 3)
    assert.equal(bad.document.missing.length, 1)
    await fails(3, 'BLOCK_MISSING', ['restore', url('other'), path('out'), '--no-lock'])
    await fails(3, 'BACKUP_NOT_FOUND', ['verify', url('none'), '--no-lock'])
    // reading needs no way to write; what is to be written says that there is none
    await droverJson('list', '--target', `vfs://${mounted.folder}`)
    await droverJson('inspect', url('disk'))
    await fails(1, 'TARGET_READ_ONLY', ['delete', url('disk')])
    const target = `vfs://${mounted.folder}`
    await fails(1, 'TARGET_READ_ONLY', ['backup', kept.path('disk.raw'), '--target', target])
  })

  it('is not needed for a good result where none can be taken', async (t) => {
    const bench = await copyOfStore(t)
    // a file stands where the folder of locks belongs
    await writeFile(join(bench.store, 'backupstore/volumes'), '')
    await Promise.all([
      restores(bench),
      droverJson('verify', bench.url('disk')),
      runJson(['delete', bench.url('disk')]).then(({ code }) => assert.notEqual(code, 0)),
      runJson(bench.backup('new')).then(({ code }) => assert.notEqual(code, 0)),
    ])
    assert.equal((await filesBelow(join(bench.store, CONFIGS))).length, 2)
  })

  it('does not follow a link that stands for the folder of locks', async (t) => {
    const { store, backup, path } = await copyOfStore(t)
    await mkdir(path('outside'))
    await symlink(path('outside'), join(store, 'backupstore/volumes'))
    const { code } = await runJson(backup('new'))
    assert.equal(code, 3)
    assert.deepEqual(await foldersBelow(path('outside')), [])
  })
})

describe('a placeholder', { concurrency: 4 }, () => {
  const withPlaceholder = async (t: TestContext, ageSeconds: number) => {
    const bench = await copyOfStore(t)
    await writeConfig(bench.store, 'begun', placeholder('begun'))
    await ageFile(configPath(bench.store, 'begun'), ageSeconds)
    return bench
  }
  const isThere = async (store: string) =>
    (await readConfig(store, 'begun').catch(() => undefined)) !== undefined

  it('that is young is a backup in progress, for everybody', async (t) => {
    const { store, url, target, backup } = await withPlaceholder(t, 100)
    const blocks = await blockFiles(store)
    const [error, gone] = await Promise.all([
      fails(1, 'BACKUP_IN_PROGRESS', backup('begun')),
      fails(1, 'BACKUP_IN_PROGRESS', backup('begun', '--replace')),
    ])
    for (const { details } of [error, gone]) {
      assert.deepEqual(details, { name: 'begun', createdAt: '2026-01-31T03:00:00Z' })
    }
    await Promise.all([
      fails(1, 'BACKUP_IN_PROGRESS', ['delete', url('begun')]),
      fails(1, 'BACKUP_IN_PROGRESS', ['gc', '--target', target, '--min-age', '0s']),
    ])
    assert.equal(await isThere(store), true)
    assert.equal((await readConfig(store, 'begun')).CompleteTime, '')
    assert.deepEqual(await blockFiles(store), blocks)
  })

  it('that is dead gives its name to a backup', async (t) => {
    const bench = await withPlaceholder(t, 151)
    const { outcome } = await droverJson(...bench.backup('begun'))
    assert.equal(outcome, 'created')
    assert.equal((await droverJson('verify', bench.url('begun'))).ok, true)
    await assertTidy(bench.store)
  })

  it('that is old may live as long as any other backup does', async (t) => {
    const { store, backup } = await withPlaceholder(t, 1000)
    await writeLock(store, { type: 1 })
    await fails(1, 'BACKUP_IN_PROGRESS', backup('begun'))
    assert.equal((await readConfig(store, 'begun')).CompleteTime, '')
  })

  it('that is old is dead when the lock of its writer expired, too', async (t) => {
    const { store, backup } = await withPlaceholder(t, 1000)
    await writeLock(store, { type: 1, ageSeconds: 151 })
    assert.equal((await droverJson(...backup('begun'))).outcome, 'created')
  })

  it('that changes while it is watched is alive, whatever its age says', async (t) => {
    const { store, backup } = await withPlaceholder(t, 1000)
    const running = start(t, backup('begun'))
    await waitUntil(async () => (await lockFiles(store)).length > 0, 'it watches')
    await writeConfig(store, 'begun', { ...placeholder('begun'), Size: '4194304' })
    await ageFile(configPath(store, 'begun'), 900)
    const { code, stdout } = await running.done
    assert.deepEqual([code, JSON.parse(stdout).error?.code], [1, 'BACKUP_IN_PROGRESS'])
    assert.equal((await readConfig(store, 'begun')).Size, '4194304')
  })

  it('that appears while a backup of its name is at work stops that', async (t) => {
    const { store, backup } = await copyOfStore(t)
    const running = start(t, backup('begun'))
    await waitUntil(async () => (await lockFiles(store)).length > 0, 'it has begun')
    await writeConfig(store, 'begun', placeholder('begun'))
    const { code, stdout } = await running.done
    assert.deepEqual([code, JSON.parse(stdout).error?.code], [1, 'BACKUP_IN_PROGRESS'])
    assert.equal((await readConfig(store, 'begun')).CompleteTime, '')
  })

  it('that is dead can be deleted, folder and all', async (t) => {
    const { store, url } = await withPlaceholder(t, 151)
    const blocks = await blockFiles(store)
    const { removedBlocks } = await droverJson('delete', url('begun'), '--min-age', '0s')
    assert.equal(removedBlocks, 0)
    assert.equal(await isThere(store), false)
    assert.ok(!(await foldersBelow(join(store, CONFIGS))).includes('begun'))
    assert.deepEqual(await blockFiles(store), blocks)
  })

  it('that is dead is garbage', async (t) => {
    const { store, target } = await withPlaceholder(t, 151)
    await droverJson('gc', '--target', target, '--dry-run')
    assert.equal(await isThere(store), true)
    await droverJson('gc', '--target', target)
    assert.ok(!(await foldersBelow(join(store, CONFIGS))).includes('begun'))
    assert.equal((await filesBelow(join(store, CONFIGS))).length, 2)
  })
})

describe('deleting and collecting', { concurrency: 4 }, () => {
  it('removes a backup, its folder, and those of its blocks that nobody else needs', async (t) => {
    const bench = await copyOfStore(t)
    const { store, url, target } = bench
    const { removedBlocks, freedBytes } = await droverJson('delete', url('other'), '--min-age=0s')
    assert.equal(removedBlocks, 1)
    assert.ok(freedBytes > 0)
    assert.equal((await blockFiles(store)).length, 2)
    const { backups } = await droverJson('list', '--target', target)
    assert.equal(backups.length, 1)
    await restores(bench)
    await droverJson('delete', url('disk'), '--min-age=0s')
    assert.deepEqual(await filesBelow(store), [])
    assert.deepEqual(
      (await foldersBelow(store)).filter((path) => path.startsWith(`${CONFIGS}/`)),
      [],
    )
  })

  it('leaves young blocks alone for an hour, unless told otherwise', async (t) => {
    const { store, url, target } = await copyOfStore(t)
    const { removedBlocks, freedBytes } = await droverJson('delete', url('other'))
    assert.deepEqual([removedBlocks, freedBytes], [0, 0])
    assert.equal((await blockFiles(store)).length, 3)
    const young = await droverJson('gc', '--target', target)
    assert.deepEqual([young.removed, young.kept], [0, 3])
    await age(store, 50 * 60, /\.blk$/)
    assert.equal((await droverJson('gc', '--target', target)).removed, 0)
    await age(store, 11 * 60, /\.blk$/)
    const told = await droverJson('gc', '--target', target, '--min-age', '2h')
    assert.equal(told.removed, 0)
    const old = await droverJson('gc', '--target', target)
    assert.deepEqual([old.removed, old.kept], [1, 2])
    assert.equal((await blockFiles(store)).length, 2)
  })

  it('deletes a backup whose config is damaged, and leaves its blocks to gc', async (t) => {
    const bench = await copyOfStore(t)
    const { store, url, target } = bench
    await truncate(configPath(store, 'other'), 50)
    const { removedBlocks } = await droverJson('delete', url('other'), '--min-age=0s')
    assert.equal(removedBlocks, 0)
    assert.ok(!(await foldersBelow(join(store, CONFIGS))).includes('other'))
    const { removed } = await droverJson('gc', '--target', target, '--min-age=0s')
    assert.equal(removed, 1)
    await restores(bench)
  })

  for (const [what, damage] of Object.entries({
    'is damaged': (store: string) => truncate(configPath(store, 'other'), 50),
    'is empty': (store: string) => truncate(configPath(store, 'other'), 0),
    'has a name that cannot be one': (store: string) =>
      cp(join(store, CONFIGS, 'other'), join(store, CONFIGS, '-x y'), { recursive: true }),
  })) {
    it(`removes no block while a config ${what}`, async (t) => {
      const { store, url, target } = await copyOfStore(t)
      await damage(store)
      // a block that nobody needs, but who could tell
      const orphan = blockPath(store, 'f'.repeat(64))
      await mkdir(dirname(orphan), { recursive: true })
      await writeFile(orphan, 'anything')
      await age(store, 7200, /\.blk$/)
      const blocks = await blockFiles(store)
      const gc = ['gc', '--target', target, '--min-age', '0s']
      await Promise.all([
        fails(3, 'CONFIG_INVALID', gc),
        fails(3, 'CONFIG_INVALID', [...gc, '--dry-run']),
      ])
      assert.deepEqual(await blockFiles(store), blocks)
      const deleted = await runJson(['delete', url('disk'), '--min-age', '0s'])
      assert.equal(deleted.code, 0, 'the backup itself can be deleted')
      assert.equal(deleted.document.removedBlocks, 0)
      assert.deepEqual(await blockFiles(store), blocks)
    })
  }

  it('removes no block of a backup whose config was renamed, and a listing names it', async (t) => {
    const { store, target } = await copyOfStore(t)
    const config = configPath(store, 'other')
    await rename(config, `${config}.bak`)
    const before = await blockFiles(store)
    const { message } = await fails(3, 'CONFIG_INVALID', ['gc', '--target', target, '--min-age=0s'])
    assert.match(message, /backing-images\/other" holds files but no backing-image\.cfg/)
    assert.deepEqual(await blockFiles(store), before)
    const { backups, unreadable } = await droverJson('list', '--target', target)
    assert.equal(backups.length, 1)
    assert.deepEqual(unreadable, [
      { name: 'other', reason: 'holds files but no backing-image.cfg' },
    ])
  })

  it('removes no block of a store without any backup, unless told to', async (t) => {
    const { store, target } = await copyOfStore(t)
    await rm(join(store, CONFIGS), { recursive: true })
    await age(store, 7200, /\.blk$/)
    const gc = ['gc', '--target', target]
    for (const args of [gc, [...gc, '--dry-run']]) {
      const { message } = await fails(1, 'STORE_CHANGED', args)
      assert.match(message, /has 3 blocks and no backup at all: nothing is removed/)
    }
    assert.equal((await blockFiles(store)).length, 3)
    assert.equal((await droverJson(...gc, '--min-age', '1h', '--dry-run')).removed, 3)
    assert.equal((await droverJson(...gc, '--allow-empty')).removed, 3)
    assert.deepEqual(await filesBelow(store), [])
  })

  it('removes no block when a listing shows none although some are needed', async (t) => {
    const { store, target } = await copyOfStore(t)
    await rm(join(store, 'backupstore/backing-images/blocks'), { recursive: true })
    await fails(1, 'TARGET_UNREACHABLE', ['gc', '--target', target, '--min-age', '0s'])
  })

  it('takes expired locks, dead staging files and empty folders, and nothing that lives', async (t) => {
    const bench = await copyOfStore(t)
    const { store, target } = bench
    const live = await writeLock(store, { type: 2, name: 'lock-1111111111111111' })
    const dead = await writeLock(store, { type: 1, name: 'lock-2222222222222222', ageSeconds: 151 })
    const odd = await writeLock(store, { raw: 'x', name: 'lock-3333333333333333', ageSeconds: 151 })
    const staging = join(store, 'backupstore/drover/staging')
    const files = {
      // its run has a lock that lives
      live: join(staging, '1111111111111111/0'),
      // its run has a lock that expired
      dead: join(staging, '2222222222222222/0'),
      // its run has none, and gave a sign of life lately
      waiting: join(staging, '4444444444444444/0'),
      // its run has none, and gave none for long
      forgotten: join(staging, '5555555555555555/0'),
    }
    for (const file of Object.values(files)) {
      await mkdir(dirname(file), { recursive: true })
      await writeFile(file, 'staged')
    }
    await ageFile(files.live, 1000)
    await ageFile(files.forgotten, 151)
    const empty = join(store, CONFIGS, 'empty')
    await mkdir(empty)
    await utimes(empty, 1, 1)
    await mkdir(join(store, 'backupstore/backing-images/blocks/aa/bb'), { recursive: true })

    const dry = await droverJson('gc', '--target', target, '--dry-run')
    for (const path of [live, dead, odd, ...Object.values(files)]) await readFile(path)
    const wet = await droverJson('gc', '--target', target)
    assert.deepEqual(
      [dry.removed, dry.kept, dry.freedBytes],
      [wet.removed, wet.kept, wet.freedBytes],
    )
    assert.equal(wet.freedBytes, 2 * 'staged'.length)
    assert.deepEqual(
      (await filesBelow(store)).filter((path) => !path.startsWith('backupstore/backing-images')),
      [files.live, files.waiting, live].map((path) => path.slice(store.length + 1)).sort(),
    )
    const folders = await foldersBelow(join(store, 'backupstore/backing-images'))
    assert.ok(!folders.includes('backing-images/empty'))
    assert.ok(!folders.includes('blocks/aa'))
    await restores(bench)
  })
})

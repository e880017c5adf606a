/** The store that Longhorn wrote, under Drover's command line. */
import assert from 'node:assert/strict'
import { lstat, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { describe, it } from 'node:test'
import { droverJson } from '../helpers/drover.ts'
import { allocatedBytes, sha512 } from '../helpers/images.ts'
import {
  blockFiles,
  filesBelow,
  golden,
  makeGoldenImages,
  unpackGolden,
} from '../helpers/stores.ts'
import type { Workspace } from '../helpers/workspace.ts'
import {
  CONFIGS,
  LOCKS,
  assertTidy,
  backUp,
  blockPath,
  configPath,
  fails,
  foldersBelow,
  openWorkspace,
  placeholder,
  readConfig,
  runJson,
  snapshot,
  writeConfig,
  ageFile,
} from '../helpers/workspace.ts'

const BLOCK = 2 * 1024 * 1024
const names = Object.keys(golden).sort()
const image = (name: string) => {
  const found = golden[name]
  assert.ok(found)
  return found
}

/** What golden.json and the pool say of each: blocks of the file, of those stored, distinct ones. */
const blockFacts: Readonly<Record<string, readonly [number, number, number]>> = {
  base: [7, 6, 5],
  derived: [4, 4, 4],
  tail: [2, 2, 2],
  tiny: [1, 1, 1],
  hole: [3, 0, 0],
  plain: [2, 2, 2],
}
const compressions: Readonly<Record<string, string>> = {
  base: 'lz4',
  derived: 'gzip',
  tail: 'lz4',
  tiny: 'gzip',
  hole: 'lz4',
  plain: 'none',
}

async function openGolden(t: TestContext): Promise<Workspace> {
  const space = await openWorkspace(t)
  await unpackGolden(space.store)
  return space
}

async function withImages(space: Workspace): Promise<(name: string) => string> {
  await makeGoldenImages(space.path('images'))
  return (name) => space.path(join('images', image(name).file))
}

async function assertRestores(space: Workspace, name: string, as = name): Promise<void> {
  const file = space.path(`${as}.restored`)
  const result = await droverJson('restore', space.url(as), file, '--force')
  assert.equal(result.verified, 'full')
  assert.equal(result.checksum, image(name).sha512)
  assert.equal((await lstat(file)).size, image(name).size)
  assert.equal(await sha512(file), image(name).sha512)
}

async function orphans(store: string): Promise<string[]> {
  const referenced = new Set<string>()
  for (const name of names) {
    const { Blocks = [] } = await readConfig(store, name)
    for (const { BlockChecksum } of Blocks) referenced.add(BlockChecksum)
  }
  return (await blockFiles(store)).filter((path) => !referenced.has(path.slice(-68, -4)))
}

describe('a store that Longhorn wrote', { concurrency: 4 }, () => {
  it('lists its six backups, and the interrupted one apart from them', async (t) => {
    const { store, target, url } = await openGolden(t)
    const before = await snapshot(store)
    const listed = await droverJson('list', '--target', target)
    assert.deepEqual(
      listed.backups.map(({ name }: { name: string }) => name),
      names,
    )
    for (const backup of listed.backups) {
      const config = await readConfig(store, backup.name)
      assert.deepEqual(backup, {
        name: backup.name,
        url: url(backup.name),
        sizeBytes: image(backup.name).size,
        checksum: image(backup.name).sha512,
        createdAt: config.CreatedTime,
        completedAt: config.CompleteTime,
        compression: compressions[backup.name],
        labels: { by: 'longhorn' },
      })
    }
    const { CreatedTime } = await readConfig(store, 'interrupted')
    assert.deepEqual(listed.incomplete, [{ name: 'interrupted', createdAt: CreatedTime }])
    assert.deepEqual(listed.unreadable, [])
    assert.deepEqual(await snapshot(store), before)
  })

  for (const name of names) {
    it(`restores ${name} byte for byte, holes as holes`, async (t) => {
      const space = await openGolden(t)
      const before = await snapshot(space.store)
      await assertRestores(space, name)
      const [, stored = 0] = blockFacts[name] ?? []
      const allocated = await allocatedBytes(space.path(`${name}.restored`))
      assert.ok(allocated <= stored * BLOCK + 64 * 1024, `${allocated} bytes allocated`)
      assert.deepEqual(await snapshot(space.store), before, 'a restore changes nothing in a store')
    })

    it(`proves ${name} at every level, and shows what its config says`, async (t) => {
      const { store, url } = await openGolden(t)
      const [total, stored, distinct] = blockFacts[name] ?? []
      for (const level of ['config', 'exists', 'full']) {
        const verified = await droverJson('verify', url(name), '--level', level)
        assert.equal(verified.ok, true)
        assert.equal(verified.level, level)
        assert.equal(verified.url, url(name))
        assert.deepEqual([verified.missing, verified.corrupt], [[], []])
        const checked = level === 'config' ? 0 : stored
        assert.deepEqual(verified.blocks, { total: stored, checked })
        assert.equal(verified.checksum, level === 'full' ? image(name).sha512 : null)
      }
      const config = await readConfig(store, name)
      assert.deepEqual(await droverJson('inspect', url(name)), {
        name,
        url: url(name),
        sizeBytes: image(name).size,
        checksum: image(name).sha512,
        createdAt: config.CreatedTime,
        completedAt: config.CompleteTime,
        compression: compressions[name],
        labels: { by: 'longhorn' },
        blocks: { total, stored, distinct, zero: (total ?? 0) - (stored ?? 0) },
        unknownFields: [],
      })
    })
  }

  it('restores with proven blocks alone when asked to, and says so', async (t) => {
    const { url, path } = await openGolden(t)
    const file = path('base.raw')
    const result = await droverJson('restore', url('base'), file, '--verify', 'blocks')
    assert.equal(result.verified, 'blocks')
    assert.equal(result.checksum, null)
    assert.equal(await sha512(file), image('base').sha512)
  })

  it('takes the interrupted backup for none, in every command that reads one', async (t) => {
    const { url, path, folder } = await openGolden(t)
    const before = await filesBelow(folder)
    const results = await Promise.all([
      fails(3, 'BACKUP_INCOMPLETE', ['restore', url('interrupted'), path('out')]),
      fails(3, 'BACKUP_INCOMPLETE', ['verify', url('interrupted')]),
      fails(3, 'BACKUP_INCOMPLETE', ['inspect', url('interrupted')]),
    ])
    for (const { details } of results) assert.equal(details['name'], 'interrupted')
    assert.deepEqual(await filesBelow(folder), before)
  })

  it('finds its source images unchanged under their names, and writes nothing', async (t) => {
    const space = await openGolden(t)
    const fileOf = await withImages(space)
    const before = await snapshot(space.store)
    const results = await Promise.all(names.map((name) => backUp(space, fileOf(name))))
    for (const [at, name] of names.entries()) {
      const [total, stored = 0] = blockFacts[name] ?? []
      const { outcome, blocks, bytesWritten, checksum, compression } = results[at]
      assert.equal(results[at].name, name)
      assert.equal(outcome, 'unchanged')
      assert.deepEqual(blocks, { total, zero: (total ?? 0) - stored, reused: stored, new: 0 })
      assert.equal(bytesWritten, 0)
      assert.equal(checksum, image(name).sha512)
      assert.equal(compression, compressions[name])
    }
    assert.deepEqual(await snapshot(space.store), before)
  })

  it('lends all its blocks to backups of the same images under new names', async (t) => {
    const space = await openGolden(t)
    const fileOf = await withImages(space)
    const blocksBefore = await blockFiles(space.store)
    await Promise.all(
      names.map(async (name) => {
        const { outcome, blocks, bytesWritten } = await backUp(
          space,
          fileOf(name),
          `--name=${name}-again`,
          `--compression=${name === 'plain' ? 'none' : 'lz4'}`,
        )
        const [total, stored = 0] = blockFacts[name] ?? []
        assert.equal(outcome, 'created')
        assert.deepEqual(blocks, { total, zero: (total ?? 0) - stored, reused: stored, new: 0 })
        assert.equal(bytesWritten, 0)
        await assertRestores(space, name, `${name}-again`)
        const config = await readConfig(space.store, `${name}-again`)
        const original = await readConfig(space.store, name)
        assert.deepEqual(config.Blocks, original.Blocks)
        assert.equal('Blocks' in config, stored > 0)
      }),
    )
    assert.deepEqual(await blockFiles(space.store), blocksBefore)
  })

  it('gives the name of its dead placeholder to a backup that wants it', async (t) => {
    const space = await openGolden(t)
    const fileOf = await withImages(space)
    await writeConfig(space.store, 'interrupted', {
      ...placeholder('interrupted'),
      Secret: 'a-secret',
      SecretNamespace: 'a-namespace',
      FutureField: { kept: [1, 2, 3] },
    })
    await ageFile(configPath(space.store, 'interrupted'), 151)
    const file = fileOf('derived')
    const result = await backUp(space, file, '--name', 'interrupted')
    assert.equal(result.outcome, 'created')
    assert.deepEqual(result.blocks, { total: 4, zero: 0, reused: 4, new: 0 })
    await assertRestores(space, 'derived', 'interrupted')
    const config = await readConfig(space.store, 'interrupted')
    assert.equal(config['Secret'], 'a-secret')
    assert.equal(config['SecretNamespace'], 'a-namespace')
    assert.deepEqual(config['FutureField'], { kept: [1, 2, 3] })
    const { incomplete } = await droverJson('list', '--target', space.target)
    assert.deepEqual(incomplete, [])
  })

  it('is told by a dry run what would go, and loses nothing', async (t) => {
    const { store, target } = await openGolden(t)
    const [before, folders] = [await snapshot(store), await foldersBelow(store)]
    const told = await droverJson('gc', '--target', target, '--dry-run', '--min-age', '0s')
    assert.equal(told.dryRun, true)
    assert.equal(told.target, target)
    assert.equal(told.removed, 2)
    assert.equal(told.kept, (await blockFiles(store)).length - 2)
    assert.ok(told.freedBytes > 0)
    assert.deepEqual(await snapshot(store), before)
    assert.deepEqual(await foldersBelow(store), folders)
  })

  it('loses its orphans, dead lock and dead placeholder to gc, and nothing else', async (t) => {
    const space = await openGolden(t)
    const { store, target } = space
    const unreferenced = await orphans(store)
    assert.equal(unreferenced.length, 2)
    let orphanBytes = 0
    for (const path of unreferenced) orphanBytes += (await lstat(join(store, path))).size
    const before = await snapshot(store)
    const total = (await blockFiles(store)).length

    const { removed, kept, freedBytes, dryRun } = await droverJson(
      'gc',
      '--target',
      target,
      '--min-age',
      '0s',
    )
    assert.deepEqual(
      { removed, kept, freedBytes, dryRun },
      { removed: 2, kept: total - 2, freedBytes: orphanBytes, dryRun: false },
    )
    const gone = new Set([...unreferenced, `${CONFIGS}/interrupted/backing-image.cfg`])
    const expected = Object.entries(before).filter(
      ([path]) => !gone.has(path) && !path.startsWith(LOCKS),
    )
    assert.deepEqual(await snapshot(store), Object.fromEntries(expected))
    await assertTidy(store)
    for (const path of await foldersBelow(join(store, 'backupstore/backing-images'))) {
      const full = join(store, 'backupstore/backing-images', path)
      assert.notEqual((await filesBelow(full)).length, 0, `${path} is empty`)
    }
    await Promise.all(names.map((name) => assertRestores(space, name)))
    const again = await droverJson('gc', '--target', target, '--min-age', '0s')
    assert.deepEqual([again.removed, again.freedBytes], [0, 0])
  })

  it('is restored without being written to when no lock is wanted', async (t) => {
    const { store, url, path } = await openGolden(t)
    const before = await snapshot(store)
    const { code, document, stderr } = await runJson([
      'restore',
      url('base'),
      path('base.raw'),
      '--no-lock',
    ])
    assert.equal(code, 0)
    assert.match(stderr, /^warning: no lock is taken/m)
    assert.equal(document.checksum, image('base').sha512)
    assert.deepEqual(await snapshot(store), before)
  })

  it('names a block of it that is missing', async (t) => {
    const { store, url } = await openGolden(t)
    const { Blocks = [] } = await readConfig(store, 'base')
    const [first] = Blocks
    assert.ok(first)
    await rm(blockPath(store, first.BlockChecksum))
    const { code, document } = await runJson(['verify', url('base')])
    assert.equal(code, 3)
    assert.deepEqual(document.missing, [{ id: first.BlockChecksum, offsets: [0, 4 * BLOCK] }])
  })
})

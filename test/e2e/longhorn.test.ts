/** Drover and Longhorn's own code on one store, in both directions. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { describe, it } from 'node:test'
import { droverJson, startDrover } from '../helpers/drover.ts'
import { BLOCK, makeImage, noise, sha512, text } from '../helpers/images.ts'
import type { Longhorn } from '../helpers/longhorn.ts'
import { buildLonghorn } from '../helpers/longhorn.ts'
import { blockFiles } from '../helpers/stores.ts'
import { waitUntil } from '../helpers/wait-until.ts'
import type { Workspace } from '../helpers/workspace.ts'
import {
  assertTidy,
  backUp,
  fails,
  lockFiles,
  openWorkspace,
  readConfig,
  runJson,
} from '../helpers/workspace.ts'

const CODECS = ['lz4', 'gzip', 'none'] as const

const built = await buildLonghorn()
const skip = typeof built === 'string' ? built : false
const longhorn = (): Longhorn => {
  assert.ok(typeof built !== 'string')
  return built
}

/** Text, noise, a hole, a repeated block, and a tail that no disk would have. */
const pieces = (seed: number) =>
  [
    [0, text(seed, BLOCK)],
    [BLOCK, noise(seed, BLOCK)],
    [3 * BLOCK, text(seed, BLOCK)],
    [4 * BLOCK, noise(seed + 1, BLOCK)],
    [5 * BLOCK, text(seed + 2, 1_463_297)],
  ] as const
const SIZE = 5 * BLOCK + 1_463_297
const DISTINCT = 4

const makeUsual = (file: string, seed: number) => makeImage(file, SIZE, pieces(seed))

const longhornBackup = (
  { target }: Workspace,
  file: string,
  name: string,
  codec: (typeof CODECS)[number] = 'lz4',
) =>
  longhorn().run(
    'backup',
    `--file=${file}`,
    `--name=${name}`,
    `--target=${target}`,
    `--compression=${codec}`,
  )

async function longhornRestores(space: Workspace, name: string, image: string): Promise<void> {
  const file = space.path(`${name}.by-longhorn`)
  await longhorn().run('restore', '--url', space.url(name), '--file', file)
  assert.equal(await sha512(file), await sha512(image))
}

async function droverRestores(space: Workspace, name: string, image: string): Promise<void> {
  const file = space.path(`${name}.by-drover`)
  const { verified } = await droverJson('restore', space.url(name), file, '--force')
  assert.equal(verified, 'full')
  assert.equal(await sha512(file), await sha512(image))
}

/** A lock that Longhorn holds until the test ends or `release` is called. */
async function holdLock(t: TestContext, { target }: Workspace, type: 'backup' | 'delete') {
  const args = ['lock', '--target', target, '--type', type, '--hold', '120']
  const child = spawn(longhorn().tool, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  const [line] = await once(child.stdout, 'data')
  const { name } = JSON.parse(String(line))
  return {
    name: String(name),
    async release() {
      const exited = once(child, 'exit')
      child.kill('SIGTERM')
      await exited
    },
  }
}

describe('Drover and Longhorn on one store', { concurrency: 4, skip }, () => {
  for (const codec of CODECS) {
    it(`Longhorn lists, inspects and restores what Drover wrote with ${codec}`, async (t) => {
      const space = await openWorkspace(t)
      const image = space.path('disk.raw')
      await makeUsual(image, 1)
      const made = await backUp(
        space,
        image,
        `--compression=${codec}`,
        '--label=env=prod',
        '--label=owner=me=you',
      )
      assert.equal(made.compression, codec)
      assert.deepEqual(made.blocks, { total: 6, zero: 1, reused: 1, new: DISTINCT })
      assert.deepEqual(await longhorn().run('list', '--target', space.target), ['disk'])
      const { completedAt } = await droverJson('inspect', space.url('disk'))
      assert.deepEqual(await longhorn().run('inspect', '--url', space.url('disk')), {
        Name: 'disk',
        URL: space.url('disk'),
        CompleteAt: completedAt,
        Size: String(SIZE),
        Checksum: await sha512(image),
        Labels: { env: 'prod', owner: 'me=you' },
        CompressionMethod: codec,
        Secret: '',
        SecretNamespace: '',
      })
      await longhornRestores(space, 'disk', image)
    })

    it(`Drover lists, proves and restores what Longhorn wrote with ${codec}`, async (t) => {
      const space = await openWorkspace(t)
      const image = space.path('disk.raw')
      await makeUsual(image, 2)
      const made = await longhornBackup(space, image, 'disk', codec)
      assert.equal(made.url, space.url('disk'))
      const { backups, incomplete, unreadable } = await droverJson('list', '--target', space.target)
      assert.deepEqual([incomplete, unreadable], [[], []])
      assert.equal(backups.length, 1)
      assert.equal(backups[0].url, made.url)
      assert.equal(backups[0].checksum, await sha512(image))
      assert.equal(backups[0].compression, codec)
      const verified = await droverJson('verify', space.url('disk'))
      assert.equal(verified.ok, true)
      assert.deepEqual(verified.blocks, { total: 5, checked: 5 })
      await droverRestores(space, 'disk', image)
    })
  }

  it('Longhorn restores an image of one byte, one of zeros and one of many blocks', async (t) => {
    const space = await openWorkspace(t)
    const images = {
      'one-byte': async (file: string) => makeImage(file, 1, [[0, Buffer.from('x')]]),
      zeros: async (file: string) => makeImage(file, 3 * BLOCK + 512),
      many: async (file: string) =>
        makeImage(
          file,
          40 * BLOCK,
          Array.from({ length: 40 }, (_, at) => [at * BLOCK, text(at, 4096)] as const),
        ),
    }
    await Promise.all(
      Object.entries(images).map(async ([name, make]) => {
        const image = space.path(`${name}.raw`)
        await make(image)
        await backUp(space, image, '--concurrency', '4')
        await longhornRestores(space, name, image)
      }),
    )
    const listed = await longhorn().run('list', '--target', space.target)
    assert.deepEqual(listed.sort(), ['many', 'one-byte', 'zeros'])
  })

  it('Longhorn restores an uncompressed backup that turned lz4 for the blocks it shares', async (t) => {
    const space = await openWorkspace(t)
    const [first, second] = [space.path('first.raw'), space.path('second.raw')]
    await makeUsual(first, 3)
    await makeImage(second, SIZE, [...pieces(3).slice(0, 3), [4 * BLOCK, text(99, BLOCK)]])
    await backUp(space, first)
    const { compression, blocks } = await backUp(space, second, '--compression', 'none')
    assert.equal(compression, 'lz4')
    assert.equal(blocks.new, 1)
    await longhornRestores(space, 'second', second)
  })

  it('Longhorn restores a Drover backup that shares blocks Longhorn stored with gzip', async (t) => {
    const space = await openWorkspace(t)
    const [first, second] = [space.path('first.raw'), space.path('second.raw')]
    await makeUsual(first, 4)
    await makeImage(second, SIZE + BLOCK, [...pieces(4), [6 * BLOCK, text(98, BLOCK)]])
    await longhornBackup(space, first, 'first', 'gzip')
    const { blocks } = await backUp(space, second)
    // the tail of the first is the start of a longer block in the second
    assert.equal(blocks.new, 2)
    await longhornRestores(space, 'second', second)
    await droverRestores(space, 'second', second)
  })

  it('Longhorn can restore whatever Drover calls good: a damaged frame checksum is found', async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('disk.raw')
    await makeImage(image, BLOCK, [[0, text(1, BLOCK)]])
    await backUp(space, image)
    const [path = ''] = await blockFiles(space.store)
    const bytes = await readFile(join(space.store, path))
    const last = bytes.length - 1
    bytes[last] = (bytes[last] ?? 0) ^ 1
    await writeFile(join(space.store, path), bytes)
    const restored = await longhorn().attempt(
      'restore',
      `--url=${space.url('disk')}`,
      `--file=${space.path('out')}`,
    )
    assert.equal(restored.code, 1)
    const { code, document } = await runJson(['verify', space.url('disk')])
    assert.deepEqual([code, document.ok, document.corrupt.length], [3, false, 1])
  })

  it('Longhorn restores a backup with data that begins like a compressed frame', async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('archive.raw')
    await makeImage(image, 2 * BLOCK, [
      [0, Buffer.concat([Buffer.from([0x1f, 0x8b]), noise(1, BLOCK - 2)])],
      [BLOCK, Buffer.concat([Buffer.from([0x04, 0x22, 0x4d, 0x18]), noise(2, BLOCK - 4)])],
    ])
    await backUp(space, image, '--compression', 'none')
    await longhornRestores(space, 'archive', image)
    // refused, because the pool holds its blocks uncompressed; or else one that Longhorn can read
    const backup = ['backup', image, '--target', space.target, '--name', 'other']
    const { code, document } = await runJson(backup)
    if (code === 0) await longhornRestores(space, 'other', image)
    else assert.equal(document.error.code, 'CODEC_CONFLICT')
  })

  it('Longhorn takes a backup that Drover made again for one that exists', async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('disk.raw')
    await makeUsual(image, 5)
    await longhornBackup(space, image, 'disk')
    const { outcome, blocks } = await backUp(space, image)
    assert.equal(outcome, 'unchanged')
    assert.equal(blocks.new, 0)
    const again = await longhornBackup(space, image, 'disk')
    assert.equal(again.existed, true)
  })

  it('Longhorn deletes a Drover backup and its blocks, and the others stay whole', async (t) => {
    const space = await openWorkspace(t)
    const [first, second] = [space.path('first.raw'), space.path('second.raw')]
    await makeUsual(first, 6)
    await makeImage(second, SIZE, [...pieces(6).slice(0, 3), [4 * BLOCK, text(97, BLOCK)]])
    await backUp(space, first)
    await backUp(space, second)
    assert.equal((await blockFiles(space.store)).length, 5)

    await longhorn().run('delete', '--url', space.url('first'))
    assert.deepEqual(await longhorn().run('list', '--target', space.target), ['second'])
    const { Blocks = [] } = await readConfig(space.store, 'second')
    const referenced = new Set(Blocks.map(({ BlockChecksum }) => BlockChecksum))
    assert.deepEqual(
      (await blockFiles(space.store)).map((path) => path.slice(-68, -4)).sort(),
      [...referenced].sort(),
    )
    await fails(3, 'BACKUP_NOT_FOUND', ['restore', space.url('first'), space.path('out')])
    await Promise.all([
      droverRestores(space, 'second', second),
      longhornRestores(space, 'second', second),
    ])
    // what Longhorn collected is written again, folders and all
    const { outcome, blocks } = await backUp(space, first)
    assert.deepEqual([outcome, blocks.new], ['created', 2])
    await longhornRestores(space, 'first', first)
  })

  it('Drover deletes Longhorn backups and their blocks, and Longhorn restores the rest', async (t) => {
    const space = await openWorkspace(t)
    const [first, second] = [space.path('first.raw'), space.path('second.raw')]
    await makeUsual(first, 7)
    await makeImage(second, SIZE, [...pieces(7).slice(0, 3), [4 * BLOCK, text(96, BLOCK)]])
    for (const [name, file] of Object.entries({ first, again: first, second })) {
      await longhornBackup(space, file, name)
    }
    const deleted = await droverJson('delete', space.url('first'), '--min-age', '0s')
    assert.equal(deleted.removedBlocks, 0, 'another backup has the same blocks')
    await longhornRestores(space, 'again', first)

    const last = await droverJson('delete', space.url('again'), '--min-age', '0s')
    assert.equal(last.removedBlocks, 2)
    assert.deepEqual(await longhorn().run('list', '--target', space.target), ['second'])
    await longhornRestores(space, 'second', second)

    const { removed } = await droverJson('gc', '--target', space.target, '--min-age', '0s')
    assert.equal(removed, 0)
    await longhornRestores(space, 'second', second)
    await assertTidy(space.store)
  })

  it('Drover collects the blocks of a Longhorn backup that lost its config', async (t) => {
    const space = await openWorkspace(t)
    const [first, second] = [space.path('first.raw'), space.path('second.raw')]
    await makeUsual(first, 8)
    await makeImage(second, BLOCK, [[0, text(95, BLOCK)]])
    for (const [name, file] of Object.entries({ first, second })) {
      await longhornBackup(space, file, name)
    }
    await droverJson('delete', space.url('first')) // its blocks are too young to go
    const { removed, kept } = await droverJson('gc', '--target', space.target, '--min-age', '0s')
    assert.deepEqual([removed, kept], [DISTINCT, 1])
    await longhornRestores(space, 'second', second)
  })

  it("keeps out of a store while Longhorn's deletion holds it, but restores what it can prove", async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('disk.raw')
    await makeUsual(image, 9)
    await backUp(space, image)
    const lock = await holdLock(t, space, 'delete')
    const again = ['backup', image, '--target', space.target, '--name', 'other']

    const [error] = await Promise.all([
      fails(1, 'STORE_BUSY', [...again, '--lock-timeout', '0s']),
      droverRestores(space, 'disk', image),
      droverJson('verify', space.url('disk'), '--lock-timeout', '0s'),
    ])
    assert.equal(error.details['holder'], lock.name)
    assert.equal(error.details['type'], 'deletion')
    assert.equal(typeof error.details['ageMs'], 'number')
    assert.match(error.message, new RegExp(`${lock.name} \\(a deletion\\) is \\d+ s old`))
    assert.deepEqual(
      (await lockFiles(space.store)).map((path) => path.slice(-25)),
      [`${lock.name}.lck`],
    )
    const { backups } = await droverJson('list', '--target', space.target)
    assert.equal(backups.length, 1)

    const waiting = startDrover([...again, '--json'])
    let said = ''
    waiting.child.stderr?.on('data', (text: string) => (said += text))
    await waitUntil(() => said.includes(`waiting for ${lock.name} (a deletion`), 'it waits')
    await lock.release()
    const outcome = await waiting.done
    assert.equal(outcome.code, 0, outcome.stderr)
    assert.equal(outcome.json().outcome, 'created')
  })

  it("works beside Longhorn's backup, and deletes nothing under it", async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('disk.raw')
    await makeUsual(image, 10)
    await backUp(space, image)
    const lock = await holdLock(t, space, 'backup')
    const before = await blockFiles(space.store)
    const busy = [
      ['delete', space.url('disk'), '--lock-timeout', '0s'],
      ['gc', '--target', space.target, '--min-age', '0s', '--lock-timeout', '0s'],
    ]
    const [errors, made] = await Promise.all([
      Promise.all(busy.map((args) => fails(1, 'STORE_BUSY', args))),
      backUp(space, image, '--name', 'other'),
    ])
    for (const { details, message } of errors) {
      assert.equal(details['holder'], lock.name)
      assert.equal(details['type'], 'shared')
      assert.match(message, /a backup or restore/)
    }
    assert.equal(made.outcome, 'created')
    assert.deepEqual(await blockFiles(space.store), before)
    await droverRestores(space, 'disk', image)
    await lock.release()
    await droverJson('delete', space.url('disk'), '--lock-timeout', '0s')
  })

  it("refuses Longhorn's deletion while a backup of Drover is at work", async (t) => {
    const space = await openWorkspace(t)
    const [kept, huge] = [space.path('kept.raw'), space.path('huge.raw')]
    await makeUsual(kept, 11)
    await backUp(space, kept)
    // long to hash, and nothing to store: at work well after it has its lock
    await makeImage(huge, 4 * 1024 ** 3, [[0, text(94, BLOCK)]])
    const running = startDrover(['backup', huge, '--target', space.target, '--json', '--quiet'])
    t.after(() => running.child.kill('SIGKILL'))
    await waitUntil(async () => {
      const [path] = await lockFiles(space.store)
      if (path === undefined) return false
      const lock = await readFile(join(space.store, path), 'utf8').catch(() => '')
      return lock.includes('"Acquired":true')
    }, 'it has its lock')
    running.child.kill('SIGSTOP')
    const refused = await longhorn().attempt('delete', '--url', space.url('kept'))
    assert.equal(refused.code, 1)
    assert.match(refused.stderr, /lock/)
    assert.deepEqual(await longhorn().run('list', '--target', space.target), ['kept'])

    running.child.kill('SIGINT')
    running.child.kill('SIGCONT')
    const interrupted = await running.done
    assert.equal(interrupted.code, 130, interrupted.stderr)
    assert.deepEqual(await lockFiles(space.store), [])
    await droverRestores(space, 'kept', kept)
    await longhorn().run('delete', '--url', space.url('kept'))
    assert.deepEqual(await longhorn().run('list', '--target', space.target), [])
  })

  it('leaves nothing in a store that Longhorn would take for a backup', async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('disk.raw')
    await makeUsual(image, 12)
    const wrong = `--checksum=${'0'.repeat(128)}`
    await fails(1, 'CHECKSUM_MISMATCH', ['backup', image, '--target', space.target, wrong])
    assert.deepEqual(await longhorn().run('list', '--target', space.target), [])
    await backUp(space, image)
    await droverJson('delete', space.url('disk'), '--min-age', '0s')
    assert.deepEqual(await longhorn().run('list', '--target', space.target), [])
    assert.deepEqual(await blockFiles(space.store), [])
  })
})

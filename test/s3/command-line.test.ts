/** The whole command line on a bucket: what works on a folder works there, and for how many requests. */
import assert from 'node:assert/strict'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import { droverJson } from '../helpers/drover.ts'
import { noise, sha512 } from '../helpers/images.ts'
import type { BlockContent, KnownImage } from '../helpers/known-image.ts'
import { makeKnownImage } from '../helpers/known-image.ts'
import type { BucketSpace, SpaceOptions } from '../helpers/s3/bucket-space.ts'
import { lockKeys, openSpace, strays } from '../helpers/s3/bucket-space.ts'
import { cephForAll, noCeph } from '../helpers/s3/ceph.ts'
import { filesBelow, golden, unpackGolden } from '../helpers/stores.ts'
import { waitUntil } from '../helpers/wait-until.ts'
import { BLOCKS, CONFIGS, LOCKS, idOf, placeholder } from '../helpers/workspace.ts'

const ceph = cephForAll()
const openOn = (t: TestContext, options?: SpaceOptions) => openSpace(t, ceph(), options)

const noisy = (...seeds: number[]): BlockContent[] => seeds.map((seed) => ({ kind: 'noise', seed }))
const zeros: BlockContent = { kind: 'zeros' }

const restores = async (space: BucketSpace, name: string, image: KnownImage): Promise<void> => {
  const file = space.path(`${name}.restored`)
  const result = await space.run('restore', space.url(name), file, '--force')
  assert.equal(result.verified, 'full')
  assert.equal(await sha512(file), image.sha512)
}

const putConfig = (space: BucketSpace, name: string, config: object): Promise<void> =>
  ceph().admin.put(
    space.bucket,
    `${space.prefix}${CONFIGS}/${name}/backing-image.cfg`,
    JSON.stringify(config),
  )

describe('a bucket', { skip: noCeph, concurrency: 3 }, () => {
  test('holds backups from the first to the last command', async (t) => {
    const space = await openOn(t)
    const { target, url, run } = space
    const contents = [...noisy(1, 2), zeros, ...noisy(1, 3)]
    const image = await makeKnownImage(space.path('disk.raw'), contents, 12_345)
    const made = await run('backup', image.file, '--target', target, '--label', 'by=test')
    assert.deepEqual(
      [made.name, made.outcome, made.checksum, made.url],
      ['disk', 'created', image.sha512, url('disk')],
    )
    const again = await run('backup', image.file, '--target', target)
    assert.equal(again.outcome, 'unchanged')
    const second = await run('backup', image.file, '--target', target, '--name', 'second')
    assert.equal(second.blocks.new, 0)
    const { backups } = await run('list', '--target', target)
    assert.deepEqual(
      backups.map(({ name }: { name: string }) => name),
      ['disk', 'second'],
    )
    const shown = await run('inspect', url('disk'))
    assert.deepEqual(shown.labels, { by: 'test' })
    for (const level of ['config', 'exists', 'full']) {
      const verified = await run('verify', url('disk'), '--level', level)
      assert.equal(verified.ok, true)
    }
    await restores(space, 'disk', image)
    assert.deepEqual(strays(await space.keys()), [])
    await run('delete', url('disk'))
    await restores(space, 'second', image)
    await run('delete', url('second'), '--min-age', '0s')
    await run('gc', '--target', target, '--min-age', '0s')
    assert.deepEqual(await space.keys(), [])
    await space.fails('BACKUP_NOT_FOUND', ['restore', url('disk'), space.path('none.raw')])
  })

  test('takes a folder store as it is, and gives it back as it was', async (t) => {
    const space = await openOn(t)
    const [store, back] = [space.path('store'), space.path('back')]
    await mkdir(store)
    await unpackGolden(store)
    await ceph().admin.upload(store, space.bucket, space.prefix)
    const listed = await space.run('list', '--target', space.target)
    const inFolder = await droverJson('list', '--target', `vfs://${store}`)
    const names = Object.keys(golden).sort()
    const facts = ({ backups, incomplete }: any) => [
      backups.map((each: any) => ({ ...each, url: undefined })),
      incomplete,
    ]
    assert.deepEqual(facts(listed), facts(inFolder))
    for (const name of names) {
      const file = space.path(name)
      const result = await space.run('restore', space.url(name), file)
      assert.equal(result.checksum, golden[name]?.sha512)
      assert.equal(await sha512(file), golden[name]?.sha512)
    }
    await ceph().admin.download(space.bucket, back, space.prefix)
    assert.deepEqual(await filesBelow(back), await filesBelow(store))
    for (const path of await filesBelow(store)) {
      assert.ok((await readFile(join(back, path))).equals(await readFile(join(store, path))), path)
    }
  })

  test('gives what it got to a folder', async (t) => {
    const space = await openOn(t)
    const image = await makeKnownImage(space.path('disk.raw'), [...noisy(5, 6), zeros])
    await space.run('backup', image.file, '--target', space.target, '--compression', 'gzip')
    const folder = space.path('copy')
    await ceph().admin.download(space.bucket, folder, space.prefix)
    const verified = await droverJson('verify', `vfs://${folder}?backingImage=disk`)
    assert.equal(verified.ok, true)
    const restored = await droverJson(
      'restore',
      `vfs://${folder}?backingImage=disk`,
      space.path('out.raw'),
    )
    assert.equal(restored.checksum, image.sha512)
  })

  test('keeps stores at other paths, and objects of others, apart', async (t) => {
    const one = await openOn(t)
    const two = await openOn(t, { bucket: one.bucket })
    await ceph().admin.put(one.bucket, 'something-else', 'of others')
    const image = await makeKnownImage(one.path('disk.raw'), noisy(7))
    const other = await makeKnownImage(two.path('disk.raw'), noisy(8))
    await one.run('backup', image.file, '--target', one.target)
    await two.run('backup', other.file, '--target', two.target)
    await one.run('delete', one.url('disk'))
    await one.run('gc', '--target', one.target, '--min-age', '0s')
    assert.deepEqual(await one.keys(), [])
    await restores(two, 'disk', other)
    assert.equal(String(await ceph().admin.get(one.bucket, 'something-else')), 'of others')
  })

  test('finds what is missing and damaged in it, and repairs it by a backup', async (t) => {
    const space = await openOn(t)
    const image = await makeKnownImage(space.path('disk.raw'), noisy(11, 12, 13))
    await space.run('backup', image.file, '--target', space.target, '--compression', 'none')
    const key = (id: string) =>
      `${space.prefix}${BLOCKS}/${id.slice(0, 2)}/${id.slice(2, 4)}/${id}.blk`
    const [first = '', second = ''] = image.entries.map(({ id }) => id)
    await ceph().admin.remove(space.bucket, key(first))
    await ceph().admin.put(space.bucket, key(second), noise(99, 1000))
    const outcome = await space.start(['verify', space.url('disk')]).done
    assert.equal(outcome.code, 3)
    const { ok, missing, corrupt } = outcome.json()
    assert.equal(ok, false)
    assert.ok(JSON.stringify(missing).includes(first) && JSON.stringify(corrupt).includes(second))
    const failed = space.start(['restore', space.url('disk'), space.path('out.raw')])
    assert.equal((await failed.done).code, 3)
  })

  test('ends a race of two backups of one name with one winner and one NAME_CONFLICT', async (t) => {
    const space = await openOn(t)
    const seeds = [21, 22, 23, 24]
    const images = await Promise.all(
      seeds.map((seed) => makeKnownImage(space.path(`disk-${seed}.raw`), noisy(seed))),
    )
    for (const [a, b] of [
      [images[0], images[1]],
      [images[2], images[3]],
    ] as const) {
      assert.ok(a && b)
      const name = `race-${seeds[images.indexOf(a)]}`
      const runs = [a, b].map(({ file }) =>
        space.start(['backup', file, '--target', space.target, '--name', name]),
      )
      const outcomes = await Promise.all(runs.map(({ done }) => done))
      const codes = outcomes.map((each): string =>
        each.code === 0 ? 'won' : each.json().error.code,
      )
      assert.deepEqual([...codes].sort(), ['NAME_CONFLICT', 'won'])
      await restores(space, name, codes[0] === 'won' ? a : b)
    }
    assert.deepEqual(strays(await space.keys()), [])
  })

  test('gives a name to other content when told to replace it', async (t) => {
    const space = await openOn(t)
    const old = await makeKnownImage(space.path('old.raw'), noisy(31))
    const other = await makeKnownImage(space.path('new.raw'), noisy(32))
    const backup = (file: string) => ['backup', file, '--target', space.target, '--name', 'disk']
    await space.run(...backup(old.file))
    await space.fails('NAME_CONFLICT', backup(other.file))
    await space.run(...backup(other.file), '--replace')
    await restores(space, 'disk', other)
  })

  test('shows a placeholder of another program as no backup, and leaves it alone while it is young', async (t) => {
    const space = await openOn(t)
    await putConfig(space, 'begun', placeholder('begun'))
    const listed = await space.run('list', '--target', space.target)
    assert.deepEqual(
      [listed.backups, listed.incomplete.map(({ name }: { name: string }) => name)],
      [[], ['begun']],
    )
    await space.fails('BACKUP_INCOMPLETE', ['inspect', space.url('begun')])
    const image = await makeKnownImage(space.path('begun.raw'), noisy(33))
    const backup = ['backup', image.file, '--target', space.target, '--lock-timeout', '1s']
    const outcome = await space.start(backup).done
    assert.notEqual(outcome.code, 0)
    assert.match(outcome.json().error.code, /BACKUP_IN_PROGRESS|STORE_BUSY/)
    assert.deepEqual(lockKeys(await space.keys()), [])
  })

  test('waits for the deletion of another program, and says whose lock it is', async (t) => {
    const space = await openOn(t)
    const name = 'lock-00000000000000aa'
    const lock = JSON.stringify({ Name: name, Type: 2, Acquired: true })
    await ceph().admin.put(space.bucket, `${space.prefix}${LOCKS}/${name}.lck`, lock)
    const image = await makeKnownImage(space.path('disk.raw'), noisy(34))
    const backup = ['backup', image.file, '--target', space.target, '--lock-timeout', '1s']
    const error = await space.fails('STORE_BUSY', backup)
    assert.ok(error.told.includes(name))
    assert.deepEqual(lockKeys(await space.keys()), [`${LOCKS}/${name}.lck`])
  })

  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    test(`lets go of everything after ${signal} in the middle of a backup`, async (t) => {
      const stalled = (key: string) => key.endsWith('.blk')
      const space = await openOn(t, {
        rule: ({ key, operation }) =>
          operation === 'PutObject' && stalled(key)
            ? { kind: 'stall', direction: 'request', atByte: 1000 }
            : undefined,
      })
      const image = await makeKnownImage(space.path('disk.raw'), noisy(41, 42, 43))
      const { child, done } = space.start(['backup', image.file, '--target', space.target])
      t.after(() => child.kill('SIGKILL'))
      await waitUntil(() => space.proxy.seen.some(({ key }) => stalled(key)), 'it sends a block')
      const signalledMs = performance.now()
      child.kill(signal)
      const outcome = await done
      const tookMs = performance.now() - signalledMs
      assert.ok(tookMs < 10_000, `it took ${tookMs} ms to let go`)
      assert.equal(outcome.code, 130)
      assert.equal(outcome.json().error.code, 'INTERRUPTED')
      assert.deepEqual(await space.keys(), [])
      await waitUntil(() => space.proxy.sockets().open === 0, 'its sockets are closed', 5000)
    })
  }

  test('serves a reader that may write nothing', async (t) => {
    const space = await openOn(t)
    const image = await makeKnownImage(space.path('disk.raw'), noisy(51, 52))
    await space.run('backup', image.file, '--target', space.target)
    const user = `reader${space.prefix.slice(0, 4)}`
    const { accessKeyId, secretAccessKey } = await ceph().makeUser(user)
    await ceph().admin.allow(space.bucket, user, ['s3:GetObject', 's3:ListBucket'])
    const env = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey }
    const restore = ['restore', space.url('disk'), space.path('out.raw')]
    for (const more of [[], ['--no-lock', '--force']]) {
      const { code, stderr } = await space.start([...restore, ...more], env).done
      assert.equal(code, 0, stderr)
      assert.match(stderr, /warning: no lock/)
      assert.equal(await sha512(space.path('out.raw')), image.sha512)
    }
    await space.fails(
      'TARGET_FORBIDDEN',
      ['backup', image.file, '--target', space.target, '--name', 'another'],
      env,
    )
    await space.fails('TARGET_FORBIDDEN', ['delete', space.url('disk')], env)
    await space.fails('TARGET_FORBIDDEN', ['gc', '--target', space.target], env)
  })
})

describe('the requests of a command', { skip: noCeph, concurrency: 3 }, () => {
  /** Keys of that many blocks that no backup refers to. */
  const putOrphans = async (space: BucketSpace, count: number): Promise<void> => {
    for (let from = 0; from < count; from += 50) {
      const batch = Array.from({ length: Math.min(50, count - from) }, (_, n) => {
        const id = idOf(Buffer.from(`orphan ${from + n}`))
        const key = `${BLOCKS}/${id.slice(0, 2)}/${id.slice(2, 4)}/${id}.blk`
        return ceph().admin.put(space.bucket, space.prefix + key, 'x')
      })
      await Promise.all(batch)
    }
  }

  /** Fails unless the program counted what the proxy saw. */
  const counted = async (space: BucketSpace, ...args: string[]) => {
    space.proxy.forget()
    const document = await space.run(...args)
    const { total, ...byKind }: Record<string, number> = document.requests
    assert.ok(total !== undefined)
    assert.deepEqual(byKind, space.proxy.counts(), args.join(' '))
    assert.equal(
      total,
      Object.values(byKind).reduce((sum, count) => sum + count, 0),
    )
    const puts = space.proxy.seen.filter(({ operation }) => operation === 'PutObject')
    const gets = space.proxy.seen.filter(({ operation }) => operation === 'GetObject')
    const blocks = (seen: typeof puts) => seen.filter(({ key }) => key.endsWith('.blk')).length
    return { document, total, byKind, blockPuts: blocks(puts), blockGets: blocks(gets) }
  }

  test('stay within the budget of a backup: new blocks, two listings of the pool, and 14', async (t) => {
    const space = await openOn(t)
    await putOrphans(space, 1500)
    const contents = [...noisy(1, 2, 3, 1, 1), zeros, ...noisy(4, 5, 2, 6)]
    const image = await makeKnownImage(space.path('disk.raw'), contents)
    const backup = (...more: string[]) =>
      counted(space, 'backup', image.file, '--target', space.target, ...more)
    const pages = 2
    const first = await backup()
    assert.equal(first.blockPuts, 6)
    assert.ok(first.total <= 6 + 2 * pages + 14, JSON.stringify(first.byKind))
    const second = await backup('--name', 'second')
    assert.equal(second.blockPuts, 0)
    assert.ok(second.total <= 2 * pages + 14, JSON.stringify(second.byKind))
    const third = await backup()
    assert.equal(third.document.outcome, 'unchanged')
    assert.ok(third.total <= 2 * pages + 14, JSON.stringify(third.byKind))

    const restored = await counted(space, 'restore', space.url('disk'), space.path('out.raw'))
    assert.equal(await sha512(space.path('out.raw')), image.sha512)
    assert.equal(restored.blockGets, 6, 'one GET for each distinct block')
    assert.ok(restored.total <= 6 + 14, JSON.stringify(restored.byKind))

    const verified = await counted(space, 'verify', space.url('disk'), '--level', 'full')
    assert.ok(verified.total <= 9 + 14, JSON.stringify(verified.byKind))

    const collected = await counted(space, 'gc', '--target', space.target, '--min-age', '0s')
    assert.equal(collected.document.removed, 1500)
    assert.equal(collected.byKind.DeleteObjects, 6, '250 keys a request')
    assert.ok(collected.total <= 40, JSON.stringify(collected.byKind))
    await restores(space, 'disk', image)

    await counted(space, 'delete', space.url('second'))
    const deleted = await counted(space, 'delete', space.url('disk'))
    assert.ok(deleted.total <= 40, JSON.stringify(deleted.byKind))
  })

  test('stay within the budget of a list: one a backup and 4, and little of a large config', async (t) => {
    const space = await openOn(t)
    const whole = {
      ...placeholder('x'),
      Size: String(64 * 1024 ** 3),
      CompleteTime: '2026-01-31T03:00:00Z',
    }
    const Blocks = Array.from({ length: 32_768 }, (_, n) => ({
      Offset: n * 2_097_152,
      BlockChecksum: idOf(Buffer.from(`${n}`)),
    }))
    const COUNT = 25
    await Promise.all(
      Array.from({ length: COUNT }, (_, n) =>
        putConfig(space, `backup-${n}`, {
          ...whole,
          Name: `backup-${n}`,
          ...(n < 3 ? { BlockCount: String(Blocks.length), Blocks } : {}),
        }),
      ),
    )
    const listed = await counted(space, 'list', '--target', space.target)
    assert.equal(listed.document.backups.length, COUNT)
    assert.ok(listed.total <= COUNT + 4, JSON.stringify(listed.byKind))
    for (const { headers, operation } of space.proxy.seen) {
      if (operation === 'GetObject') assert.match(headers.range ?? '', /^bytes=0-\d{1,6}$/)
    }
  })

  test('are told to a person, too', async (t) => {
    const space = await openOn(t)
    const image = await makeKnownImage(space.path('disk.raw'), noisy(1))
    const outcome = await space.start(['backup', image.file, '--target', space.target]).done
    assert.equal(outcome.code, 0, outcome.stderr)
    assert.ok(outcome.json().requests.total > 0)
  })
})

/** Backing up: what lies in the store afterwards, and that it comes back as it was. */
import assert from 'node:assert/strict'
import {
  appendFile,
  chmod,
  chown,
  lstat,
  mkdir,
  open,
  readFile,
  rm,
  stat,
  truncate,
  utimes,
} from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { TestContext } from 'node:test'
import { describe, it } from 'node:test'
import { output, unlessThere } from '../helpers/command.ts'
import { drover, droverJson, startDrover } from '../helpers/drover.ts'
import type { Piece } from '../helpers/images.ts'
import { BLOCK, MiB, allocatedBytes, makeImage, noise, sha512, text } from '../helpers/images.ts'
import { isRoot } from '../helpers/privileges.ts'
import { blockFiles, filesBelow } from '../helpers/stores.ts'
import { waitUntil } from '../helpers/wait-until.ts'
import type { Workspace } from '../helpers/workspace.ts'
import {
  ageFile,
  assertTidy,
  backUp,
  blockPath,
  configPath,
  failed,
  fails,
  foldersBelow,
  idOf,
  lockFiles,
  openWorkspace,
  placeholder,
  readConfig,
  snapshot,
  writeConfig,
} from '../helpers/workspace.ts'

type Codec = 'lz4' | 'gzip' | 'none'

/** Restores to a file and compares it with the image. */
async function assertRestores(space: Workspace, name: string, image: string): Promise<string> {
  const file = space.path(`${name}.restored`)
  const { checksum, sizeBytes, verified } = await droverJson('restore', space.url(name), file)
  assert.equal(verified, 'full')
  assert.equal(sizeBytes, (await stat(image)).size)
  assert.equal((await stat(file)).size, sizeBytes)
  assert.equal(await sha512(file), await sha512(image))
  assert.equal(checksum, await sha512(image))
  return file
}

const ofMagic = (bytes: Buffer): Codec =>
  bytes.length >= 4 && bytes.readUInt32LE(0) === 0x184d2204
    ? 'lz4'
    : bytes[0] === 0x1f && bytes[1] === 0x8b
      ? 'gzip'
      : 'none'

/**
 * Every block of a backup, decoded by programs that know nothing of Drover, has the bytes of the
 * image that its id and its offset promise; what no block covers is zero.
 */
async function assertStored(store: string, name: string, image: string, codec: Codec) {
  const config = await readConfig(store, name)
  const bytes = await readFile(image)
  assert.equal(config.Name, name)
  assert.equal(config.Size, String(bytes.length))
  assert.equal(config.BlockCount, String(config.Blocks?.length ?? 0))
  assert.equal(config.Checksum, await sha512(image))
  assert.equal(config.CompressionMethod, codec)
  assert.match(config.CreatedTime, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  assert.match(config.CompleteTime, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  const covered = new Map(config.Blocks?.map((entry) => [entry.Offset, entry.BlockChecksum]))
  let last = -1
  for (const { Offset } of config.Blocks ?? []) {
    assert.ok(Offset > last && Offset % BLOCK === 0, 'offsets ascend in steps of 2 MiB')
    last = Offset
  }
  for (let offset = 0; offset < bytes.length; offset += BLOCK) {
    const original = bytes.subarray(offset, offset + BLOCK)
    const id = covered.get(offset)
    covered.delete(offset)
    if (id === undefined) {
      assert.ok(original.equals(Buffer.alloc(original.length)), `${offset} is zero`)
      continue
    }
    const path = blockPath(store, id)
    const stored = await readFile(path)
    assert.equal(ofMagic(stored), codec)
    const decoded = codec === 'none' ? stored : await output(codec, ['-dc'], { input: stored })
    assert.equal(idOf(decoded), id)
    assert.ok(decoded.equals(original), `the block at ${offset} has the image's bytes`)
  }
  assert.equal(covered.size, 0, 'no entry lies outside the image')
}

const tools = unlessThere('lz4', 'gzip')

describe('an image of any size', { concurrency: 4, skip: tools }, () => {
  // other bytes for each seed, the last one included
  const full = (size: number, seed: number): Piece[] => [
    [0, text(seed, size)],
    [size - 1, Buffer.from([0x41 + seed])],
  ]
  const sizes: Record<string, number> = {
    '1 byte': 1,
    '511 bytes': 511,
    '512 bytes': 512,
    '513 bytes': 513,
    'one byte less than a block': BLOCK - 1,
    'one block': BLOCK,
    'one byte more than a block': BLOCK + 1,
    'a tail of 1,463,296 bytes': BLOCK + 1_463_296,
  }
  const codecs: Codec[] = ['lz4', 'gzip', 'none']
  for (const [what, size] of Object.entries(sizes)) {
    it(`is stored so that anybody can decode it, and comes back: ${what}`, async (t) => {
      const space = await openWorkspace(t)
      const seeds = codecs.map((codec, seed) => ({ codec, seed }))
      // one after the other into one store: each with blocks of its own
      await Promise.all(
        seeds.map(async ({ codec, seed }) => {
          const image = space.path(`${codec}.raw`)
          await makeImage(image, size, full(size, seed))
          const { code, stdout, stderr } = await drover(
            'backup',
            image,
            '--target',
            space.target,
            '--json',
            '--quiet',
            '--compression',
            codec,
          )
          assert.equal(code, 0, stderr)
          const made = JSON.parse(stdout)
          assert.equal(made.sizeBytes, size)
          const total = Math.ceil(size / BLOCK)
          assert.deepEqual(made.blocks, { total, zero: 0, reused: 0, new: total })
          if (size % 512 === 0) assert.equal(stderr, '')
          else assert.match(stderr, /^warning: [^\n]*no multiple of 512[^\n]*\n$/)
          await assertStored(space.store, codec, image, codec)
          await assertRestores(space, codec, image)
        }),
      )
      await assertTidy(space.store)
    })
  }

  it('is refused when it is empty, and nothing is made in the store', async (t) => {
    const { store, target, path } = await openWorkspace(t)
    await makeImage(path('empty.raw'), 0)
    const { message } = await fails(1, 'SOURCE_EMPTY', [
      'backup',
      path('empty.raw'),
      '--target',
      target,
    ])
    assert.match(message, /empty\.raw is empty/)
    assert.deepEqual(await foldersBelow(store), [])
  })

  it('is a list of no blocks when it is all zero', async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('zeros.raw')
    await makeImage(image, 3 * BLOCK + 512)
    // zeros that are written are zeros, too
    const file = await open(image, 'r+')
    await file.write(Buffer.alloc(BLOCK), 0, BLOCK, BLOCK)
    await file.close()
    const made = await backUp(space, image)
    assert.deepEqual(made.blocks, { total: 4, zero: 4, reused: 0, new: 0 })
    assert.equal(made.bytesWritten, 0)
    assert.equal('Blocks' in (await readConfig(space.store, 'zeros')), false)
    assert.deepEqual(await blockFiles(space.store), [])
    const restored = await assertRestores(space, 'zeros', image)
    assert.ok((await allocatedBytes(restored)) <= 64 * 1024)
  })

  it('takes no more room than itself when it is all random', async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('noise.raw')
    const size = 3 * BLOCK + 100_000
    await makeImage(image, size, [[0, noise(7, size)]])
    const made = await backUp(space, image)
    assert.deepEqual(made.blocks, { total: 4, zero: 0, reused: 0, new: 4 })
    assert.ok(made.bytesWritten <= size + 4 * 1024, `${made.bytesWritten} bytes`)
    let stored = 0
    for (const path of await blockFiles(space.store)) {
      stored += (await stat(join(space.store, path))).size
    }
    assert.equal(made.bytesWritten, stored)
    await assertStored(space.store, 'noise', image, 'lz4')
    await assertRestores(space, 'noise', image)
  })

  it('keeps its holes', async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('holes.raw')
    await makeImage(image, 256 * MiB, [
      [40 * BLOCK + 12_345, text(1, 1000)],
      [100 * BLOCK - 10, text(2, 20)],
    ])
    const made = await backUp(space, image)
    assert.deepEqual(made.blocks, { total: 128, zero: 125, reused: 0, new: 3 })
    const restored = await assertRestores(space, 'holes', image)
    assert.ok((await allocatedBytes(restored)) <= 3 * BLOCK + 64 * 1024)
  })

  it('shares equal blocks within itself and counts each one', async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('equal.raw')
    const block = text(5, BLOCK)
    await makeImage(image, 9 * BLOCK + 100, [
      ...[0, 1, 3, 8].map((at) => [at * BLOCK, block] as const),
      [4 * BLOCK, noise(5, BLOCK)],
      // the same beginning, but a block of another length is another block
      [9 * BLOCK, block.subarray(0, 100)],
    ])
    const made = await backUp(space, image)
    assert.deepEqual(made.blocks, { total: 10, zero: 4, reused: 3, new: 3 })
    assert.equal((await blockFiles(space.store)).length, 3)
    await assertStored(space.store, 'equal', image, 'lz4')
    await assertRestores(space, 'equal', image)
    const other = space.path('other.raw')
    await makeImage(other, 2 * BLOCK, [
      [0, noise(6, BLOCK)],
      [BLOCK, block],
    ])
    assert.deepEqual((await backUp(space, other)).blocks, { total: 2, zero: 0, reused: 1, new: 1 })
  })

  it('is plain bytes, also as qcow2', { skip: unlessThere('qemu-img') }, async (t) => {
    const space = await openWorkspace(t)
    const [raw, image] = [space.path('disk.raw'), space.path('disk.qcow2')]
    await makeImage(raw, 64 * MiB, [
      [0, text(1, 3 * MiB)],
      [40 * MiB, noise(1, MiB)],
    ])
    await output('qemu-img', ['convert', '-O', 'qcow2', raw, image])
    const made = await backUp(space, image)
    assert.equal(made.sizeBytes, (await stat(image)).size)
    const restored = await assertRestores(space, 'disk', image)
    await output('qemu-img', ['check', '-f', 'qcow2', restored])
    await output('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', restored, raw])
  })

  it('is the same with one worker as with many', async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('disk.raw')
    await makeImage(image, 12 * BLOCK + 5, [
      [0, text(1, 4 * BLOCK)],
      [7 * BLOCK, noise(1, 5 * BLOCK + 5)],
    ])
    const other = await openWorkspace(t)
    const [one, many] = await Promise.all([
      backUp(space, image, '--concurrency', '1'),
      backUp(other, image, '--concurrency', '8'),
    ])
    assert.deepEqual(one.blocks, many.blocks)
    assert.deepEqual(
      (await readConfig(space.store, 'disk')).Blocks,
      (await readConfig(other.store, 'disk')).Blocks,
    )
    const file = space.path('restored')
    for (const limit of ['1', '8']) {
      await droverJson('restore', space.url('disk'), file, '--force', '--concurrent-limit', limit)
      assert.equal(await sha512(file), one.checksum)
    }
  })
})

describe('a name that exists', { concurrency: 4 }, () => {
  const prepare = async (t: TestContext) => {
    const space = await openWorkspace(t)
    const [image, other] = [space.path('disk.raw'), space.path('other.raw')]
    await makeImage(image, 4 * BLOCK, [[0, text(1, 3 * BLOCK)]])
    await makeImage(other, 4 * BLOCK, [[0, text(1, 2 * BLOCK)]])
    const made = await backUp(space, image, '--label', 'a=1')
    return { space, image, other, made }
  }

  it('is unchanged for the same content, whatever compression is asked for', async (t) => {
    const { space, image } = await prepare(t)
    const before = await snapshot(space.store)
    for (const codec of ['lz4', 'gzip', 'none']) {
      const again = await backUp(space, image, '--compression', codec)
      assert.equal(again.outcome, 'unchanged')
      assert.equal(again.compression, 'lz4')
      assert.equal(again.bytesWritten, 0)
      assert.deepEqual(again.blocks, { total: 4, zero: 1, reused: 3, new: 0 })
    }
    assert.deepEqual(await snapshot(space.store), before)
  })

  it('gets blocks again that it lost, and empty ones', async (t) => {
    const { space, image } = await prepare(t)
    const { Blocks = [] } = await readConfig(space.store, 'disk')
    const [first, second] = Blocks.map(({ BlockChecksum }) => blockPath(space.store, BlockChecksum))
    assert.ok(first && second)
    const whole = await readFile(second)
    await rm(dirname(dirname(first)), { recursive: true })
    await truncate(second, 0)
    const healed = await backUp(space, image)
    assert.equal(healed.outcome, 'unchanged')
    assert.deepEqual(healed.blocks, { total: 4, zero: 1, reused: 1, new: 2 })
    assert.ok(healed.bytesWritten > 0)
    assert.deepEqual(await readFile(second), whole)
    assert.equal((await droverJson('verify', space.url('disk'))).ok, true)
    await assertRestores(space, 'disk', image)
  })

  it('is a conflict for other content, and nothing is written', async (t) => {
    const { space, other, made } = await prepare(t)
    // of another size, so that it is known before the image is read; and of the same
    const longer = space.path('longer.raw')
    await makeImage(longer, 5 * BLOCK, [[0, text(9, BLOCK)]])
    const before = await snapshot(space.store)
    const backup = ['backup', '--target', space.target, '--name', 'disk']
    const [sameSize, otherSize] = await Promise.all([
      fails(1, 'NAME_CONFLICT', [...backup, other]),
      fails(1, 'NAME_CONFLICT', [...backup, longer]),
    ])
    assert.equal(sameSize.details['name'], 'disk')
    assert.equal(sameSize.details['storedChecksum'], made.checksum)
    assert.equal(otherSize.details['storedSizeBytes'], 4 * BLOCK)
    assert.match(sameSize.message, /--replace/)
    assert.deepEqual(await snapshot(space.store), before)
  })

  it('is replaced when asked for, and what a config holds besides stays', async (t) => {
    const { space, other } = await prepare(t)
    const config = await readConfig(space.store, 'disk')
    await writeConfig(space.store, 'disk', {
      ...config,
      Secret: 'a-secret',
      SecretNamespace: 'a-namespace',
      FutureField: { deep: [1, null, 'x'] },
    })
    const replaced = await backUp(space, other, '--name', 'disk', '--replace', '--label', 'b=2')
    assert.equal(replaced.outcome, 'replaced')
    assert.deepEqual(replaced.blocks, { total: 4, zero: 2, reused: 2, new: 0 })
    await assertRestores(space, 'disk', other)
    const now = await readConfig(space.store, 'disk')
    assert.deepEqual(now['FutureField'], { deep: [1, null, 'x'] })
    assert.deepEqual([now['Secret'], now['SecretNamespace']], ['a-secret', 'a-namespace'])
    assert.deepEqual(now.Labels, { b: '2' })
    await assertTidy(space.store)
  })

  it('is replaced when its config is damaged, but only when asked for', async (t) => {
    const { space, image } = await prepare(t)
    const path = configPath(space.store, 'disk')
    await truncate(path, 100)
    const { message } = await fails(1, 'NAME_CONFLICT', ['backup', image, '--target', space.target])
    assert.match(message, /damaged/)
    assert.equal((await stat(path)).size, 100)
    const { outcome, blocks } = await backUp(space, image, '--replace')
    assert.equal(outcome, 'replaced')
    assert.equal(blocks.reused, 3)
    await assertRestores(space, 'disk', image)
  })

  it('is taken over from a dead placeholder with what that holds besides', async (t) => {
    const { space, image } = await prepare(t)
    await writeConfig(space.store, 'begun', { ...placeholder('begun'), FutureField: 7 })
    await ageFile(configPath(space.store, 'begun'), 151)
    const { outcome, blocks } = await backUp(space, image, '--name', 'begun')
    assert.equal(outcome, 'created')
    assert.equal(blocks.reused, 3)
    assert.equal((await readConfig(space.store, 'begun'))['FutureField'], 7)
    await assertRestores(space, 'begun', image)
  })

  it('keeps its labels until others are given', async (t) => {
    const { space, image } = await prepare(t)
    assert.deepEqual((await readConfig(space.store, 'disk')).Labels, { a: '1' })
    const labels = ['--label', 'env=prod', '--label', 'note=a = b', '--label', 'empty=']
    await backUp(space, image, '--name', 'labelled', ...labels)
    const expected = { env: 'prod', note: 'a = b', empty: '' }
    assert.deepEqual((await readConfig(space.store, 'labelled')).Labels, expected)
    assert.deepEqual((await droverJson('inspect', space.url('labelled'))).labels, expected)
    assert.equal((await backUp(space, image, '--name', 'labelled')).outcome, 'unchanged')
    assert.deepEqual((await readConfig(space.store, 'labelled')).Labels, expected)
  })
})

describe('an image that is not as it should be', { concurrency: 4 }, () => {
  it('is not committed when its checksum is not the one given', async (t) => {
    const { store, target, path } = await openWorkspace(t)
    const image = path('disk.raw')
    await makeImage(image, 2 * BLOCK, [[0, text(1, BLOCK)]])
    const right = await sha512(image)
    const wrong = right.replace(/^./, (digit) => (digit === '0' ? '1' : '0'))
    const { details } = await fails(1, 'CHECKSUM_MISMATCH', [
      'backup',
      image,
      '--target',
      target,
      '--checksum',
      wrong,
    ])
    assert.deepEqual(details, { expected: wrong, checksum: right })
    assert.deepEqual(
      (await filesBelow(store)).filter((file) => !file.endsWith('.blk')),
      [],
    )
    const { backups } = await droverJson('list', '--target', target)
    assert.deepEqual(backups, [])
    const made = await droverJson(
      'backup',
      image,
      '--target',
      target,
      '--checksum',
      right.toUpperCase(),
    )
    assert.equal(made.checksum, right)
  })

  const changes: Record<string, (image: string) => Promise<void>> = {
    grows: (image) => appendFile(image, 'more'),
    shrinks: (image) => truncate(image, MiB),
    'is touched': async (image) => {
      const now = new Date()
      await utimes(image, now, now)
    },
    'is written to in place': async (image) => {
      const file = await open(image, 'r+')
      await file.write(Buffer.from('changed'), 0, 7, 64 * MiB)
      await file.close()
    },
  }
  for (const [what, change] of Object.entries(changes)) {
    it(`is not committed when it ${what} while it is read`, async (t) => {
      const { store, target, path } = await openWorkspace(t)
      const image = path('disk.raw')
      await makeImage(image, 512 * MiB, [[0, text(1, BLOCK)]])
      const running = startDrover(['backup', image, '--target', target, '--json'])
      t.after(() => running.child.kill('SIGKILL'))
      // the lock is asked for after the image was opened, and takes two seconds
      await waitUntil(async () => (await lockFiles(store)).length > 0, 'it has begun')
      await change(image)
      const { message } = failed(await running.done, 1, 'SOURCE_CHANGED')
      assert.match(message, /disk\.raw changed while it was read/)
      const files = await filesBelow(store)
      assert.deepEqual(
        files.filter((file) => !file.endsWith('.blk')),
        [],
      )
    })
  }

  it('is not committed while somebody writes to it all the time', async (t) => {
    const { store, target, path } = await openWorkspace(t)
    const image = path('disk.raw')
    await makeImage(image, 64 * BLOCK, [[0, text(1, BLOCK)]])
    const running = startDrover(['backup', image, '--target', target, '--json'])
    t.after(() => running.child.kill('SIGKILL'))
    const file = await open(image, 'r+')
    for (let n = 0; running.child.exitCode === null; n++) {
      await file.write(noise(n, 4096), 0, 4096, (n % 64) * BLOCK)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await file.close()
    failed(await running.done, 1, 'SOURCE_CHANGED')
    assert.deepEqual(
      (await filesBelow(store)).filter((name) => !name.endsWith('.blk')),
      [],
    )
  })
})

describe('compressed and uncompressed blocks in one store', { concurrency: 4 }, () => {
  const shared = text(1, BLOCK)
  const own = (seed: number) => text(100 + seed, BLOCK)

  const imageOf = async (space: Workspace, name: string, ...blocks: Buffer[]) => {
    const image = space.path(`${name}.raw`)
    await makeImage(
      image,
      blocks.length * BLOCK,
      blocks.map((bytes, at) => [at * BLOCK, bytes] as const),
    )
    return image
  }

  const kindsOf = async (store: string, name: string): Promise<Codec[]> => {
    const { Blocks = [] } = await readConfig(store, name)
    const files = await Promise.all(
      Blocks.map(({ BlockChecksum }) => readFile(blockPath(store, BlockChecksum))),
    )
    return files.map(ofMagic)
  }

  for (const codec of ['lz4', 'gzip']) {
    it(`are refused to a backup with ${codec} that needs one stored uncompressed`, async (t) => {
      const space = await openWorkspace(t)
      const plain = await imageOf(space, 'plain', shared, own(1))
      const mixed = await imageOf(space, 'mixed', own(2), shared)
      await backUp(space, plain, '--compression', 'none')
      const { message } = await fails(1, 'CODEC_CONFLICT', [
        'backup',
        mixed,
        '--target',
        space.target,
        '--compression',
        codec,
      ])
      assert.match(message, /--compression none/)
      const { backups } = await droverJson('list', '--target', space.target)
      assert.deepEqual(
        backups.map(({ name }: { name: string }) => name),
        ['plain'],
      )
      // the way out that the message names is one, in a store that has only such blocks
      const fresh = await openWorkspace(t)
      await backUp(fresh, plain, '--compression', 'none')
      const made = await backUp(fresh, mixed, '--compression', 'none')
      assert.equal(made.compression, 'none')
      assert.deepEqual(await kindsOf(fresh.store, 'mixed'), ['none', 'none'])
      await assertRestores(fresh, 'mixed', mixed)
    })

    it(`turn an uncompressed backup into lz4 when it shares one stored with ${codec}`, async (t) => {
      const space = await openWorkspace(t)
      const framed = await imageOf(space, 'framed', shared, own(1))
      const wanted = await imageOf(space, 'wanted', own(2), shared)
      await backUp(space, framed, '--compression', codec)
      const { code, stdout, stderr } = await drover(
        'backup',
        wanted,
        '--target',
        space.target,
        '--compression=none',
        '--json',
        '--quiet',
      )
      assert.equal(code, 0, stderr)
      assert.equal(JSON.parse(stdout).compression, 'lz4')
      assert.match(stderr, /^warning: stored as lz4, not uncompressed/m)
      assert.equal((await readConfig(space.store, 'wanted')).CompressionMethod, 'lz4')
      assert.deepEqual(await kindsOf(space.store, 'wanted'), ['lz4', codec])
      await Promise.all([
        assertRestores(space, 'wanted', wanted),
        assertRestores(space, 'framed', framed),
      ])
    })
  }

  it('mix freely when all are compressed', async (t) => {
    const space = await openWorkspace(t)
    const first = await imageOf(space, 'first', shared, own(1))
    const second = await imageOf(space, 'second', own(2), shared, own(1))
    await backUp(space, first, '--compression', 'gzip')
    const made = await backUp(space, second, '--compression', 'lz4')
    assert.deepEqual(made.blocks, { total: 3, zero: 0, reused: 2, new: 1 })
    assert.deepEqual(await kindsOf(space.store, 'second'), ['lz4', 'gzip', 'gzip'])
    await assertRestores(space, 'second', second)
  })

  it('never end up in one config, whatever is asked for', async (t) => {
    const space = await openWorkspace(t)
    const framed = await imageOf(space, 'framed', own(1))
    const plain = await imageOf(space, 'plain', own(2))
    const both = await imageOf(space, 'both', own(1), own(2), own(3))
    await Promise.all([backUp(space, framed), backUp(space, plain, '--compression', 'none')])
    const backup = ['backup', both, '--target', space.target]
    await Promise.all([
      fails(1, 'CODEC_CONFLICT', [...backup, '--name=a1', '--compression=none']),
      fails(1, 'CODEC_CONFLICT', [...backup, '--name=a2', '--compression=lz4']),
      fails(1, 'CODEC_CONFLICT', [...backup, '--name=a3', '--compression=gzip']),
    ])
    const { backups } = await droverJson('list', '--target', space.target)
    assert.equal(backups.length, 2)
  })

  // data that begins as a compressed frame does: an archive that happens to lie at such an offset
  const looks: Record<string, Buffer> = {
    'an LZ4 frame': Buffer.concat([Buffer.from([0x04, 0x22, 0x4d, 0x18]), noise(3, BLOCK - 4)]),
    'a gzip file': Buffer.concat([Buffer.from([0x1f, 0x8b]), noise(4, BLOCK - 2)]),
  }
  for (const [what, bytes] of Object.entries(looks)) {
    it(`are told apart by their content: uncompressed data that begins like ${what}`, async (t) => {
      const space = await openWorkspace(t)
      const image = await imageOf(space, 'archive', bytes, own(1))
      await backUp(space, image, '--compression', 'none')
      await assertRestores(space, 'archive', image)
      assert.equal((await droverJson('verify', space.url('archive'))).ok, true)
      // the second and third need the blocks that the first stored: uncompressed ones, all of them
      const again = await backUp(space, image)
      assert.equal(again.outcome, 'unchanged')
      const other = await backUp(space, image, '--name', 'other', '--compression', 'none')
      assert.equal(other.compression, 'none')
      assert.deepEqual(other.blocks, { total: 2, zero: 0, reused: 2, new: 0 })
    })

    it(`are not taken for compressed: uncompressed data that begins like ${what}`, async (t) => {
      const space = await openWorkspace(t)
      const image = await imageOf(space, 'archive', bytes)
      await backUp(space, image, '--compression', 'none')
      const backup = ['backup', image, '--target', space.target, '--name', 'other']
      await fails(1, 'CODEC_CONFLICT', [...backup, '--compression', 'lz4'])
    })
  }
})

describe('a store after a run', { concurrency: 4 }, () => {
  const modeOf = async (path: string) => ((await lstat(path)).mode & 0o777).toString(8)

  it("has folders and files for its owner's eyes only", async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('disk.raw')
    await makeImage(image, BLOCK, [[0, text(1, BLOCK)]])
    await backUp(space, image)
    for (const folder of await foldersBelow(space.store)) {
      assert.equal(await modeOf(join(space.store, folder)), '700', folder)
    }
    for (const file of await filesBelow(space.store)) {
      assert.equal(await modeOf(join(space.store, file)), '600', file)
    }
    await assertTidy(space.store)
  })

  for (const mode of [0o750, 0o770, 0o755]) {
    it(`has folders of mode ${mode.toString(8)} where its first folder has that`, async (t) => {
      const space = await openWorkspace(t)
      const image = space.path('disk.raw')
      await makeImage(image, BLOCK, [[0, text(1, BLOCK)]])
      await mkdir(join(space.store, 'backupstore'))
      await chmod(join(space.store, 'backupstore'), mode)
      await backUp(space, image)
      for (const folder of await foldersBelow(space.store)) {
        assert.equal(await modeOf(join(space.store, folder)), mode.toString(8), folder)
      }
    })
  }

  it(
    'belongs to the owner of its first folder',
    { skip: isRoot ? false : 'only root can give files away' },
    async (t) => {
      const space = await openWorkspace(t)
      const image = space.path('disk.raw')
      await makeImage(image, BLOCK, [[0, text(1, BLOCK)]])
      await mkdir(join(space.store, 'backupstore'))
      await chown(join(space.store, 'backupstore'), 12_345, 54_321)
      await backUp(space, image)
      const all = [...(await foldersBelow(space.store)), ...(await filesBelow(space.store))]
      for (const path of all) {
        const { uid, gid } = await lstat(join(space.store, path))
        assert.deepEqual([uid, gid], [12_345, 54_321], path)
      }
    },
  )

  it('has no lock, no staging and nothing but finished configs, whatever became of the run', async (t) => {
    const space = await openWorkspace(t)
    const { target } = space
    const image = space.path('disk.raw')
    await makeImage(image, 4 * BLOCK, [[0, text(1, 3 * BLOCK)]])
    await backUp(space, image)
    await assertTidy(space.store)
    const wrong = `--checksum=${'0'.repeat(128)}`
    await Promise.all([
      backUp(space, image),
      backUp(space, image, '--name', 'second'),
      fails(1, 'CHECKSUM_MISMATCH', ['backup', image, '--target', target, '--name=other', wrong]),
      fails(3, 'BACKUP_NOT_FOUND', ['restore', space.url('none'), space.path('none')]),
      fails(3, 'BACKUP_NOT_FOUND', ['verify', space.url('none')]),
      fails(3, 'BACKUP_NOT_FOUND', ['delete', space.url('none')]),
    ])
    await assertTidy(space.store)
    const folders = await foldersBelow(join(space.store, 'backupstore'))
    assert.deepEqual(
      folders.filter((folder) => !/^backing-images\b/.test(folder)),
      [],
      'folders of locks and of staging',
    )
    assert.deepEqual(
      (await filesBelow(space.folder)).filter((file) => basename(file).startsWith('.')),
      [],
    )
  })
})

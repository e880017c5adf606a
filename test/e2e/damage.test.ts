/** Really damaged stores: every bad block is named, and nothing bad is ever restored. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import {
  cp,
  mkdir,
  open,
  readFile,
  readdir,
  rename,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { TestContext } from 'node:test'
import { after, before, describe, it } from 'node:test'
import { gzipSync } from 'node:zlib'
import { output, unlessThere } from '../helpers/command.ts'
import { droverJson, startDrover } from '../helpers/drover.ts'
import { BLOCK, MiB, makeImage, noise, sha512, text } from '../helpers/images.ts'
import { altered, frameOfBlock } from '../helpers/memory-backup.ts'
import { filesBelow } from '../helpers/stores.ts'
import type { Workspace } from '../helpers/workspace.ts'
import {
  backUp,
  blockPath,
  configPath,
  failed,
  fails,
  idOf,
  openWorkspace,
  placeholder,
  readConfig,
  runJson,
  snapshot,
  writeConfig,
} from '../helpers/workspace.ts'

const COUNT = 13

/** The image's blocks: text, with noise at 1 and 6; the last is the first again, and a hole at 5. */
const blocks = Array.from({ length: COUNT }, (_, at) =>
  at === 5
    ? Buffer.alloc(BLOCK)
    : at === 1 || at === 6
      ? noise(at, BLOCK)
      : text(at === COUNT - 1 ? 0 : at, BLOCK),
)

/** Stores made once; each test works on a copy. */
let kept: Workspace
const leave: Array<() => unknown> = []
before(async () => {
  kept = await openWorkspace({ after: (fn) => void leave.push(() => (fn as () => unknown)()) })
  await makeImage(
    kept.path('disk.raw'),
    COUNT * BLOCK,
    blocks.flatMap((bytes, at) => (at === 5 ? [] : [[at * BLOCK, bytes] as const])),
  )
  await Promise.all(
    ['lz4', 'gzip', 'none'].map(async (codec) => {
      await mkdir(kept.path(codec))
      const target = `vfs://${kept.path(codec)}`
      await backUp({ target }, kept.path('disk.raw'), '--compression', codec)
    }),
  )
})
after(async () => {
  for (const step of leave) await step()
})

interface Bench extends Workspace {
  readonly image: string
  /** The path of the block that stands at this place of the image. */
  readonly at: (index: number) => string
}

async function copyOfStore(t: TestContext, codec = 'lz4'): Promise<Bench> {
  const space = await openWorkspace(t)
  await cp(kept.path(codec), space.store, { recursive: true })
  const at = (index: number) => blockPath(space.store, idOf(blocks[index] ?? Buffer.alloc(0)))
  return { ...space, image: kept.path('disk.raw'), at }
}

async function flip(path: string, position: number): Promise<void> {
  const bytes = await readFile(path)
  bytes[position] = (bytes[position] ?? 0) ^ 0x10
  await writeFile(path, bytes)
}

async function swap(a: string, b: string): Promise<void> {
  await rename(a, `${a}.swap`)
  await rename(b, a)
  await rename(`${a}.swap`, b)
}

/** One LZ4 frame of one block that decodes to this many zeros; it tells nothing of its length. */
function lz4Bomb(bytes: number): Buffer {
  // one zero, then a match of itself, its length in bytes of 255
  const match = Buffer.alloc(Math.floor(bytes / 255), 255)
  const data = Buffer.concat([
    Buffer.from([0x1f, 0x00, 0x01, 0x00]),
    match,
    Buffer.from([0x00, 0x50, 0, 0, 0, 0, 0]),
  ])
  const length = Buffer.alloc(4)
  length.writeUInt32LE(data.length)
  const header = Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73])
  return Buffer.concat([header, length, data, Buffer.alloc(4)])
}

/** A gzip file that decodes to this many zeros. */
const gzipBomb = (bytes: number): Buffer => {
  const member = gzipSync(Buffer.alloc(16 * MiB), { level: 9 })
  return Buffer.concat(Array.from({ length: bytes / (16 * MiB) }, () => member))
}

/** What the `lz4` program makes of that many zeros: a good frame of many blocks. */
const lz4OfZeros = (bytes: number): Promise<Buffer> =>
  output('sh', ['-c', `head -c ${bytes} /dev/zero | lz4 -c`])

const damages: Record<
  string,
  { apply: (bench: Bench, index: number) => Promise<void>; reason: RegExp | 'missing' }
> = {
  'with a flipped bit in its data': {
    apply: ({ at }, index) => flip(at(index), 1000),
    reason: /./,
  },
  'with a flipped bit in its head': { apply: ({ at }, index) => flip(at(index), 0), reason: /./ },
  'cut short': {
    apply: async ({ at }, index) => truncate(at(index), (await readFile(at(index))).length - 10),
    reason: /./,
  },
  'cut to its first byte': { apply: ({ at }, index) => truncate(at(index), 1), reason: /./ },
  empty: { apply: ({ at }, index) => truncate(at(index), 0), reason: /empty/ },
  gone: { apply: ({ at }, index) => rm(at(index)), reason: 'missing' },
  'exchanged for other good data': {
    apply: async ({ at }, index) => writeFile(at(index), await readFile(at(3))),
    reason: /id/,
  },
  'whose frame is a good one of a block of which one bit is another one': {
    apply: ({ at }, index) =>
      writeFile(at(index), frameOfBlock(altered(blocks[index] ?? Buffer.alloc(0)))),
    reason: /does not match its id after lz4 decoding/,
  },
  'exchanged for raw bytes of its length': {
    apply: ({ at }, index) => writeFile(at(index), noise(99, BLOCK)),
    reason: /id/,
  },
  'of garbage': { apply: ({ at }, index) => writeFile(at(index), randomBytes(5000)), reason: /./ },
  'larger than any block': {
    apply: ({ at }, index) => truncate(at(index), 100 * MiB),
    reason: /more than any block/,
  },
  'an LZ4 frame of 400 MiB': {
    apply: ({ at }, index) => writeFile(at(index), lz4Bomb(400 * MiB)),
    reason: /./,
  },
  'a gzip file of 1 GiB': {
    apply: ({ at }, index) => writeFile(at(index), gzipBomb(1024 * MiB)),
    reason: /more than the 2097152 bytes/,
  },
  'followed by more bytes': {
    apply: async ({ at }, index) =>
      writeFile(at(index), Buffer.concat([await readFile(at(index)), Buffer.from('more')])),
    reason: /./,
  },
}

describe('a damaged block', { concurrency: 4 }, () => {
  for (const [what, { apply, reason }] of Object.entries(damages)) {
    it(`is found by a restore, which leaves nothing behind and spares what is there: ${what}`, async (t) => {
      const bench = await copyOfStore(t)
      const { url, path, folder } = bench
      const index = 7
      await apply(bench, index)
      await writeFile(path('there.raw'), 'precious')
      const before = await snapshot(folder)
      const code = reason === 'missing' ? 'BLOCK_MISSING' : 'BLOCK_CORRUPT'
      const [fresh, forced] = await Promise.all([
        fails(3, code, ['restore', url('disk'), path('new.raw')]),
        fails(3, code, ['restore', url('disk'), path('there.raw'), '--force']),
      ])
      for (const { details } of [fresh, forced]) {
        assert.equal(details['id'], idOf(blocks[index] ?? Buffer.alloc(0)))
        assert.equal(details['offset'], index * BLOCK)
        if (reason !== 'missing') assert.match(details['reason'], reason)
      }
      assert.deepEqual(await snapshot(folder), before)
    })
  }

  it('is found by a restore that proves blocks alone', async (t) => {
    const { url, path, at } = await copyOfStore(t)
    await swap(at(2), at(3))
    await fails(3, 'BLOCK_CORRUPT', ['restore', url('disk'), path('out'), '--verify', 'blocks'])
    await assert.rejects(readFile(path('out')))
  })

  it('is found by a restore when it changed places with another one', async (t) => {
    const { url, path, at, folder } = await copyOfStore(t)
    await swap(at(8), at(9))
    const before = await snapshot(folder)
    const { details } = await fails(3, 'BLOCK_CORRUPT', ['restore', url('disk'), path('out')])
    const index = details['offset'] / BLOCK
    assert.ok([8, 9].includes(index), `at ${details['offset']}`)
    assert.equal(details['id'], idOf(blocks[index] ?? Buffer.alloc(0)))
    assert.deepEqual(await snapshot(folder), before)
  })

  it('is named when only hashes can tell, by both levels of verify that read blocks', async (t) => {
    const bench = await copyOfStore(t)
    const { at, url, store } = bench
    const silent = 'whose frame is a good one of a block of which one bit is another one'
    const corrupt = (document: any): number[] =>
      document.corrupt.map(({ offsets }: { offsets: number[] }) => (offsets[0] ?? NaN) / BLOCK)
    const verified = async (): Promise<any[]> => {
      const before = await snapshot(store)
      const [full, byIds] = await Promise.all(
        ['full', 'blocks'].map((level) => runJson(['verify', url('disk'), '--level', level])),
      )
      assert.deepEqual(await snapshot(store), before)
      for (const told of [full, byIds]) assert.equal(told?.code, 3, told?.stderr)
      for (const key of ['ok', 'blocks', 'missing', 'corrupt', 'checksum']) {
        assert.deepEqual(byIds?.document[key], full?.document[key], key)
      }
      return [full?.document, byIds?.document]
    }

    // every frame decodes well, so nothing seems wrong before the end
    await swap(at(2), at(3))
    await damages[silent]?.apply(bench, 7)
    await damages[silent]?.apply(bench, 11)
    for (const document of await verified()) {
      assert.deepEqual([document.ok, document.missing, document.checksum], [false, [], null])
      assert.deepEqual(corrupt(document), [2, 3, 7, 11])
    }
    // among others that are seen at once
    await rm(at(6))
    await truncate(at(9), 5000)
    for (const document of await verified()) {
      assert.deepEqual(
        document.missing.map(({ offsets }: { offsets: number[] }) => offsets),
        [[6 * BLOCK]],
      )
      assert.deepEqual(corrupt(document), [2, 3, 7, 9, 11])
    }
  })

  it(
    'is named by verify with its offsets and the reason: all of them, not only the first',
    { skip: unlessThere('lz4') },
    async (t) => {
      const bench = await copyOfStore(t)
      const { at, url, store } = bench
      const apply = (what: string, index: number) => damages[what]?.apply(bench, index)
      await apply('with a flipped bit in its data', 0)
      await apply('cut short', 1)
      await apply('empty', 2)
      await swap(at(3), at(4))
      await apply('gone', 6)
      await writeFile(at(7), lz4Bomb(400 * MiB))
      await apply('a gzip file of 1 GiB', 8)
      await writeFile(at(9), await lz4OfZeros(256 * MiB))
      await apply('larger than any block', 10)
      const before = await snapshot(store)

      const { code, document } = await runJson(['verify', url('disk'), '--level', 'full'])
      assert.equal(code, 3)
      assert.equal(document.ok, false)
      assert.equal(document.checksum, null)
      assert.deepEqual(document.blocks, { total: COUNT - 1, checked: COUNT - 1 })
      const id = (index: number) => idOf(blocks[index] ?? Buffer.alloc(0))
      assert.deepEqual(document.missing, [{ id: id(6), offsets: [6 * BLOCK] }])
      const corrupt = [0, 1, 2, 3, 4, 7, 8, 9, 10]
      assert.deepEqual(
        document.corrupt.map(({ id, offsets }: { id: string; offsets: number[] }) => [id, offsets]),
        corrupt.map((index) => [
          id(index),
          index === 0 ? [0, (COUNT - 1) * BLOCK] : [index * BLOCK],
        ]),
      )
      const reasons = document.corrupt.map(({ reason }: { reason: string }) => reason)
      assert.match(reasons[2], /empty/)
      assert.match(reasons[3], /id/)
      assert.match(reasons[6], /more than the 2097152 bytes/)
      assert.match(reasons[7], /more than the 2097152 bytes/)
      assert.match(reasons[8], /104857600 bytes/)
      for (const reason of reasons) assert.notEqual(reason, '')
      assert.deepEqual(await snapshot(store), before)
    },
  )

  it('is named when all are bad', async (t) => {
    const { url, store } = await copyOfStore(t)
    for (const file of await filesBelow(store)) {
      if (file.endsWith('.blk')) await flip(join(store, file), 1000)
    }
    const { code, document } = await runJson(['verify', url('disk')])
    assert.equal(code, 3)
    assert.equal(document.corrupt.length, COUNT - 2)
    const offsets = document.corrupt.flatMap(({ offsets }: { offsets: number[] }) => offsets)
    assert.deepEqual(
      offsets.sort((a: number, b: number) => a - b),
      blocks.flatMap((_, at) => (at === 5 ? [] : [at * BLOCK])),
    )
  })

  it('is shown to a person, too', async (t) => {
    const { url, at } = await copyOfStore(t)
    await rm(at(6))
    await flip(at(0), 1000)
    const { code, stdout } = await startDrover(['verify', url('disk'), '--quiet']).done
    assert.equal(code, 3)
    const id = (index: number) => idOf(blocks[index] ?? Buffer.alloc(0))
    assert.match(stdout, new RegExp(`^missing +${id(6)} at ${6 * BLOCK}$`, 'm'))
    assert.match(stdout, new RegExp(`^corrupt +${id(0)} at 0, ${(COUNT - 1) * BLOCK}: `, 'm'))
    assert.match(stdout, /^BAD/m)
  })

  for (const codec of ['gzip', 'none']) {
    it(`is found whatever it is stored as: ${codec}`, async (t) => {
      const bench = await copyOfStore(t, codec)
      const { url, at, path } = bench
      await flip(at(1), 100_000)
      await flip(at(2), 10)
      await truncate(at(6), 5000)
      await swap(at(7), at(8))
      const [{ code, document }] = await Promise.all([
        runJson(['verify', url('disk')]),
        fails(3, 'BLOCK_CORRUPT', ['restore', url('disk'), path('out')]),
      ])
      assert.equal(code, 3)
      assert.deepEqual(
        document.corrupt.map(({ offsets }: { offsets: number[] }) => offsets),
        [1, 2, 6, 7, 8].map((index) => [index * BLOCK]),
      )
    })
  }

  it('is seen from outside only when it is missing or empty, and so it is named', async (t) => {
    const bench = await copyOfStore(t)
    const { url, at } = bench
    await rm(at(6))
    await truncate(at(7), 0)
    await flip(at(8), 1000)
    const { code, document } = await runJson(['verify', url('disk'), '--level', 'exists'])
    assert.equal(code, 3)
    const bad = [...document.missing, ...document.corrupt]
    assert.deepEqual(
      bad.map(({ offsets }) => offsets),
      [[6 * BLOCK], [7 * BLOCK]],
    )
    const config = await runJson(['verify', url('disk'), '--level', 'config'])
    assert.deepEqual([config.code, config.document.ok], [0, true])
  })

  it('never takes the memory that it claims', async (t) => {
    const bench = await copyOfStore(t)
    const { url, at } = bench
    for (const index of [1, 2, 3, 4]) await writeFile(at(index), lz4Bomb(500 * MiB))
    for (const index of [6, 7, 8]) await writeFile(at(index), gzipBomb(1024 * MiB))
    await truncate(at(9), 3 * 1024 * MiB)
    const running = startDrover(['verify', url('disk'), '--json', '--concurrent-limit', '8'])
    t.after(() => running.child.kill('SIGKILL'))
    const peak = peakMemory(running.child.pid ?? 0)
    const { code, json } = await running.done.then((outcome) => ({
      code: outcome.code,
      json: outcome.json(),
    }))
    assert.equal(code, 3)
    assert.equal(json.corrupt.length, 8)
    // the verdict takes two seconds after the first look at each, so the peak was seen
    const bytes = await peak
    assert.ok(bytes > 0 && bytes < 400 * MiB, `${Math.round(bytes / MiB)} MiB`)
  })

  it('is written again by a backup when it is missing, and then the backup is good', async (t) => {
    const bench = await copyOfStore(t)
    const { url, at, image } = bench
    await rm(at(0))
    await rm(dirname(dirname(at(3))), { recursive: true })
    await truncate(at(6), 0)
    const { outcome, blocks: counts } = await backUp(bench, image)
    assert.equal(outcome, 'unchanged')
    assert.ok(counts.new >= 3)
    const verified = await droverJson('verify', url('disk'))
    assert.deepEqual([verified.ok, verified.checksum], [true, await sha512(image)])
  })

  it('does not keep verify from finding the others when it is a link, which is not followed', async (t) => {
    const { url, at, path, folder } = await copyOfStore(t)
    // to the very bytes that should be there: only that it leads out of the store is wrong
    await rename(at(2), path('outside.blk'))
    await symlink(path('outside.blk'), at(2))
    await rm(at(6))
    const before = await filesBelow(folder)
    const [{ code, document, stderr }, error] = await Promise.all([
      runJson(['verify', url('disk')]),
      startDrover(['restore', url('disk'), path('out'), '--json', '--verify=blocks']).done,
    ])
    assert.equal(error.code, 3)
    assert.deepEqual(await filesBelow(folder), before)
    assert.equal(code, 3, stderr)
    const bad = [...(document.missing ?? []), ...(document.corrupt ?? [])]
    assert.deepEqual(
      bad.flatMap(({ offsets }) => offsets).sort((a, b) => a - b),
      [2 * BLOCK, 6 * BLOCK],
      JSON.stringify(document),
    )
  })

  it('is not looked for outside the store when its folder is a link', async (t) => {
    const { url, at, path, store } = await copyOfStore(t)
    const folder = dirname(dirname(at(2)))
    await rename(folder, path('outside'))
    await symlink(path('outside'), folder)
    const [{ message }] = await Promise.all([
      fails(3, 'BLOCK_CORRUPT', ['restore', url('disk'), path('out')]),
      runJson(['verify', url('disk'), '--level=exists']).then(({ code }) => assert.equal(code, 3)),
    ])
    assert.match(message, /link/)
    assert.ok((await readdir(path('outside'))).length > 0)
    await assert.rejects(readFile(path('out')))
    assert.notEqual((await filesBelow(store)).length, 0)
  })
})

/** The largest size a process reaches, in bytes, as far as it can be seen until it ends. */
async function peakMemory(pid: number): Promise<number> {
  for (let peak = 0; ;) {
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
    const found = /^VmHWM:\s+(\d+) kB$/m.exec(status)
    if (!found) return peak
    peak = Math.max(peak, Number(found[1]) * 1024)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

describe('a damaged config', { concurrency: 4 }, () => {
  const complete = (name: string) => ({
    ...placeholder(name),
    CompleteTime: '2026-01-31T03:00:00Z',
  })
  const id = 'a'.repeat(64)
  const entry = (Offset: unknown, BlockChecksum: unknown = id) => ({ Offset, BlockChecksum })

  /** Configs that are none, and what is said of each. */
  const bad: Record<string, [config: object | string | Buffer, reason: RegExp]> = {
    empty: ['', /cut off/],
    cut: [JSON.stringify(complete('cut')).slice(0, 150), /cut off/],
    garbage: [noise(1, 5000), /not a JSON object/],
    array: ['[]', /not a JSON object/],
    'null-value': ['null', /not a JSON object/],
    'more-after': [`${JSON.stringify(complete('more-after'))} {}`, /follows/],
    'not-utf8': [Buffer.from('7b224e616d65223a22ff22207d', 'hex'), /UTF-8/],
    nothing: ['{}', /Name: expected "nothing"/],
    'other-name': [complete('somebody-else'), /Name: expected "other-name", got "somebody-else"/],
    'size-number': [{ ...complete('size-number'), Size: 8_388_608 }, /Size: expected a string/],
    'size-negative': [{ ...complete('size-negative'), Size: '-1' }, /Size: .* got "-1"/],
    'size-zero': [{ ...complete('size-zero'), Size: '0' }, /Size/],
    'size-huge': [{ ...complete('size-huge'), Size: '9'.repeat(16) }, /Size/],
    'count-wrong': [{ ...complete('count-wrong'), BlockCount: '5' }, /BlockCount: expected "0"/],
    'sum-wrong': [{ ...complete('sum-wrong'), Checksum: 'abc' }, /Checksum: expected 128/],
    'codec-wrong': [{ ...complete('codec-wrong'), CompressionMethod: 'zip' }, /got "zip"/],
    'time-wrong': [{ ...complete('time-wrong'), CompleteTime: 'yesterday' }, /CompleteTime/],
    'labels-wrong': [{ ...complete('labels-wrong'), Labels: { a: 1 } }, /Labels\["a"\]/],
    'offset-odd': [
      { ...complete('offset-odd'), BlockCount: '1', Blocks: [entry(1)] },
      /Offset: expected a multiple of 2097152, got 1/,
    ],
    'offset-outside': [
      { ...complete('offset-outside'), BlockCount: '1', Blocks: [entry(8_388_608)] },
      /Offset: expected an offset inside/,
    ],
    'offset-negative': [
      { ...complete('offset-negative'), BlockCount: '1', Blocks: [entry(-BLOCK)] },
      /Offset/,
    ],
    'offset-text': [
      { ...complete('offset-text'), BlockCount: '1', Blocks: [entry('0')] },
      /Offset/,
    ],
    'offset-twice': [
      { ...complete('offset-twice'), BlockCount: '2', Blocks: [entry(0), entry(0)] },
      /Offset: expected more than/,
    ],
    'offset-order': [
      { ...complete('offset-order'), BlockCount: '2', Blocks: [entry(BLOCK), entry(0)] },
      /Offset/,
    ],
    'id-path': [
      { ...complete('id-path'), BlockCount: '1', Blocks: [entry(0, '../../../../etc/passwd')] },
      /BlockChecksum: expected 64 hex digits/,
    ],
    'id-short': [
      { ...complete('id-short'), BlockCount: '1', Blocks: [entry(0, 'abc')] },
      /BlockChecksum/,
    ],
    'blocks-object': [{ ...complete('blocks-object'), Blocks: {} }, /Blocks/],
    deep: ['['.repeat(5000), /not a JSON object/],
  }

  it('hides no other one from a listing, which names it and says what is wrong', async (t) => {
    const bench = await copyOfStore(t)
    const { store, target } = bench
    for (const [name, [config]] of Object.entries(bad)) await writeConfig(store, name, config)
    await mkdir(join(store, 'backupstore/backing-images/backing-images/no-config'))
    const { backups, incomplete, unreadable } = await droverJson('list', '--target', target)
    assert.deepEqual(
      backups.map(({ name }: { name: string }) => name),
      ['disk'],
    )
    assert.deepEqual(incomplete, [])
    const reasons = new Map<string, string>(
      unreadable.map(({ name, reason }: { name: string; reason: string }) => [name, reason]),
    )
    assert.deepEqual([...reasons.keys()], Object.keys(bad).sort())
    for (const [name, [, reason]] of Object.entries(bad)) {
      const told = reasons.get(name) ?? ''
      assert.match(told, reason)
      assert.ok(told.includes(`${name}/backing-image.cfg`), `${told} names the file`)
    }
  })

  it('is neither restored nor verified', async (t) => {
    const { store, url, path, folder } = await copyOfStore(t)
    const some = ['empty', 'cut', 'garbage', 'other-name', 'offset-outside', 'id-path']
    for (const name of some) await writeConfig(store, name, bad[name]?.[0] ?? '')
    const before = await snapshot(folder)
    for (const name of some) {
      const [error] = await Promise.all([
        fails(3, 'CONFIG_INVALID', ['restore', url(name), path('out')]),
        fails(3, 'CONFIG_INVALID', ['verify', url(name)]),
      ])
      assert.ok(error.message.includes(`${name}/backing-image.cfg`))
      assert.match(error.message, bad[name]?.[1] ?? /$^/)
    }
    assert.deepEqual(await snapshot(folder), before)
  })

  it('of 100 MB costs neither memory nor time', async (t) => {
    const { store, target, url } = await copyOfStore(t)
    const size = 100 * 1000 * 1000
    // nothing but zero bytes; one endless text; and a good one of an image of 2 TiB
    await writeConfig(store, 'zeros', '')
    await truncate(configPath(store, 'zeros'), size)
    await writeConfig(store, 'endless', '')
    const endless = await open(configPath(store, 'endless'), 'w')
    await endless.write('{"Name":"')
    for (let n = 0; n < 100; n++) await endless.write('x'.repeat(1000 * 1000))
    await endless.close()
    const count = 1_000_000
    const good = JSON.stringify({
      ...complete('large'),
      Size: String(count * BLOCK),
      BlockCount: String(count),
    })
    await writeConfig(store, 'large', '')
    const large = await open(configPath(store, 'large'), 'w')
    await large.write(`${good.slice(0, -1)},"Blocks":[`)
    for (let from = 0; from < count; from += 10_000) {
      const entries = Array.from(
        { length: 10_000 },
        (_, n) => `{"Offset":${(from + n) * BLOCK},"BlockChecksum":"${id}"}`,
      )
      await large.write(`${from > 0 ? ',' : ''}${entries.join(',')}`)
    }
    await large.write(']}')
    await large.close()
    assert.ok((await readFile(configPath(store, 'large'))).length > size)

    const measured = async (...args: string[]) => {
      const running = startDrover([...args, '--json'])
      t.after(() => running.child.kill('SIGKILL'))
      const peak = peakMemory(running.child.pid ?? 0)
      const outcome = await running.done
      const bytes = await peak
      assert.ok(bytes < 400 * MiB, `${args[0]}: ${Math.round(bytes / MiB)} MiB`)
      return outcome
    }
    const listed = (await measured('list', '--target', target)).json()
    assert.deepEqual(
      listed.backups.map(({ name }: { name: string }) => name),
      ['disk', 'large'],
    )
    assert.deepEqual(
      listed.unreadable.map(({ name }: { name: string }) => name),
      ['endless', 'zeros'],
    )
    const inspected = (await measured('inspect', url('large'))).json()
    assert.deepEqual(inspected.blocks, { total: count, zero: 0, stored: count, distinct: 1 })
    failed(await measured('verify', url('zeros')), 3, 'CONFIG_INVALID')
    const missing = await measured('verify', url('large'), '--level', 'exists')
    assert.equal(missing.code, 3)
    const [block] = missing.json().missing
    assert.equal(block.id, id)
    assert.equal(block.offsets.length, count)
  })

  it('with the wrong checksum of the whole is found when all blocks are good', async (t) => {
    const { store, url, path, image } = await copyOfStore(t)
    const config = await readConfig(store, 'disk')
    const right = config.Checksum
    const wrong = right.replace(/^./, (digit) => (digit === '0' ? '1' : '0'))
    await writeConfig(store, 'disk', { ...config, Checksum: wrong })
    await writeFile(path('there.raw'), 'precious')
    const [{ code, document }, error] = await Promise.all([
      runJson(['verify', url('disk')]),
      fails(3, 'IMAGE_CORRUPT', ['restore', url('disk'), path('there.raw'), '--force']),
    ])
    assert.equal(code, 3)
    assert.equal(document.ok, false)
    assert.deepEqual([document.missing, document.corrupt], [[], []])
    assert.deepEqual([document.checksum, document.recordedChecksum], [right, wrong])
    assert.deepEqual([error.details['expected'], error.details['checksum']], [wrong, right])
    assert.equal(await readFile(path('there.raw'), 'utf8'), 'precious')
    // by its blocks alone, as asked for, it can be had
    const blocksOnly = await droverJson('restore', url('disk'), path('out'), '--verify=blocks')
    assert.equal(blocksOnly.verified, 'blocks')
    assert.equal(await sha512(path('out')), await sha512(image))
  })

  it('with entries exchanged is found by the checksum of the whole', async (t) => {
    const { store, url, path } = await copyOfStore(t)
    const config = await readConfig(store, 'disk')
    const { Blocks = [] } = config
    const [first, second] = Blocks
    assert.ok(first && second)
    const exchanged = [
      { ...first, BlockChecksum: second.BlockChecksum },
      { ...second, BlockChecksum: first.BlockChecksum },
      ...Blocks.slice(2),
    ]
    await writeConfig(store, 'disk', { ...config, Blocks: exchanged })
    const [{ code, document }] = await Promise.all([
      runJson(['verify', url('disk')]),
      fails(3, 'IMAGE_CORRUPT', ['restore', url('disk'), path('out')]),
    ])
    assert.deepEqual([code, document.ok], [3, false])
    await assert.rejects(readFile(path('out')))
  })

  it('that lists a good block under another id is good as a whole, and named by ids alone', async (t) => {
    const { store, url, path, image, at } = await copyOfStore(t)
    const config = await readConfig(store, 'disk')
    const moved = blockPath(store, id)
    await mkdir(dirname(moved), { recursive: true })
    await rename(at(4), moved)
    const other = (config.Blocks ?? []).map((entry) =>
      entry.Offset === 4 * BLOCK ? { ...entry, BlockChecksum: id } : entry,
    )
    await writeConfig(store, 'disk', { ...config, Blocks: other })
    const [full, byIds, restored] = await Promise.all([
      droverJson('verify', url('disk')),
      runJson(['verify', url('disk'), '--level=blocks']),
      droverJson('restore', url('disk'), path('out')),
    ])
    assert.deepEqual([full.ok, full.checksum], [true, config.Checksum])
    assert.equal(byIds.code, 3)
    assert.deepEqual(byIds.document.corrupt, [
      { id, offsets: [4 * BLOCK], reason: 'does not match its id after lz4 decoding' },
    ])
    assert.equal(restored.verified, 'full')
    assert.equal(await sha512(path('out')), await sha512(image))
    await fails(3, 'BLOCK_CORRUPT', ['restore', url('disk'), path('byIds'), '--verify=blocks'])
  })

  it('without a checksum is restored, and the result says what was not compared', async (t) => {
    const { store, target, url, path, image } = await copyOfStore(t)
    const config = await readConfig(store, 'disk')
    await writeConfig(store, 'disk', { ...config, Checksum: '', CompressionMethod: '' })
    const restored = await droverJson('restore', url('disk'), path('out'))
    assert.equal(restored.verified, 'blocks')
    assert.equal(restored.checksum, await sha512(image))
    assert.equal(await sha512(path('out')), await sha512(image))
    for (const [level, checksum] of [
      ['full', await sha512(image)],
      ['blocks', null],
    ]) {
      const verified = await droverJson('verify', url('disk'), `--level=${level}`)
      assert.deepEqual([verified.ok, verified.checksum], [true, checksum], String(level))
      assert.equal(verified.recordedChecksum, null)
    }
    const { backups } = await droverJson('list', '--target', target)
    assert.deepEqual([backups[0].checksum, backups[0].compression], ['', 'gzip'])
    const asked = await droverJson(
      'restore',
      url('disk'),
      path('asked'),
      '--checksum',
      await sha512(image),
    )
    assert.equal(asked.verified, 'full')
    const wrong = `--checksum=${'0'.repeat(128)}`
    await fails(1, 'CHECKSUM_MISMATCH', ['restore', url('disk'), path('other'), wrong])
    await assert.rejects(readFile(path('other')))
  })

  for (const [what, link] of Object.entries({
    'a link': (path: string) => path,
    'in a folder that is a link': dirname,
  })) {
    it(`is not followed when it is ${what}, and named by a listing`, async (t) => {
      const { store, target, url, path } = await copyOfStore(t)
      const secret = join(path('outside'), 'backing-image.cfg')
      await mkdir(path('outside'))
      await writeFile(
        secret,
        JSON.stringify({ ...complete('linked'), Labels: { secret: 'xyzzy' } }),
      )
      const config = link(configPath(store, 'linked'))
      await mkdir(dirname(config), { recursive: true })
      await symlink(config.endsWith('.cfg') ? secret : path('outside'), config)
      const [restore, inspect] = await Promise.all([
        startDrover(['restore', url('linked'), path('out'), '--json', '--debug']).done,
        startDrover(['inspect', url('linked'), '--json', '--debug']).done,
      ])
      for (const { code, stdout, stderr } of [restore, inspect]) {
        assert.equal(code, 3)
        assert.doesNotMatch(stdout + stderr, /xyzzy/)
        assert.equal(JSON.parse(stdout).error.code, 'UNSAFE_PATH')
      }
      const { backups, unreadable } = await droverJson('list', '--target', target)
      assert.deepEqual(
        backups.map(({ name }: { name: string }) => name),
        ['disk'],
      )
      assert.deepEqual(
        unreadable.map(({ name }: { name: string }) => name),
        ['linked'],
      )
      assert.match(unreadable[0].reason, /link/)
    })

    it(`keeps its blocks from being collected when it is ${what}`, async (t) => {
      const bench = await copyOfStore(t)
      const { store, target, path } = bench
      const config = link(configPath(store, 'disk'))
      // Longhorn follows the link, so for Longhorn this backup is a good one
      await rename(config, path('moved'))
      await symlink(path('moved'), config)
      const blocksBefore = (await filesBelow(store)).filter((file) => file.endsWith('.blk'))
      const { code } = await runJson(['gc', '--target', target, '--min-age', '0s'])
      assert.deepEqual(
        (await filesBelow(store)).filter((file) => file.endsWith('.blk')),
        blocksBefore,
      )
      assert.equal(code, 3)
    })
  }

  it('is not waited for when it is a pipe', { skip: unlessThere('mkfifo') }, async (t) => {
    const { store, target, url, path } = await copyOfStore(t)
    await mkdir(dirname(configPath(store, 'pipe')))
    await output('mkfifo', [configPath(store, 'pipe')])
    await fails(3, 'UNSAFE_PATH', ['restore', url('pipe'), path('out')])
    const { backups } = await droverJson('list', '--target', target)
    assert.equal(backups.length, 1)
  })
})

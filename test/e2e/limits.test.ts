/**
 * Large images, large configs and small machines: memory stays bounded, the event loop turns, and
 * nothing waits for ever.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdir, open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { after, before, describe, test } from 'node:test'
import type { Ran } from '../helpers/built.ts'
import { build } from '../helpers/built.ts'
import { unlessThere } from '../helpers/command.ts'
import { writeConfig, writeRawBlock } from '../helpers/handmade-store.ts'
import { BLOCK, MiB, allocatedBytes, makeImage, noise, sha512, text } from '../helpers/images.ts'
import type { Piece } from '../helpers/images.ts'
import { configPath } from '../helpers/store-state.ts'
import { tempFolder } from '../helpers/temp.ts'

const GiB = 1024 * MiB
const TiB = 1024 * GiB
const MAX_MEMORY = 256 * MiB
const MAX_MEMORY_LARGE_CONFIG = 300 * MiB
/** Of processor time, which other programs do not take from us; a healthy turn takes 5 to 20. */
const MAX_TURN_MS = 150
/** Of all processor time; hashing and compressing there would take it to a half and more. */
const MAX_MAIN_THREAD_SHARE = 0.4

/** For what several tests share; removed after the last one. */
const shared = await tempFolder({ after: (fn) => after(fn as () => void) })
const drover = await build(shared)

describe('a sparse file', () => {
  const islands = (sizeBytes: number): Piece[] => [
    [0, text(1, 3 * MiB)],
    // neither its start nor its end is that of a block
    [Math.floor(sizeBytes / 6) + 12_345, noise(2, 5 * MiB + 1)],
    [Math.floor(sizeBytes / 2 / BLOCK) * BLOCK, noise(3, BLOCK)],
    [sizeBytes - 513, noise(4, 513)],
  ]
  const islandBlocks = (sizeBytes: number): number => {
    const touched = islands(sizeBytes).flatMap(([offset, bytes]) => {
      const [first, last] = [offset, offset + bytes.length - 1].map((at) => Math.floor(at / BLOCK))
      return Array.from({ length: (last ?? 0) - (first ?? 0) + 1 }, (_, at) => (first ?? 0) + at)
    })
    return new Set(touched).size
  }

  test('of 32 GiB is backed up and restored in bounded memory', { timeout: 580_000 }, async (t) => {
    const sizeBytes = 32 * GiB
    const place = await makePlace(t)
    await makeImage(place.image, sizeBytes, islands(sizeBytes))

    const backup = await place.run('backup', place.image, '--target', place.target)
    assertMemory(t, 'backup of 32 GiB', backup, MAX_MEMORY)
    assert.equal(backup.json.sizeBytes, sizeBytes)
    assert.equal(backup.json.blocks.total, sizeBytes / BLOCK)
    assert.equal(backup.json.blocks.zero, sizeBytes / BLOCK - islandBlocks(sizeBytes))

    const restore = await place.run('restore', place.url, place.file)
    assertMemory(t, 'restore of 32 GiB', restore, MAX_MEMORY)
    assert.equal(restore.json.verified, 'full')
    assert.equal(restore.json.checksum, backup.json.checksum)
    assert.equal((await stat(place.file)).size, sizeBytes)
    await assertPieces(place.file, islands(sizeBytes))
    await assertHoles(place.file, islandBlocks(sizeBytes) * BLOCK)
  })

  test('of 2 GiB is verified in bounded memory, and is the same again', async (t) => {
    const sizeBytes = 2 * GiB
    const place = await makePlace(t)
    await makeImage(place.image, sizeBytes, islands(sizeBytes))
    const backup = await place.run('backup', place.image, '--target', place.target)
    assert.equal(backup.json.checksum, await sha512(place.image))

    const verify = await place.run('verify', place.url, '--level', 'full')
    assertMemory(t, 'verify of 2 GiB', verify, MAX_MEMORY)
    assert.equal(verify.json.ok, true)
    assert.equal(verify.json.checksum, backup.json.checksum)

    for (const level of ['full', 'blocks']) {
      const restore = await place.run(
        'restore',
        place.url,
        place.file,
        '--force',
        '--verify',
        level,
      )
      assertMemory(t, `restore of 2 GiB, --verify ${level}`, restore, MAX_MEMORY)
      assert.equal(restore.json.verified, level)
      await assertPieces(place.file, islands(sizeBytes))
      await assertHoles(place.file, islandBlocks(sizeBytes) * BLOCK)
    }
  })
})

describe('an image that does not compress', () => {
  const SIZE = 200 * MiB

  for (const compression of ['lz4', 'gzip', 'none']) {
    test(`is backed up (${compression}), verified and restored in bounded memory beside the event loop`, async (t) => {
      const place = await makePlace(t)
      await makeNoise(place.image, SIZE)
      const checksum = await sha512(place.image)

      const how = ['--compression', compression]
      const backup = await place.run('backup', place.image, '--target', place.target, ...how)
      assert.equal(backup.json.checksum, checksum)
      assert.equal(backup.json.blocks.new, SIZE / BLOCK)
      const verify = await place.run('verify', place.url)
      assert.equal(verify.json.checksum, checksum)

      const restore = await place.run('restore', place.url, place.file)
      assert.equal(restore.json.checksum, checksum)
      assert.equal(await sha512(place.file), checksum)
      for (const [what, ran] of Object.entries({ backup, verify, restore })) {
        assertMemory(t, `${what}, ${compression}`, ran, MAX_MEMORY)
        assertTurns(t, `${what}, ${compression}`, ran)
        assertThreads(t, `${what}, ${compression}`, ran)
      }
    })
  }
})

describe('a config of 100 MB', () => {
  const ENTRIES = 1_000_000
  const sizeBytes = 2 * TiB
  let place: Place

  before(async () => {
    place = await placeIn(join(shared, 'large-config'))
    const ids: string[] = []
    for (const seed of [1, 2, 3]) ids.push(await writeRawBlock(place.store, noise(seed, BLOCK)))
    await writeConfig(place.store, {
      name: 'disk',
      sizeBytes,
      entryCount: ENTRIES,
      entry: (at) => ({ offset: at * BLOCK, id: ids[at % ids.length] ?? '' }),
    })
    const { size } = await stat(configPath(place.store, 'disk'))
    assert.ok(size > 100_000_000, `it has ${size} bytes`)
  })

  const read = async (t: TestContext, command: string, ...args: string[]) => {
    const ran = await place.run(command, ...args)
    assertMemory(t, command, ran, MAX_MEMORY_LARGE_CONFIG)
    assertTurns(t, command, ran)
    return ran.json
  }

  test('is listed in bounded memory beside the event loop', async (t) => {
    const { backups, unreadable } = await read(t, 'list', '--target', place.target)
    assert.deepEqual(unreadable, [])
    assert.equal(backups.length, 1)
    assert.equal(backups[0].sizeBytes, sizeBytes)
  })

  test('is inspected in bounded memory beside the event loop', async (t) => {
    const { blocks } = await read(t, 'inspect', place.url)
    const total = sizeBytes / BLOCK
    assert.deepEqual(blocks, { total, zero: total - ENTRIES, stored: ENTRIES, distinct: 3 })
  })

  for (const [level, checked] of [
    ['config', 0],
    ['exists', ENTRIES],
  ] as const) {
    test(`is verified (${level}) in bounded memory beside the event loop`, async (t) => {
      const summary = await read(t, 'verify', place.url, '--level', level)
      assert.equal(summary.ok, true)
      assert.deepEqual(summary.blocks, { total: ENTRIES, checked })
    })
  }

  test('whose blocks are missing names each of them once, in bounded memory', async (t) => {
    const absent = await makePlace(t)
    const ids = [1, 2, 3].map((digit) => String(digit).repeat(64))
    await writeConfig(absent.store, {
      name: 'disk',
      sizeBytes,
      entryCount: ENTRIES,
      entry: (at) => ({ offset: at * BLOCK, id: ids[at % ids.length] ?? '' }),
    })
    const ran = await drover.run(['verify', absent.url, '--level', 'exists'], {
      signal: t.signal,
      expectCode: 3,
    })
    const { ok, missing } = ran.json
    assert.equal(ok, false)
    assert.deepEqual(missing.map(({ id }: { id: string }) => id).sort(), ids)
    const offsets: number[] = missing.flatMap((block: { offsets: number[] }) => block.offsets)
    assert.equal(offsets.length, ENTRIES)
    // the answer itself is large: a million offsets
    assertMemory(t, 'verify, all missing', ran, 2 * MAX_MEMORY_LARGE_CONFIG)
  })
})

describe('however many work at once', { concurrency: 2 }, () => {
  const SIZE = 32 * BLOCK - 777
  const cases: Array<[title: string, under: string[], concurrency: string]> = [
    ['on one processor', ['taskset', '-c', firstProcessor()], '2'],
    ['on one processor, 32 at once', ['taskset', '-c', firstProcessor()], '32'],
    ['one at once', [], '1'],
    ['32 at once', [], '32'],
  ]
  for (const [title, under, concurrency] of cases) {
    const skip = under.length > 0 && unlessThere('taskset')
    const ends = `${title}: a backup and its restore come to their end`
    test(ends, { skip, timeout: 120_000 }, async (t) => {
      const place = await makePlace(t)
      await makeNoise(place.image, SIZE)
      const checksum = await sha512(place.image)
      for (const compression of ['lz4', 'none']) {
        const run = async (...args: string[]) => {
          const ran = await drover.run(args, { signal: t.signal, under })
          t.diagnostic(`${args[0]}, ${compression}: ${mib(ran.measured.peakMemoryBytes)} at most`)
          return ran.json
        }
        const target = `vfs://${join(place.folder, compression)}`
        await mkdir(join(place.folder, compression))
        const how = ['--compression', compression, '--concurrency', concurrency]
        const { url, ...backup } = await run('backup', place.image, '--target', target, ...how)
        assert.equal(backup.checksum, checksum)
        await run('restore', url, place.file, '--force', '--concurrent-limit', concurrency)
        assert.equal(await sha512(place.file), checksum)
        const verify = await run('verify', url, '--concurrent-limit', concurrency)
        assert.equal(verify.ok, true)
      }
    })
  }
})

interface Place {
  readonly folder: string
  readonly store: string
  readonly target: string
  /** Of the backup `disk`. */
  readonly url: string
  readonly image: string
  /** To restore to. */
  readonly file: string
  run(...args: string[]): Promise<Ran>
}

const makePlace = async (t: TestContext): Promise<Place> =>
  placeIn(join(await tempFolder(t), 'place'), t.signal)

/** @param signal ends what runs there */
async function placeIn(folder: string, signal?: AbortSignal): Promise<Place> {
  const store = join(folder, 'store')
  await mkdir(store, { recursive: true })
  const target = `vfs://${store}`
  return {
    folder,
    store,
    target,
    url: `${target}?backingImage=disk`,
    image: join(folder, 'disk.img'),
    file: join(folder, 'restored.img'),
    run: (...args) => drover.run(args, signal ? { signal } : {}),
  }
}

async function makeNoise(path: string, sizeBytes: number): Promise<void> {
  const file = await open(path, 'w')
  for (let at = 0; at < sizeBytes; at += BLOCK) {
    await file.write(noise(at / BLOCK + 1, Math.min(BLOCK, sizeBytes - at)))
  }
  await file.close()
}

function assertMemory(t: TestContext, what: string, { measured }: Ran, maxBytes: number): void {
  const { peakMemoryBytes } = measured
  t.diagnostic(`${what}: ${mib(peakMemoryBytes)} at most`)
  assert.ok(peakMemoryBytes <= maxBytes, `${what}: ${mib(peakMemoryBytes)}, not ${mib(maxBytes)}`)
}

/** Fails when the event loop stood still because of us. */
function assertTurns(t: TestContext, what: string, { measured }: Ran): void {
  const [turnMs, delayMs] = [measured.longestTurnMs, measured.longestDelayMs].map(Math.round)
  t.diagnostic(
    `${what}: the event loop stood still for ${turnMs} ms of work (${delayMs} ms) at most`,
  )
  assert.ok(
    measured.longestTurnMs < MAX_TURN_MS,
    `${what}: the event loop stood still for ${turnMs} ms`,
  )
}

/** Fails when the main thread did what others are for. */
function assertThreads(t: TestContext, what: string, { measured }: Ran): void {
  const share = measured.mainThreadSeconds / measured.cpuSeconds
  t.diagnostic(`${what}: ${Math.round(share * 100)} % of the work was the main thread's`)
  assert.ok(share < MAX_MAIN_THREAD_SHARE, `${what}: the main thread did ${share} of the work`)
}

async function assertPieces(path: string, pieces: readonly Piece[]): Promise<void> {
  const file = await open(path, 'r')
  for (const [offset, bytes] of pieces) {
    const found = Buffer.alloc(bytes.length)
    await file.read(found, 0, found.length, offset)
    assert.ok(found.equals(bytes), `other bytes at ${offset}`)
  }
  await file.close()
}

async function assertHoles(path: string, dataBytes: number): Promise<void> {
  const allocated = await allocatedBytes(path)
  assert.ok(allocated <= dataBytes + MiB, `${allocated} bytes on the disk for ${dataBytes} of data`)
}

/** One that this process may use. */
function firstProcessor(): string {
  const status = readFileSync('/proc/self/status', 'utf8')
  return /^Cpus_allowed_list:\s+(\d+)/m.exec(status)?.[1] ?? '0'
}

function mib(bytes: number): string {
  return `${Math.round(bytes / MiB)} MiB`
}

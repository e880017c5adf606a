import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { after, describe, it } from 'node:test'
import * as fc from 'fast-check'
import type { Scan } from '../../../src/backup/scan.ts'
import type { Early } from '../../../src/backup/scan.ts'
import { scanImage } from '../../../src/backup/scan.ts'
import { encodeBlock } from '../../../src/backupstore/codec.ts'
import type { BlockCompute } from '../../../src/backupstore/compute.ts'
import { openCompute } from '../../../src/compute/pool.ts'
import type { ImageSource } from '../../../src/image/source.ts'
import { openImageSource } from '../../../src/image/source.ts'
import { DroverError, isDroverError, throwIfAborted } from '../../../src/lib/errors.ts'
import { entriesOf } from '../../helpers/arbitraries.ts'
import { BLOCK, makeImage, noise, text } from '../../helpers/images.ts'
import { altered } from '../../helpers/memory-backup.ts'
import { tempFolder } from '../../helpers/temp.ts'
import { idOf } from '../../helpers/workspace.ts'

const LANES = 4
const pool = openCompute({ blockThreads: 2, slots: LANES })
after(() => pool.close())

const always = () => true
const never = () => false

/** Data, zeros among it and before the end, one block twice, and a short tail. */
const blocks = [
  noise(1, BLOCK),
  text(2, BLOCK),
  Buffer.alloc(BLOCK),
  noise(3, BLOCK),
  text(4, BLOCK),
  noise(1, BLOCK),
  Buffer.alloc(BLOCK),
  Buffer.alloc(BLOCK),
  noise(5, 12_345),
]
const isData = (index: number) => ![2, 6, 7].includes(index)
const everyIndex = [...blocks.keys()]
const data = everyIndex.filter(isData)

interface Setting {
  /** What blocks the image has; those above unless given. */
  readonly blocks?: readonly Buffer[]
  readonly isBusy?: () => boolean
  readonly mostPutOff?: number
  readonly early?: Early
  readonly lanes?: number
  readonly compute?: BlockCompute
  /** What a block reads as, the first time (1) or a later one. */
  readonly reading?: (index: number, nth: number) => Buffer | undefined
  /** Called for each thing that begins. */
  readonly on?: (what: 'read' | 'seal' | 'block', index: number) => void
  readonly signal?: AbortSignal
}

/** A scan and everything that it does. */
function scanner(setting: Setting = {}) {
  const { lanes = LANES, mostPutOff = Infinity, compute = pool, on = () => undefined } = setting
  const image = setting.blocks ?? blocks
  const seen = {
    /** Indices in the order in which they were read, sealed, found. */
    reads: [] as number[],
    sealed: [] as number[],
    found: [] as number[],
    progress: [] as number[],
    running: 0,
    mostPutOff: 0,
  }
  const running = async <T>(work: () => Promise<T>): Promise<T> => {
    seen.running += 1
    try {
      return await work()
    } finally {
      seen.running -= 1
    }
  }
  const source: ImageSource = {
    file: '/images/disk.raw',
    sizeBytes: image.reduce((sum, { length }) => sum + length, 0),
    read: (into, offset, signal) =>
      running(async () => {
        throwIfAborted(signal)
        const index = offset / BLOCK
        seen.reads.push(index)
        const nth = seen.reads.filter((other) => other === index).length
        on('read', index)
        await setImmediate()
        const bytes = setting.reading?.(index, nth) ?? image[index]
        assert.equal(bytes?.length, into.length)
        into.set(bytes)
      }),
    checkUnchanged: () => Promise.resolve(),
    close: () => Promise.resolve(),
  }
  const watched: BlockCompute = {
    ...compute,
    slots: compute.slots.slice(0, lanes),
    ...(setting.isBusy ? { isBusy: setting.isBusy } : {}),
    identify: (slot, length) => running(() => compute.identify(slot, length)),
    identifySealed: (slot, length, seal) =>
      running(() => compute.identifySealed(slot, length, seal)),
    openFileHash(signal) {
      const hash = compute.openFileHash(signal)
      return {
        ...hash,
        addAndSeal(order, slot, length) {
          seen.sealed.push(order)
          const readAgain = seen.reads.length - new Set(seen.reads).size
          seen.mostPutOff = Math.max(seen.mostPutOff, seen.sealed.length - readAgain)
          on('seal', order)
          return hash.addAndSeal(order, slot, length)
        },
      }
    },
  }
  const options = {
    source,
    compute: watched,
    signal: setting.signal ?? new AbortController().signal,
    mostPutOff,
    ...(setting.early ? { early: setting.early } : {}),
    onBlock: ({ id, index, length, slot }: Parameters<OnBlock>[0]) =>
      running(async () => {
        seen.found.push(index)
        on('block', index)
        await setImmediate()
        const bytes = slot.raw.subarray(0, length)
        assert.equal(id, idOf(bytes), `the id of block ${index} is that of the bytes at hand`)
        assert.ok(image[index]?.equals(bytes), `the bytes of block ${index} are at hand`)
      }),
    onProgress: (bytes: number) => void seen.progress.push(bytes),
  }
  return { seen, scan: () => scanImage(options) }
}

type OnBlock = Parameters<typeof scanImage>[0]['onBlock']

function assertScan({ checksum, blocks: map, total }: Scan, of: readonly Buffer[] = blocks): void {
  assert.equal(checksum, createHash('sha512').update(Buffer.concat(of)).digest('hex'))
  assert.equal(total, of.length)
  const entries = of.flatMap((bytes, index) =>
    bytes.some((byte) => byte !== 0) ? [[index, idOf(bytes)]] : [],
  )
  assert.deepEqual(entriesOf(map), entries)
}

const sorted = (numbers: readonly number[]) => numbers.toSorted((a, b) => a - b)
const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0)

/** Once for each block, whatever became of it. */
function assertProgress(progress: readonly number[]): void {
  assert.deepEqual(sorted(progress), sorted(blocks.map(({ length }) => length)))
  assert.equal(sum(progress), sum(blocks.map(({ length }) => length)))
}

describe('a scan of an image', { timeout: 60_000 }, () => {
  for (const lanes of [1, LANES]) {
    it(`reads every block once while a thread is free (${lanes} at once)`, async () => {
      const { seen, scan } = scanner({ isBusy: never, lanes })
      assertScan(await scan())
      assert.deepEqual(sorted(seen.reads), everyIndex)
      assert.deepEqual(seen.sealed, [])
      assert.deepEqual(sorted(seen.found), data)
      assertProgress(seen.progress)
    })

    it(`finds the same when every block is put off, and reads no zeros again (${lanes} at once)`, async () => {
      const { seen, scan } = scanner({ isBusy: always, lanes })
      assertScan(await scan())
      assert.deepEqual(sorted(seen.reads), sorted([...everyIndex, ...data]))
      assert.deepEqual(sorted(seen.sealed), data)
      assert.deepEqual(sorted(seen.found), data)
      assertProgress(seen.progress)
    })
  }

  it('finds the same whichever blocks are put off, and however many at most', async () => {
    const whenBusy = fc.array(fc.boolean(), { minLength: 1, maxLength: 40 })
    const most = fc.oneof(fc.nat({ max: 6 }), fc.constant(Infinity))
    const lanesOf = fc.integer({ min: 1, max: LANES })
    await fc.assert(
      fc.asyncProperty(whenBusy, most, lanesOf, async (busy, mostPutOff, lanes) => {
        let asked = 0
        const isBusy = () => busy[asked++ % busy.length] ?? false
        const { seen, scan } = scanner({ isBusy, mostPutOff, lanes })
        assertScan(await scan())
        assert.deepEqual(sorted(seen.reads), sorted([...everyIndex, ...seen.sealed]))
        assert.deepEqual(sorted(seen.found), data)
        assertProgress(seen.progress)
        assert.ok(seen.mostPutOff <= Math.max(0, mostPutOff - 1 + lanes))
      }),
      { numRuns: 25 },
    )
  })

  it('never goes far ahead of a block that was put off, however busy the threads are', async () => {
    const many = Array.from({ length: 60 }, (_, index) => noise(index, 700))
    const image = many.map((bytes) => Buffer.concat([bytes, Buffer.alloc(BLOCK - bytes.length)]))
    const [mostPutOff, lanes] = [5, 3]
    const { seen, scan } = scanner({ isBusy: always, blocks: image, mostPutOff, lanes })
    assertScan(await scan(), image)
    let furthest = 0
    for (const [at, index] of seen.reads.entries()) {
      const again = seen.reads.indexOf(index) < at
      if (again)
        assert.ok(furthest - index <= 2 * mostPutOff + 2 * lanes, `${index} at ${furthest}`)
      furthest = Math.max(furthest, index)
    }
  })

  it('puts blocks off while the one real thread has another, and finds the same', async (t) => {
    const compute = openCompute({ blockThreads: 1, slots: 8 })
    t.after(() => compute.close())
    const { seen, scan } = scanner({ compute, lanes: 8 })
    assertScan(await scan())
    assert.ok(seen.sealed.length > 0, 'some were put off')
    assertProgress(seen.progress)
  })

  it('of a real file is the same, beside real work on its blocks', async (t) => {
    const compute = openCompute({ blockThreads: 1, slots: 8 })
    t.after(() => compute.close())
    const file = join(await tempFolder(t), 'disk.raw')
    const size = sum(blocks.map(({ length }) => length))
    const pieces = data.map((index) => [index * BLOCK, blocks[index] ?? Buffer.alloc(0)] as const)
    await makeImage(file, size, pieces)
    const source = await openImageSource(file)
    t.after(() => source.close())
    const stored = new Map<number, Buffer>()
    const scan = await scanImage({
      source,
      compute,
      mostPutOff: 3,
      signal: t.signal,
      async onBlock({ index, length, slot }) {
        const bytes = await compute.encode(slot, length, 'lz4')
        stored.set(index, Buffer.from(slot.stored.subarray(0, bytes)))
      },
      onProgress: () => undefined,
    })
    assertScan(scan)
    assert.deepEqual(sorted([...stored.keys()]), data)
    for (const [index, bytes] of stored) {
      assert.ok(encodeBlock(blocks[index] ?? Buffer.alloc(0), 'lz4').equals(bytes), `${index}`)
    }
  })

  it('puts off what must wait for the lock, with its id, and takes all else at once', async () => {
    const proofs: string[] = []
    const compute: BlockCompute = {
      ...pool,
      identifySealed: () => assert.fail('the id is known'),
      isSealed(...block) {
        proofs.push('seal')
        return pool.isSealed(...block)
      },
    }
    const known = new Set([idOf(blocks[1]!), idOf(blocks[4]!)])
    let reads = 0
    const { seen, scan } = scanner({
      compute,
      isBusy: never,
      lanes: 1,
      on: (what) => (reads += what === 'read' ? 1 : 0),
      early: {
        isEarly: () => reads < 7,
        mustWait: (id, length) => {
          assert.equal(length, BLOCK)
          return Promise.resolve(!known.has(id))
        },
      },
    })
    assertScan(await scan())
    // 1 and 4 are known; 0, 3 and 5 wait until it is not early any more
    assert.deepEqual(seen.found, [1, 4, 0, 3, 5, 8])
    assert.deepEqual(seen.reads, [0, 1, 2, 3, 4, 5, 6, 0, 3, 5, 7, 8])
    assert.equal(proofs.length, 3)
    assertProgress(seen.progress)
  })

  it('waits with a block in hand when as many as may be are put off already', async () => {
    let early = true
    const { seen, scan } = scanner({
      isBusy: never,
      lanes: 1,
      mostPutOff: 0,
      early: {
        isEarly: () => early,
        mustWait: () => assert.fail('there is no room to put it off'),
      },
      on: (what) => (early &&= what !== 'block'),
    })
    assertScan(await scan())
    assert.deepEqual(seen.sealed, [])
    assert.deepEqual(seen.found, data)
  })

  it('fails when a block with a known id is another one the second time', async () => {
    let reads = 0
    const { scan } = scanner({
      isBusy: never,
      lanes: 1,
      on: (what) => (reads += what === 'read' ? 1 : 0),
      early: { isEarly: () => reads < 4, mustWait: () => Promise.resolve(true) },
      reading: (index, nth) => (index === 1 && nth === 2 ? altered(blocks[1]!) : undefined),
    })
    await assert.rejects(scan(), { code: 'SOURCE_CHANGED' })
  })

  it('reads what was put off again as soon as a thread is free, and then goes on', async () => {
    let sealed = 0
    const { seen, scan } = scanner({
      lanes: 1,
      isBusy: () => sealed < 3,
      on: (what) => (sealed += what === 'seal' ? 1 : 0),
    })
    assertScan(await scan())
    // 2 is zeros
    assert.deepEqual(seen.reads, [0, 1, 2, 3, 0, 1, 3, 4, 5, 6, 7, 8])
    assert.deepEqual(seen.found, [0, 1, 3, 4, 5, 8])
  })

  it('of zeros alone, or of one short block, is right while all threads are busy', async () => {
    for (const image of [
      [Buffer.alloc(BLOCK), Buffer.alloc(BLOCK), Buffer.alloc(1)],
      [Buffer.from('x')],
      [noise(1, BLOCK)],
    ]) {
      const { scan } = scanner({ blocks: image, isBusy: always })
      assertScan(await scan(), image)
    }
  })
})

describe('of the blocks of an image', { timeout: 60_000 }, () => {
  const many = Array.from({ length: 40 }, (_, index) => {
    const bytes = noise(index, 700)
    return Buffer.concat([bytes, Buffer.alloc(BLOCK - bytes.length)])
  })
  for (const [most, lanes] of [
    [1, 1],
    [2, 1],
    [5, 1],
    [3, LANES],
  ] as const) {
    it(`never more than ${most} are put off when ${most} may be, and half of them is read once (${lanes} at once)`, async () => {
      const { seen, scan } = scanner({ blocks: many, isBusy: always, mostPutOff: most, lanes })
      assertScan(await scan(), many)
      assert.ok(seen.mostPutOff <= most - 1 + lanes, `${seen.mostPutOff} were put off`)
      assert.ok(seen.sealed.length >= most)
      assert.ok(seen.sealed.length <= many.length / 2 + most + lanes, `${seen.sealed.length}`)
      assert.deepEqual(sorted(seen.reads), sorted([...many.keys(), ...seen.sealed]))
    })
  }

  it('none is put off when none may be, and each is read exactly once', async () => {
    for (const lanes of [1, LANES]) {
      const { seen, scan } = scanner({ isBusy: always, mostPutOff: 0, lanes })
      assertScan(await scan())
      assert.deepEqual(seen.sealed, [])
      assert.deepEqual(sorted(seen.reads), everyIndex)
      assertProgress(seen.progress)
    }
  })

  it('one put off is done with only when it was read again: progress is told then', async () => {
    const told: Array<[reads: number, bytes: number]> = []
    const { seen, scan } = scanner({
      lanes: 1,
      isBusy: always,
      on: (what) => {
        if (what === 'read') told.push([seen.reads.length, sum(seen.progress)])
      },
    })
    await scan()
    const zeros = (everyIndex.length - data.length) * BLOCK
    // the first pass told of zeros only
    assert.deepEqual(told[everyIndex.length], [everyIndex.length + 1, zeros])
    assertProgress(seen.progress)
  })
})

describe('an image whose block is another one when it is read again', { timeout: 60_000 }, () => {
  const tail = blocks.length - 1
  const bytesAt = (index: number) => blocks[index] ?? Buffer.alloc(0)
  const cases: Array<[what: string, index: number, second: Buffer]> = [
    ['in its first byte', 3, altered(bytesAt(3), 0)],
    ['in a byte in its middle', 0, altered(bytesAt(0), BLOCK / 2)],
    ['in its last byte', 4, altered(bytesAt(4), BLOCK - 1)],
    ['in the last byte of the file', tail, altered(bytesAt(tail), bytesAt(tail).length - 1)],
    ['as zeros', 1, Buffer.alloc(BLOCK)],
    ['as the block beside it', 0, bytesAt(1)],
  ]
  for (const [what, index, second] of cases) {
    it(`is not backed up: ${what}`, async () => {
      const { seen, scan } = scanner({
        isBusy: always,
        reading: (at, nth) => (at === index && nth === 2 ? second : undefined),
      })
      await assert.rejects(scan(), changedAt(index))
      assert.ok(!seen.found.includes(index), 'nobody was given the other bytes')
      assert.equal(seen.running, 0)
    })
  }

  it('is not backed up when a thread was free again before the end', async () => {
    let sealed = 0
    const { seen, scan } = scanner({
      lanes: 1,
      isBusy: () => sealed < 2,
      on: (what) => (sealed += what === 'seal' ? 1 : 0),
      reading: (at, nth) => (at === 1 && nth === 2 ? altered(bytesAt(1)) : undefined),
    })
    await assert.rejects(scan(), changedAt(1))
    assert.deepEqual(seen.reads, [0, 1, 0, 1])
  })

  it('is not backed up when two of its blocks changed places', async () => {
    const { scan } = scanner({
      isBusy: always,
      reading: (at, nth) => (nth === 2 && at < 2 ? bytesAt(1 - at) : undefined),
    })
    await assert.rejects(scan(), (error) => isDroverError(error, 'SOURCE_CHANGED'))
  })
})

const changedAt = (index: number) => (error: unknown) =>
  isDroverError(error, 'SOURCE_CHANGED') &&
  new RegExp(`offset ${index * BLOCK}\\b`).test(error.message) &&
  error.retryable

describe('a scan that is stopped', { timeout: 120_000 }, () => {
  const few = [noise(1, BLOCK), Buffer.alloc(BLOCK), text(2, BLOCK), noise(3, BLOCK), noise(4, 99)]
  const reason = new DroverError('LOCK_LOST', 'the reason')

  /** Stops a scan at its nth event; false when it has no such event. */
  async function stopAt(
    nth: number,
    isBusy: () => boolean,
    stop: (controller: AbortController) => void,
  ): Promise<boolean> {
    const controller = new AbortController()
    let events = 0
    const { seen, scan } = scanner({
      blocks: few,
      isBusy,
      signal: controller.signal,
      on: () => {
        if (++events === nth) stop(controller)
      },
    })
    const scanning = scan()
    if (
      await scanning.then(
        () => events < nth,
        () => false,
      )
    )
      return false
    await assert.rejects(scanning, (error) => error === reason, `event ${nth}`)
    assert.equal(seen.running, 0, `event ${nth}`)
    const after = structuredClone(seen)
    // whatever still ran would show itself beside another scan, which it does not disturb
    assertScan(await scanner({ blocks: few, isBusy }).scan(), few)
    assert.deepEqual(seen, after, `event ${nth}`)
    return true
  }

  for (const [what, isBusy] of Object.entries({ all: always, none: never })) {
    it(`settles everything first, wherever it is (${what} put off)`, async () => {
      let nth = 1
      while (await stopAt(nth, isBusy, (controller) => controller.abort(reason))) nth += 1
      assert.equal(nth - 1, few.length + 4 + (isBusy() ? 2 * 4 : 0), 'events of the whole scan')
    })

    it(`settles everything first when something fails, wherever it is (${what} put off)`, async () => {
      const fail = () => {
        throw reason
      }
      let nth = 1
      while (await stopAt(nth, isBusy, fail)) nth += 1
      assert.equal(nth - 1, few.length + 4 + (isBusy() ? 2 * 4 : 0), 'events of the whole scan')
    })
  }

  it('before it began reads nothing', async () => {
    const { seen, scan } = scanner({ isBusy: always, signal: AbortSignal.abort(reason) })
    await assert.rejects(scan(), (error) => error === reason)
    assert.deepEqual(seen.reads, [])
  })
})

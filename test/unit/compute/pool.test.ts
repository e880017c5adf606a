import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { constants, getPriority } from 'node:os'
import type { TestContext } from 'node:test'
import { describe, it } from 'node:test'
import type { BlockId } from '../../../src/backupstore/block.ts'
import type { Compression } from '../../../src/backupstore/compression.ts'
import type { Slot } from '../../../src/backupstore/compute.ts'
import { openCompute } from '../../../src/compute/pool.ts'
import { isDroverError } from '../../../src/lib/errors.ts'
import { BLOCK, noise, text } from '../../helpers/images.ts'
import { altered } from '../../helpers/memory-backup.ts'
import { idOf } from '../../helpers/workspace.ts'

function openPool(t: TestContext, { blockThreads = 1, slots = 4 } = {}) {
  const compute = openCompute({ blockThreads, slots })
  t.after(() => compute.close())
  const slot = (index: number, bytes?: Buffer): Slot => {
    const found = compute.slots[index]
    assert.ok(found)
    if (bytes) found.raw.set(bytes)
    return found
  }
  return { compute, slot }
}

const OTHER = '0'.repeat(64) as BlockId
const { signal } = new AbortController()
const isInternal = (error: unknown) => isDroverError(error, 'INTERNAL')

describe('a pool of threads', () => {
  it('finds the ids of blocks that were read side by side', async (t) => {
    const { compute, slot } = openPool(t, { blockThreads: 3, slots: 6 })
    const blocks = [1, 2, 3, 4, 5, 6].map((seed) => noise(seed, BLOCK - seed))
    const ids = await Promise.all(
      blocks.map((bytes, index) => compute.identify(slot(index, bytes), bytes.length)),
    )
    assert.deepEqual(ids, blocks.map(idOf))
  })

  for (const compression of ['lz4', 'gzip', 'none'] satisfies Compression[]) {
    it(`brings a block back that it encoded (${compression}), and tells by its id that it is`, async (t) => {
      const { compute, slot } = openPool(t)
      for (const bytes of [text(1, BLOCK), noise(1, BLOCK), noise(2, 513)]) {
        const { length } = bytes
        const id = idOf(bytes) as BlockId
        const one = slot(0, bytes)
        const stored = await compute.encode(one, length, compression)
        one.raw.fill(0)
        const how = { id, length, strictness: 'frame', provenBy: 'id' } as const
        assert.deepEqual(await compute.decode(one, stored, how), { ok: true, stored: compression })
        assert.ok(one.raw.subarray(0, length).equals(bytes))
      }
    })
  }

  it('leaves the proof of a decoded block to the hash of the file when it is told to', async (t) => {
    const { compute, slot } = openPool(t)
    const bytes = text(1, BLOCK)
    const stored = await compute.encode(slot(0, bytes), BLOCK, 'lz4')
    const as = { id: OTHER, length: BLOCK, strictness: 'frame' } as const
    const kept = Buffer.from(slot(0).stored.subarray(0, stored))

    const byId = await compute.decode(slot(0), stored, { ...as, provenBy: 'id' })
    assert.ok(!byId.ok)
    assert.match(byId.reason, /id/)

    const one = slot(1)
    one.stored.set(kept)
    const byFile = await compute.decode(one, stored, { ...as, provenBy: 'file' })
    assert.deepEqual(byFile, { ok: true, stored: 'lz4' })
    assert.ok(one.raw.equals(bytes))
  })

  it('is busy while each of its threads has a block, and not a moment longer', async (t) => {
    for (const blockThreads of [1, 2, 3]) {
      const { compute, slot } = openPool(t, { blockThreads, slots: 5 })
      assert.equal(compute.isBusy(), false)
      const tasks: Promise<unknown>[] = []
      for (let given = 1; given <= blockThreads + 2; given++) {
        tasks.push(compute.identify(slot(given - 1, noise(given, BLOCK)), BLOCK))
        assert.equal(compute.isBusy(), given >= blockThreads, `${given} on ${blockThreads}`)
      }
      await Promise.all(tasks)
      assert.equal(compute.isBusy(), false)
    }
  })

  it('is busy with whatever is done to blocks, and not with the hash of the file', async (t) => {
    const { compute, slot } = openPool(t)
    const one = slot(0, noise(1, BLOCK))
    const hash = compute.openFileHash(signal)
    // the threads step back first, which keeps them busy for a moment
    await compute.identify(one, BLOCK)
    const sealed = hash.addAndSeal(0, one, BLOCK)
    const zeros = hash.addZeros(1, BLOCK)
    assert.equal(compute.isBusy(), false)
    const seal = await sealed
    await zeros
    await hash.digest()
    for (const work of [
      () => compute.identify(one, BLOCK),
      () => compute.identifySealed(one, BLOCK, seal),
      () => compute.encode(one, BLOCK, 'lz4'),
      () => compute.decode(one, 100, { id: OTHER, length: 1, strictness: 'frame', provenBy: 'id' }),
    ]) {
      const doing = work()
      assert.equal(compute.isBusy(), true, String(work))
      await doing
      assert.equal(compute.isBusy(), false, String(work))
    }
  })

  it('steps back with its threads for blocks, with no other, and only for a file', async (t) => {
    const low = constants.priority.PRIORITY_BELOW_NORMAL
    if (process.platform !== 'linux' || getPriority() >= low) {
      t.skip('needs Linux and a normal priority')
      return
    }
    const before = nicenessOfThreads().filter((nice) => nice === low).length
    const { compute, slot } = openPool(t, { blockThreads: 2 })
    await Promise.all([compute.identify(slot(0), 10), compute.identify(slot(1), 10)])
    assert.equal(nicenessOfThreads().filter((nice) => nice === low).length, before)
    const hash = compute.openFileHash(signal)
    await Promise.all([
      compute.identify(slot(0), 10),
      compute.identify(slot(1), 10),
      hash.addZeros(0, 10),
    ])
    const after = nicenessOfThreads().filter((nice) => nice === low).length
    assert.equal(after - before, 2)
    assert.ok(getPriority() < low)
  })
})

describe('a pool that starts later', () => {
  const threads = () => readdirSync('/proc/self/task').length

  it('has no thread until there is something to compute', async (t) => {
    if (process.platform !== 'linux') {
      t.skip('needs Linux')
      return
    }
    const before = threads()
    const compute = openCompute({ blockThreads: 2, slots: 2, startLater: true })
    t.after(() => compute.close())
    assert.equal(threads(), before)
    const [slot] = compute.slots
    assert.ok(slot)
    slot.raw.set(noise(1, 1000))
    assert.equal(await compute.identify(slot, 1000), idOf(noise(1, 1000)))
    const hash = compute.openFileHash(signal)
    await hash.addBlock(0, slot, 1000)
    assert.equal((await hash.digest()).slice(0, 64), idOf(noise(1, 1000)))
    assert.ok(threads() >= before + 3)
  })

  it('can be closed when it never had to', async () => {
    const before = threads()
    const compute = openCompute({ blockThreads: 2, slots: 2, startLater: true })
    await compute.close()
    const [slot] = compute.slots
    assert.ok(slot)
    await assert.rejects(async () => compute.identify(slot, 1000), /INTERNAL|closed/)
    assert.equal(threads(), before)
  })
})

/** How far each thread of this process steps back: the 19th field, counted behind the name. */
const nicenessOfThreads = (): number[] =>
  readdirSync('/proc/self/task').map((id) => {
    const stat = readFileSync(`/proc/self/task/${id}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16])
  })

describe('a sealed block', () => {
  it('has an id when the bytes are those that were sealed, in whatever slot', async (t) => {
    const { compute, slot } = openPool(t, { blockThreads: 2 })
    const hash = compute.openFileHash(signal)
    for (const [order, bytes] of [noise(1, BLOCK), text(2, BLOCK), noise(3, 1)].entries()) {
      const seal = await hash.addAndSeal(order, slot(0, bytes), bytes.length)
      const again = slot(order + 1, bytes)
      assert.equal(await compute.identifySealed(again, bytes.length, seal), idOf(bytes))
    }
  })

  it('has none when one bit is another one, or all bytes are zeros', async (t) => {
    const { compute, slot } = openPool(t)
    const bytes = noise(1, BLOCK)
    const seal = await compute.openFileHash(signal).addAndSeal(0, slot(0, bytes), BLOCK)
    const others = [0, 1, BLOCK / 2, BLOCK - 1].map((at) => altered(bytes, at))
    for (const other of [...others, Buffer.alloc(BLOCK)]) {
      assert.equal(await compute.identifySealed(slot(0, other), BLOCK, seal), undefined)
    }
    assert.equal(await compute.identifySealed(slot(0, bytes), BLOCK - 1, seal), undefined)
    assert.equal(await compute.identifySealed(slot(0, bytes), BLOCK, seal), idOf(bytes))
  })

  it('has none by the seal of another place or of another run', async (t) => {
    const { compute, slot } = openPool(t)
    const bytes = noise(1, 1000)
    const seal = await compute.openFileHash(signal).addAndSeal(0, slot(0, bytes), 1000)
    const elsewhere = { ...seal, order: 1 }
    assert.equal(await compute.identifySealed(slot(0), 1000, elsewhere), undefined)

    const other = openPool(t)
    const theirs = await other.compute
      .openFileHash(signal)
      .addAndSeal(0, other.slot(0, bytes), 1000)
    assert.notEqual(theirs.mac, seal.mac)
    assert.equal(await compute.identifySealed(slot(0), 1000, theirs), undefined)
  })
})

describe('a task that fails', () => {
  it('is an internal error, and its thread goes on with the next', async (t) => {
    const { compute, slot } = openPool(t)
    const one = slot(0, noise(1, 1000))
    const nowhere: Slot = { ...one, index: 99 }
    const seal = { order: 0, mac: '' }
    const how = { id: OTHER, length: 10, strictness: 'frame', provenBy: 'id' } as const
    const says = (error: unknown) =>
      isDroverError(error, 'INTERNAL') && error.message.includes('no slot 99')
    const failures = [
      compute.identify(nowhere, 1000),
      compute.identifySealed(nowhere, 1000, seal),
      compute.encode(nowhere, 1000, 'lz4'),
      compute.decode(nowhere, 10, how),
    ].map((task) => assert.rejects(task, says))
    const good = compute.identify(one, 1000)
    await Promise.all(failures)
    assert.equal(await good, idOf(noise(1, 1000)))
    assert.equal(compute.isBusy(), false)
    assert.equal(await compute.identify(one, 999), idOf(noise(1, 1000).subarray(0, 999)))
  })
})

describe('a pool that was closed', () => {
  it('refuses every task', async (t) => {
    const { compute, slot } = openPool(t)
    const one = slot(0, noise(1, 1000))
    const hash = compute.openFileHash(signal)
    await hash.addBlock(0, one, 1000)
    await compute.close()
    const how = { id: OTHER, length: 10, strictness: 'frame', provenBy: 'id' } as const
    for (const task of [
      compute.identify(one, 1000),
      compute.identifySealed(one, 1000, { order: 0, mac: '' }),
      compute.encode(one, 1000, 'lz4'),
      compute.decode(one, 10, how),
      hash.addBlock(1, one, 1000),
      hash.addAndSeal(2, one, 1000),
      hash.addZeros(3, 1000),
      hash.digest(),
      compute.openFileHash(signal).digest(),
    ]) {
      await assert.rejects(task, isInternal)
    }
  })

  it('lets nobody wait for what it had not done', async (t) => {
    const { compute, slot } = openPool(t)
    const one = slot(0, noise(1, BLOCK))
    const hash = compute.openFileHash(signal)
    const tasks = [
      ...Array.from({ length: 20 }, () => compute.encode(one, BLOCK, 'gzip')),
      hash.addZeros(0, 1024 * BLOCK),
    ].map((task) => assert.rejects(task, isInternal))
    await compute.close()
    await Promise.all(tasks)
  })

  it('can be closed again', async (t) => {
    const { compute } = openPool(t)
    await compute.close()
    await compute.close()
  })
})

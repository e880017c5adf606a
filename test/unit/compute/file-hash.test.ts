import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, describe, it } from 'node:test'
import * as fc from 'fast-check'
import type { FileHash, Slot } from '../../../src/backupstore/compute.ts'
import { openCompute } from '../../../src/compute/pool.ts'
import { DroverError, isDroverError } from '../../../src/lib/errors.ts'
import { BLOCK, MiB, noise } from '../../helpers/images.ts'

const SLOTS = 8
const compute = openCompute({ blockThreads: 1, slots: SLOTS })
after(() => compute.close())

const open = (signal = new AbortController().signal) => compute.openFileHash(signal)

function slotWith(index: number, bytes: Buffer): Slot {
  const slot = compute.slots[index]
  assert.ok(slot)
  slot.raw.set(bytes)
  return slot
}

interface Piece {
  readonly kind: 'block' | 'sealed' | 'zeros'
  readonly length: number
}

const bytesOf = ({ kind, length }: Piece, order: number) =>
  kind === 'zeros' ? Buffer.alloc(length) : noise(order + 1, length)

const sha512Of = (pieces: readonly Piece[]) => {
  const hash = createHash('sha512')
  for (const [order, piece] of pieces.entries()) hash.update(bytesOf(piece, order))
  return hash.digest('hex')
}

/** The piece's bytes lie in the slot of its own number. */
function addTo(hash: FileHash, piece: Piece, order: number): Promise<unknown> {
  const { kind, length } = piece
  if (kind === 'zeros') return hash.addZeros(order, length)
  const slot = slotWith(order, bytesOf(piece, order))
  return kind === 'block'
    ? hash.addBlock(order, slot, length)
    : hash.addAndSeal(order, slot, length)
}

const lengths = fc.oneof(
  fc.integer({ min: 1, max: 5000 }),
  fc.constantFrom(128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, BLOCK),
)
const pieceLists = fc.array(
  fc.record({ kind: fc.constantFrom('block', 'sealed', 'zeros'), length: lengths }),
  { minLength: 1, maxLength: SLOTS },
) as fc.Arbitrary<Piece[]>

const listsInAnyOrder = pieceLists.chain((pieces) =>
  fc.record({
    pieces: fc.constant(pieces),
    arrivals: fc.shuffledSubarray([...pieces.keys()], { minLength: pieces.length }),
  }),
)

describe('the hash of a file', () => {
  it('is its SHA-512, in whatever order its pieces come, whole, sealed or as zeros', async () => {
    await fc.assert(
      fc.asyncProperty(listsInAnyOrder, async ({ pieces, arrivals }) => {
        const hash = open()
        await Promise.all(
          arrivals.map((order) => {
            const piece = pieces[order]
            assert.ok(piece)
            return addTo(hash, piece, order)
          }),
        )
        assert.equal(await hash.digest(), sha512Of(pieces))
      }),
      { numRuns: 60 },
    )
  })

  it('lets the memory of a piece be used again once it is added', async () => {
    const hash = open()
    const expected = createHash('sha512')
    for (let order = 0; order < 6; order++) {
      const bytes = noise(order + 1, 100_000 + order)
      expected.update(bytes)
      const slot = slotWith(0, bytes)
      if (order % 2 === 0) await hash.addBlock(order, slot, bytes.length)
      else await hash.addAndSeal(order, slot, bytes.length)
    }
    assert.equal(await hash.digest(), expected.digest('hex'))
  })

  it('takes zeros of more than any block', async () => {
    const hash = open()
    const zeros = 64 * MiB + 12_345
    await Promise.all([hash.addBlock(1, slotWith(1, noise(1, 99)), 99), hash.addZeros(0, zeros)])
    const expected = createHash('sha512').update(Buffer.alloc(zeros)).update(noise(1, 99))
    assert.equal(await hash.digest(), expected.digest('hex'))
  })

  it('of nothing is that of an empty file', async () => {
    assert.equal(await open().digest(), createHash('sha512').digest('hex'))
  })

  it('begins anew for each file', async () => {
    const first = open()
    await first.addBlock(0, slotWith(0, noise(1, 1000)), 1000)
    const second = open()
    await second.addBlock(0, slotWith(0, noise(2, 1000)), 1000)
    const expected = createHash('sha512').update(noise(2, 1000)).digest('hex')
    assert.equal(await second.digest(), expected)
  })

  it('gives a seal with each piece that asks for one, of its own bytes and place', async () => {
    const hash = open()
    const slots = [0, 1, 2].map((order) => slotWith(order, noise(1, 1000)))
    const seals = await Promise.all(
      slots.toReversed().map((slot) => hash.addAndSeal(slot.index, slot, 1000)),
    )
    assert.deepEqual(
      seals.map(({ order }) => order),
      [2, 1, 0],
    )
    assert.equal(new Set(seals.map(({ mac }) => mac)).size, 3)
    for (const seal of seals) {
      assert.notEqual(
        await compute.identifySealed(slotWith(5, noise(1, 1000)), 1000, seal),
        undefined,
      )
    }
  })
})

describe('the hash of a file that nobody wants any more', () => {
  const reason = new DroverError('LOCK_LOST', 'the reason')

  it('fails for pieces that wait for an earlier one, and for those that come later', async () => {
    const stop = new AbortController()
    const hash = open(stop.signal)
    const slot = slotWith(1, noise(1, 1000))
    const waiting = [
      hash.addBlock(1, slot, 1000),
      hash.addAndSeal(2, slot, 1000),
      hash.addZeros(3, 1000),
    ]
    stop.abort(reason)
    const later = [
      hash.addBlock(0, slot, 1000),
      hash.addAndSeal(4, slot, 1000),
      hash.addZeros(5, 1000),
    ]
    for (const piece of [...waiting, ...later]) {
      await assert.rejects(piece, (error) => error === reason)
    }
  })

  it('leaves nothing to the next one', async () => {
    const stop = new AbortController()
    const dropped = open(stop.signal)
    await dropped.addBlock(0, slotWith(0, noise(9, 1000)), 1000)
    const waiting = dropped.addAndSeal(2, slotWith(1, noise(9, 1000)), 1000)
    stop.abort(reason)
    await assert.rejects(waiting, (error) => error === reason)
    const pieces: Piece[] = [
      { kind: 'sealed', length: 777 },
      { kind: 'zeros', length: 300_000 },
      { kind: 'block', length: BLOCK },
    ]
    const hash = open()
    await Promise.all(pieces.map((piece, order) => addTo(hash, piece, order)))
    assert.equal(await hash.digest(), sha512Of(pieces))
  })
})

describe('a piece that cannot be hashed', () => {
  it('is an internal error, and the thread goes on', async () => {
    const slot = slotWith(0, noise(1, 1000))
    const nowhere: Slot = { ...slot, index: SLOTS }
    const hash = open()
    const says = (error: unknown) =>
      isDroverError(error, 'INTERNAL') && error.message.includes(`no slot ${SLOTS}`)
    await Promise.all([
      assert.rejects(hash.addBlock(0, nowhere, 1000), says),
      assert.rejects(hash.addAndSeal(1, nowhere, 1000), says),
    ])
    const next = open()
    await next.addBlock(0, slot, 1000)
    assert.equal(await next.digest(), createHash('sha512').update(noise(1, 1000)).digest('hex'))
  })
})

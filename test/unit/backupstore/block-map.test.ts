import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import type { BlockId } from '../../../src/backupstore/block.ts'
import { BLOCK_BYTES, MAX_IMAGE_BYTES } from '../../../src/backupstore/block.ts'
import { BlockMap } from '../../../src/backupstore/block-map.ts'
import { blockIds, entriesOf, entryLists, mapOf } from '../../helpers/arbitraries.ts'

describe('a block map', () => {
  it('gives back the entries that were put in, in their order, however many', () => {
    fc.assert(
      fc.property(entryLists({ maxIndex: 2 ** 25 - 1, maxLength: 300 }), (entries) => {
        const map = mapOf(entries)
        assert.equal(map.length, entries.length)
        assert.deepEqual(entriesOf(map), entries)
        for (const [entry, [index]] of entries.entries()) {
          assert.equal(map.offsetAt(entry), index * BLOCK_BYTES)
        }
      }),
    )
  })

  it('grows past its first size and keeps what it has', () => {
    const id = (n: number) => n.toString(16).padStart(8, '0').repeat(8) as BlockId
    const map = new BlockMap()
    for (let n = 0; n < 5000; n++) {
      map.push(n * 3, id(n))
      if (n === 63 || n === 64 || n === 127 || n === 128) assert.equal(map.idAt(0), id(0))
    }
    assert.equal(map.length, 5000)
    for (let n = 0; n < 5000; n++) {
      assert.equal(map.indexAt(n), n * 3)
      assert.equal(map.idAt(n), id(n))
    }
  })

  it('tells offsets beyond 4 GiB exactly, up to the largest image', () => {
    const last = MAX_IMAGE_BYTES / BLOCK_BYTES - 1
    const map = mapOf([[last, 'ab'.repeat(32) as BlockId]])
    assert.equal(map.offsetAt(0), MAX_IMAGE_BYTES - BLOCK_BYTES)
  })

  it('equals another one with the same entries only', () => {
    fc.assert(
      fc.property(entryLists(), entryLists(), blockIds, (a, b, id) => {
        const map = mapOf(a)
        assert.equal(map.equals(mapOf(a)), true)
        assert.equal(map.equals(mapOf(b)), JSON.stringify(a) === JSON.stringify(b))
        const [first, ...rest] = a
        if (!first) return
        assert.equal(map.equals(mapOf(a.slice(0, -1))), false)
        assert.equal(mapOf(a.slice(0, -1)).equals(map), false)
        assert.equal(map.equals(mapOf([[first[0], id], ...rest])), first[1] === id)
        const moved = a.map(([index, id]) => [index + 1, id] as const)
        assert.equal(map.equals(mapOf(moved)), false)
      }),
    )
  })

  it('is compared by its entries, not by what it had room for', () => {
    const small = mapOf([[0, 'aa'.repeat(32) as BlockId]])
    const grown = new BlockMap()
    assert.equal(new BlockMap().equals(grown), true)
    grown.push(0, 'aa'.repeat(32) as BlockId)
    assert.equal(small.equals(grown), true)
    for (let n = 1; n < 100; n++) {
      grown.push(n, 'bb'.repeat(32) as BlockId)
      small.push(n, 'bb'.repeat(32) as BlockId)
    }
    assert.equal(small.equals(grown), true)
  })
})

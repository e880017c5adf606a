import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import type { BlockId } from '../../../src/backupstore/block.ts'
import { BlockTable } from '../../../src/backupstore/block-table.ts'
import { blockIds, fewBlockIds } from '../../helpers/arbitraries.ts'

const LARGEST = 2 ** 32 - 2

describe('a block table', () => {
  it('answers as a Map does, whatever is done to it and whatever size was expected', () => {
    const ids = fc.oneof(fewBlockIds, blockIds)
    const values = fc.oneof(
      fc.constantFrom(0, 1, LARGEST - 1, LARGEST),
      fc.nat({ max: LARGEST }),
      fc.nat({ max: 2 ** 22 }),
    )
    const commands = fc.array(fc.tuple(ids, fc.option(values)), { maxLength: 400 })
    fc.assert(
      fc.property(commands, fc.nat({ max: 100 }), (commands, expected) => {
        const table = new BlockTable(expected)
        const model = new Map<BlockId, number>()
        for (const [id, value] of commands) {
          if (value === null) {
            assert.equal(table.get(id), model.get(id))
            assert.equal(table.has(id), model.has(id))
          } else {
            table.set(id, value)
            model.set(id, value)
          }
          assert.equal(table.size, model.size)
        }
        const entries = [...table.entries()]
        assert.equal(entries.length, model.size)
        assert.deepEqual(new Map(entries), model)
        for (const [id, value] of model) assert.equal(table.get(id), value)
      }),
      { numRuns: 300 },
    )
  })

  it('keeps every one of many thousand ids while it grows', () => {
    const id = (n: number) =>
      Math.imul(n, 2654435761).toString(16).replace('-', 'f').padStart(64, '0') as BlockId
    const table = new BlockTable()
    const model = new Map<BlockId, number>()
    for (let n = 0; n < 40_000; n++) {
      table.set(id(n), n)
      model.set(id(n), n)
    }
    assert.equal(table.size, model.size)
    for (const [id, n] of model) assert.equal(table.get(id), n)
    assert.equal(table.has('ab'.repeat(32) as BlockId), false)
    assert.deepEqual(new Map(table.entries()), model)
  })

  it('knows ids whose words are all ones or all zeros from empty places', () => {
    const table = new BlockTable()
    const zeros = '0'.repeat(64) as BlockId
    const ones = 'f'.repeat(64) as BlockId
    assert.equal(table.has(zeros), false)
    assert.equal(table.has(ones), false)
    table.set(ones, 0)
    assert.equal(table.has(zeros), false)
    table.set(zeros, 7)
    assert.deepEqual([table.get(ones), table.get(zeros), table.size], [0, 7, 2])
  })

  it('cuts values that do not fit to the largest one and does not lose the id', () => {
    const table = new BlockTable()
    for (const [n, value] of [LARGEST, LARGEST + 1, 2 ** 32, 2 ** 40, Infinity].entries()) {
      const id = String(n).repeat(64) as BlockId
      table.set(id, value)
      assert.equal(table.get(id), LARGEST)
    }
    assert.equal(table.size, 5)
  })
})

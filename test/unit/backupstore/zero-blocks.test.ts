import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { BLOCK_BYTES } from '../../../src/backupstore/block.ts'
import { isZero } from '../../../src/backupstore/zero-blocks.ts'

/** The piece in which bytes are compared. */
const PIECE = 128 * 1024

const around = (at: number) => [at - 1, at, at + 1]
const SIZES = [1, 2, 511, 512, 513, BLOCK_BYTES].concat(
  [1, 2, 3, 8].flatMap((count) => around(count * PIECE)),
)

/** Both ends and both sides of every piece's edge. */
function positionsIn(size: number): number[] {
  const edges = Array.from({ length: Math.ceil(size / PIECE) }, (_, piece) => piece * PIECE)
  const all = [...edges.flatMap(around), size - 2, size - 1]
  return [...new Set(all)].filter((at) => at >= 0 && at < size)
}

describe('bytes', () => {
  it('that are all zero are zero, at any length', () => {
    for (const size of [0, ...SIZES]) assert.equal(isZero(Buffer.alloc(size)), true, `${size}`)
  })

  it('are not zero when one of them is not, wherever it stands', () => {
    for (const size of SIZES) {
      const bytes = Buffer.alloc(size)
      for (const at of positionsIn(size)) {
        for (const value of [0x01, 0x80, 0xff]) {
          bytes[at] = value
          assert.equal(isZero(bytes), false, `${value} at ${at} of ${size}`)
        }
        bytes[at] = 0
      }
      assert.equal(isZero(bytes), true, `${size}`)
    }
  })

  it('are judged alone: what stands before and after them in memory does not matter', () => {
    const memory = Buffer.from(new SharedArrayBuffer(BLOCK_BYTES + 2)).fill(0xff)
    for (const size of SIZES) {
      const bytes = memory.subarray(1, 1 + size).fill(0)
      assert.equal(isZero(bytes), true, `${size}`)
      bytes.fill(0xff)
    }
  })
})

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import { BLOCK_BYTES } from '../../../src/backupstore/block.ts'
import { piecesOf } from '../../../src/backupstore/pieces.ts'
import { backups, entriesOf, mapOf } from '../../helpers/arbitraries.ts'

const MiB = 1024 * 1024

describe('the pieces of an image', () => {
  it('cover the file exactly, in order, with every block at its place', () => {
    fc.assert(
      fc.property(backups, (backup) => {
        const pieces = [...piecesOf(backup)]
        let at = 0
        const blocks = []
        for (const [order, piece] of pieces.entries()) {
          assert.equal(piece.order, order)
          assert.ok(piece.length > 0)
          if (piece.kind === 'block') {
            assert.equal(piece.offset, at)
            assert.equal(piece.length, Math.min(BLOCK_BYTES, backup.sizeBytes - at))
            blocks.push([at / BLOCK_BYTES, piece.id])
          } else {
            assert.ok(piece.length <= 64 * MiB)
          }
          at += piece.length
        }
        assert.equal(at, backup.sizeBytes)
        assert.deepEqual(blocks, entriesOf(backup.blocks))
      }),
      { numRuns: 300 },
    )
  })

  it('cut a long hole, so that progress shows', () => {
    const sizeBytes = 200 * MiB + 5
    assert.deepEqual(
      [...piecesOf({ blocks: mapOf([]), sizeBytes })],
      [64 * MiB, 64 * MiB, 64 * MiB, 8 * MiB + 5].map((length, order) => ({
        kind: 'zeros',
        order,
        length,
      })),
    )
  })

  it('come one at a time: a huge empty image costs nothing to begin', () => {
    const pieces = piecesOf({ blocks: mapOf([]), sizeBytes: 64 * 1024 ** 4 })
    assert.deepEqual(pieces.next(), {
      done: false,
      value: { kind: 'zeros', order: 0, length: 64 * MiB },
    })
  })
})

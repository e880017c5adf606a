import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isYoung } from '../../../../src/storage/nfs/grant.ts'

const at = (monotonicMs: number, wallMs = monotonicMs) => ({
  monotonicNs: BigInt(monotonicMs * 1e6),
  wallMs,
})

describe('a grant', () => {
  test('is young until its age reaches the limit', () => {
    assert.equal(isYoung(at(1000), at(1000), 3000), true)
    assert.equal(isYoung(at(1000), at(3999), 3000), true)
    assert.equal(isYoung(at(1000), at(4000), 3000), false)
    assert.equal(isYoung(at(1000), at(999_000), 3000), false)
  })

  test('is old when the machine slept: one clock stood still, the other was set', () => {
    assert.equal(isYoung(at(1000, 1000), at(1010, 600_000), 3000), false)
  })

  test('is old when a clock was set back, because nobody knows how old', () => {
    assert.equal(isYoung(at(1000, 600_000), at(1010, 1000), 3000), false)
    assert.equal(isYoung(at(1000), at(999, 1000), 3000), false)
  })
})

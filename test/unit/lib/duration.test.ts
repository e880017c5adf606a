import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import { formatDuration, parseDuration } from '../../../src/lib/duration.ts'
import { isDroverError } from '../../../src/lib/errors.ts'

describe('a duration that is given', () => {
  const cases: Array<[text: string, ms: number]> = [
    ['0', 0],
    ['0s', 0],
    ['90', 90_000],
    ['90s', 90_000],
    ['500ms', 500],
    ['30m', 1_800_000],
    ['1h', 3_600_000],
    ['1h30m', 5_400_000],
    ['2d', 172_800_000],
    ['1d2h3m4s5ms', 93_784_005],
    ['1.5h', 5_400_000],
    ['0.5s', 500],
    [' 10s ', 10_000],
  ]
  for (const [text, ms] of cases) {
    it(`${JSON.stringify(text)} is ${ms} ms`, () => assert.equal(parseDuration(text, 'x'), ms))
  }

  for (const text of [
    '',
    ' ',
    's',
    '-1s',
    '-5',
    '+5',
    '1.5',
    '.5s',
    '1e3s',
    '10x',
    '10 s s',
    '1h30',
    '10S',
    'Infinity',
    'NaN',
    '0x10',
    '99999999999999999999',
    '99999999999999d',
  ]) {
    it(`${JSON.stringify(text)} is refused, saying what was expected of what`, () => {
      assert.throws(
        () => parseDuration(text, '--min-age'),
        (error) =>
          isDroverError(error, 'USAGE') &&
          error.message.startsWith('--min-age is not a duration') &&
          error.message.includes(JSON.stringify(text)),
      )
    })
  }

  it('is read as what it says, for any mixture of units', () => {
    const part = fc.nat({ max: 1000 })
    fc.assert(
      fc.property(part, part, part, part, part, (d, h, m, s, ms) => {
        assert.equal(
          parseDuration(`${d}d${h}h${m}m${s}s${ms}ms`, 'x'),
          (((d * 24 + h) * 60 + m) * 60 + s) * 1000 + ms,
        )
      }),
    )
  })
})

describe('a duration that is shown', () => {
  for (const [ms, text] of [
    [0, '0s'],
    [5, '0.01s'],
    [1234, '1.23s'],
    [12_340, '12.3s'],
    [59_900, '59.9s'],
    [60_000, '1m0s'],
    [61_400, '1m1s'],
    [3_599_000, '59m59s'],
    [3_600_000, '1h0m'],
    [5_400_000, '1h30m'],
    [90_000_000, '25h0m'],
  ] as const) {
    it(`is ${text} for ${ms} ms`, () => assert.equal(formatDuration(ms), text))
  }

  it('never has sixty seconds or sixty minutes in it', () => {
    fc.assert(
      fc.property(fc.nat({ max: 10_000_000 }), (ms) => {
        assert.doesNotMatch(formatDuration(ms), /\b60[ms]|m60s/)
      }),
      { numRuns: 5000, examples: [[59_960], [119_700], [3_599_800]] },
    )
  })
})

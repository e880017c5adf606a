/** Chance that can be had again: the same seed gives the same choices. */
export interface Random {
  /** A whole number, both ends included. */
  int(from: number, to: number): number
  chance(probability: number): boolean
  pick<T>(items: readonly T[]): T
  shuffle<T>(items: readonly T[]): T[]
}

/** The seed of this run: `DROVER_TEST_SEED`, or another one each time. */
export function seedOfThisRun(): number {
  const given = process.env['DROVER_TEST_SEED']
  return given ? Number(given) >>> 0 : Math.floor(Math.random() * 2 ** 32)
}

/** mulberry32 */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let word = Math.imul(state ^ (state >>> 15), 1 | state)
    word = (word + Math.imul(word ^ (word >>> 7), 61 | word)) ^ word
    return ((word ^ (word >>> 14)) >>> 0) / 2 ** 32
  }
  const int = (from: number, to: number) => from + Math.floor(next() * (to - from + 1))
  return {
    int,
    chance: (probability) => next() < probability,
    pick: (items) => {
      const item = items[int(0, items.length - 1)]
      if (item === undefined) throw new Error('nothing to pick from')
      return item
    },
    shuffle: (items) => {
      const left = [...items]
      return items.flatMap(() => left.splice(int(0, left.length - 1), 1))
    },
  }
}

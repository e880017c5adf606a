/**
 * Kills drover where it hurts. Several stores at once, each with run after run that dies: at random
 * times, at the sight of something on the disk, or between two system calls. What must hold after
 * each death is in `helpers/crash-lane.ts`.
 *
 * `DROVER_TEST_SEED` repeats the choices of a run (not the machine's timing).
 */
import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { CrashLane } from '../helpers/crash-lane.ts'
import { seededRandom, seedOfThisRun } from '../helpers/random.ts'
import { tempFolder } from '../helpers/temp.ts'

const COMPRESSIONS = ['lz4', 'lz4', 'none', 'lz4', 'gzip', 'none', 'lz4', 'lz4'] as const
/** Two more in each lane die at chosen moments. */
const RANDOM_KILLS_A_LANE = 12
const KILLS = 100

/** Each must be met, or the test looks elsewhere than where it hurts. */
const PHASES = [
  /^backup: settling/,
  /^backup: publishing/,
  /^backup: committed/,
  /^restore: restoring/,
  /^(delete|gc): /,
]

test(
  'a store survives that its runs are killed at any moment',
  { concurrency: COMPRESSIONS.length },
  async (t) => {
    const seed = seedOfThisRun()
    t.diagnostic(`DROVER_TEST_SEED=${seed}`)
    const folder = await tempFolder(t)
    const phases = new Map<string, number>()
    const onKill = (phase: string) => void phases.set(phase, (phases.get(phase) ?? 0) + 1)

    const lanes = COMPRESSIONS.map((compression, number) =>
      t.test(
        `store ${number}, ${compression}: kills, then nothing is left of the dead`,
        async () => {
          const own = join(folder, String(number))
          await mkdir(own)
          const random = seededRandom(seed + number)
          const lane = new CrashLane({ folder: own, random, number, compression, onKill })
          await lane.run(RANDOM_KILLS_A_LANE)
        },
      ),
    )
    await Promise.all(lanes)

    const kills = [...phases.values()].reduce((sum, count) => sum + count, 0)
    const summary = [...phases].map(([phase, count]) => `${phase} ${count}`).sort()
    t.diagnostic(`${kills} kills (seed ${seed}): ${summary.join('; ')}`)
    assert.ok(kills >= KILLS, `only ${kills} kills`)
    for (const phase of PHASES) {
      assert.ok(
        [...phases.keys()].some((seen) => phase.test(seen)),
        `nothing was killed in ${phase}`,
      )
    }
  },
)

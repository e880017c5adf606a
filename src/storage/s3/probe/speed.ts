/** How soon the server answers, and how much it takes and gives. */
import type { Key } from '../../../backupstore/layout.ts'
import type { Pace } from '../../doctor/speed.ts'
import { mibPerSecond, paceOf } from '../../doctor/speed.ts'
import type { Finding, Step } from '../../doctor/steps.ts'
import type { Bench } from './bench.ts'
import { MOST_LANES, OBJECT_BYTES, extraMsFor } from './bench.ts'
import { openReads } from '../read.ts'

const LOOKS = 10
const SLOW_ANSWER_MS = 1000
const OBJECTS = 16
/** A slow link gets smaller objects, so that all of them fit into this. */
const PHASE_MS = 2500
const SMALLEST_BYTES = 16 * 1024

export const speedSteps = (bench: Bench): Step[] => [
  {
    name: 'latency',
    needs: ['get'],
    hintFor: bench.hints('s3:GetObject'),
    run: (signal) => latency(bench, signal),
  },
  {
    name: 'throughput',
    needs: ['get'],
    extraMs: extraMsFor(4 * MOST_LANES * SMALLEST_BYTES) + 4 * PHASE_MS,
    hintFor: bench.hints('s3:PutObject', 's3:GetObject'),
    run: (signal) => throughput(bench, signal),
  },
]

async function latency(bench: Bench, signal: AbortSignal): Promise<Finding> {
  const { stat } = openReads(bench.bucket)
  const key = bench.keyOf('object')
  const times: number[] = []
  for (let look = 0; look < LOOKS; look++) {
    const startMs = performance.now()
    await stat(key, { signal })
    times.push(performance.now() - startMs)
  }
  times.sort((a, b) => a - b)
  const [medianMs, worstMs] = [times[LOOKS / 2], times.at(-1)].map((ms = 0) => tenths(ms)) as [
    number,
    number,
  ]
  const message = `${medianMs} ms (median), ${worstMs} ms at worst, of ${LOOKS} reads of a byte`
  const details = { medianMs, worstMs }
  if (medianMs < SLOW_ANSWER_MS) return { verdict: 'ok', message, details }
  const hint = 'use a higher --concurrency and --concurrent-limit, and a server that is nearer'
  return { verdict: 'warning', message, hint, details }
}

const tenths = (ms: number): number => Math.round(ms * 10) / 10

async function throughput(bench: Bench, signal: AbortSignal): Promise<Finding> {
  const { concurrency } = bench.settings
  const all = [...new Set([concurrency, Math.max(concurrency, MOST_LANES)])]
  const bytes = bench.object.subarray(0, sizeFor(bench))
  const found: Array<{ concurrency: number; put: Pace; get: Pace }> = []
  for (const lanes of all) {
    const keys: Key[] = []
    const course = { lanes, most: OBJECTS, budgetMs: PHASE_MS }
    const put = await paceOf(course, signal, async (number, joined) => {
      keys.push(await bench.put(`speed-${number}`, bytes, joined))
      return bytes.length
    })
    const { readInto } = openReads(bench.bucket)
    const get = await paceOf(course, signal, async (number, joined) => {
      const key = keys[number % keys.length] ?? ''
      return (await readInto(key, Buffer.allocUnsafe(bytes.length), { signal: joined })) ?? 0
    })
    found.push({ concurrency: lanes, put, get })
  }
  const rates = found.map(({ concurrency, put, get }) => ({
    concurrency,
    putMiBPerSecond: mibPerSecond(put),
    getMiBPerSecond: mibPerSecond(get),
  }))
  const message = rates
    .map(
      ({ concurrency, putMiBPerSecond, getMiBPerSecond }) =>
        `at concurrency ${concurrency}: put ${putMiBPerSecond}, get ${getMiBPerSecond} MiB/s`,
    )
    .join('; ')
  return { verdict: 'ok', message, details: { objectBytes: bytes.length, rates } }
}

/** By what the first object took. */
function sizeFor({ putMs = 0 }: Bench): number {
  const perMs = OBJECT_BYTES / Math.max(putMs, 1)
  const fitting = Math.floor((perMs * PHASE_MS) / OBJECTS)
  return Math.min(OBJECT_BYTES, Math.max(SMALLEST_BYTES, fitting))
}

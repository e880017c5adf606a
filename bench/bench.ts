/**
 * Speed, as ratios to the time that hashing the same file takes: `npm run bench`. Each case and the
 * reference run in turn (A B A B), because machines drift; medians are what to quote.
 *
 *   npm run bench -- [--runs N] [--json] [--only TEXT] [--image FILE] [--no-others]
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { about, versionOf } from './about.ts'
import type { Case, Places } from './cases.ts'
import { droverCases, otherCases, reference } from './cases.ts'
import { benchImage, sparseImage } from './image.ts'
import type { Spread } from './measure.ts'
import { measure, spreadOf } from './measure.ts'
import { table } from './table.ts'

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    image: { type: 'string' },
    'no-others': { type: 'boolean', default: false },
  },
})
const runs = Number(values.runs)
if (!Number.isInteger(runs) || runs < 1) throw new Error('--runs expects a number from 1')

interface Row {
  readonly name: string
  readonly goal: number | null
  readonly wallSeconds: Spread
  /** Case by reference, pair by pair; null when there was none. */
  readonly ratio: Spread | null
  readonly cpuSeconds: number
  readonly peakMiB: number
}

const work = mkdtempSync(join(tmpdir(), 'drover-bench-'))
process.on('exit', () => rmSync(work, { recursive: true, force: true }))
process.on('SIGINT', () => process.exit(130))
const say = (text: string) => void process.stderr.write(`${text}\n`)

say('making the image, if it is not there')
const image = values.image ?? benchImage(join(tmpdir(), 'drover-bench-image'))
const places: Places = { image, sparse: sparseImage(work), work }
say('filling a store')
const cases = [...droverCases(places), ...(values['no-others'] ? [] : otherCases(places))].filter(
  ({ name }) => name.includes(values.only),
)
const rows: Row[] = []
for (const each of cases) {
  try {
    rows.push(await run(each))
  } catch (error) {
    // what another tool fails at hides no other result
    if (each.goal !== undefined) throw error
    say(`${each.name}: ${String(error)}`)
  }
}

const facts = {
  ...about(),
  openssl: versionOf('openssl', 'version') ?? 'unknown',
  others: ['restic', 'desync', 'borg', 'casync']
    .map((tool) => versionOf(tool, tool === 'restic' ? 'version' : '--version'))
    .filter(Boolean),
  runs,
}
process.stdout.write(values.json ? `${JSON.stringify({ about: facts, rows })}\n` : describe())

async function run({ name, goal, prepare, command, once }: Case): Promise<Row> {
  const walls: number[] = []
  const ratios: number[] = []
  const cpu: number[] = []
  const peaks: number[] = []
  for (let at = once ? runs - 1 : -1; at < runs; at++) {
    const base = once ? undefined : await measure(reference(places))
    prepare()
    // what the preparation left for the disk is not charged to the run
    execFileSync('sync')
    const figures = await measure(command)
    if (at < 0) continue // warms the page cache
    walls.push(figures.wallSeconds)
    if (base) ratios.push(figures.wallSeconds / base.wallSeconds)
    cpu.push(figures.userSeconds + figures.systemSeconds)
    peaks.push(figures.peakMiB)
  }
  const row: Row = {
    name,
    goal: goal ?? null,
    wallSeconds: spreadOf(walls),
    ratio: ratios.length > 0 ? spreadOf(ratios) : null,
    cpuSeconds: spreadOf(cpu).median,
    peakMiB: Math.max(...peaks),
  }
  say(`${name}: ${times(row.ratio) || `${row.peakMiB.toFixed(0)} MiB`}`)
  return row
}

function describe(): string {
  const cells = rows.map(({ name, goal, ratio, wallSeconds, cpuSeconds, peakMiB }) => [
    name,
    goal === null ? '' : `≤ ${goal}×`,
    times(ratio),
    ratio ? `${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)}` : '',
    `${wallSeconds.median.toFixed(2)} s`,
    `${cpuSeconds.toFixed(2)} s`,
    `${peakMiB.toFixed(0)} MiB`,
  ])
  const head = ['', 'goal', 'ratio', 'spread', 'wall', 'cpu', 'peak memory']
  const lines = Object.entries(facts).map(([key, value]) => `${key}: ${String(value)}`)
  return `${lines.join('\n')}\n\n${table(head, cells)}`
}

function times(ratio: Spread | null): string {
  return ratio ? `${ratio.median.toFixed(2)}×` : ''
}

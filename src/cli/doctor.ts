import type { Command } from 'commander'
import { probeTarget } from '../app.ts'
import type { TargetUrl } from '../backupstore/target-url.ts'
import { parseTargetUrl } from '../backupstore/target-url.ts'
import { formatDuration } from '../lib/duration.ts'
import type { Diagnosis } from '../storage/doctor/doctor.ts'
import type { StepResult, StepWatch, Verdict } from '../storage/doctor/steps.ts'
import type { CommonOptions, Context } from './context.ts'
import { answer, withCommonOptions } from './context.ts'
import { EXIT } from './exit-codes.ts'
import { plural, printable } from './format.ts'

interface Options extends CommonOptions {
  readonly target: string
}

export function defineDoctor(program: Command, context: Context): void {
  withCommonOptions(program.command('doctor'))
    .summary('find out whether a target works, and what to do if not')
    .description(
      'Probe a target step by step and say what to do about what is wrong. What is written for that is removed again.',
    )
    .requiredOption('--target <url>', 'as in s3://bucket@region/path/')
    .addHelpText(
      'after',
      `
Examples:
  drover doctor --target vfs:///mnt/store
  drover doctor --target s3://bucket@us-east-1/backups/
  drover doctor --target nfs://server:/export
  drover doctor --target vfs:///mnt/store --json | jq '.steps[] | select(.verdict != "ok")'`,
    )
    .action((options: Options) =>
      answer(context, options, async (run) => {
        const target = parseTargetUrl(options.target)
        const startMs = performance.now()
        const diagnosis = await probeTarget(target, run, watchFor(options))
        const seconds = Math.round(performance.now() - startMs) / 1000
        return {
          document: documentOf(target, diagnosis, seconds),
          lines: [summaryOf(diagnosis, seconds)],
          exitCode: diagnosis.ok ? EXIT.done : EXIT.failed,
        }
      }),
    )
}

/** Verdicts as they come: they are the answer, and only progress beside a document. */
function watchFor({ json = false, quiet = false }: Options): StepWatch {
  const { stdout, stderr } = process
  const drawing = stderr.isTTY && !quiet
  const told = json ? (quiet ? undefined : stderr) : stdout
  return {
    begin(name) {
      if (drawing) stderr.write(`\r\u001b[K${name} …`)
    },
    end(result) {
      if (drawing) stderr.write('\r\u001b[K')
      for (const line of describe(result)) told?.write(`${line}\n`)
    },
  }
}

const VERDICT_WIDTH = 'warning'.length
const NAME_WIDTH = 20

function describe({ name, verdict, message, hint, ms }: StepResult): string[] {
  const columns = [verdict.padEnd(VERDICT_WIDTH), name.padEnd(NAME_WIDTH), printable(message)]
  const took = verdict === 'skipped' ? '' : `  (${ms < 1000 ? `${ms} ms` : formatDuration(ms)})`
  const indent = ' '.repeat(VERDICT_WIDTH + 2 + NAME_WIDTH + 2)
  return [columns.join('  ') + took, ...(hint ? [`${indent}→ ${printable(hint)}`] : [])]
}

const documentOf = (target: TargetUrl, { ok, steps }: Diagnosis, seconds: number) => ({
  target: target.text,
  ok,
  steps: steps.map(({ name, verdict, message, hint, ms, details }) => ({
    name,
    verdict,
    message,
    hint,
    ms,
    details,
  })),
  seconds,
})

function summaryOf({ ok, steps }: Diagnosis, seconds: number): string {
  const count = (wanted: Verdict) => steps.filter(({ verdict }) => verdict === wanted).length
  const failed = count('failed')
  const warnings = plural(count('warning'), 'warning')
  const what = ok
    ? `good, with ${warnings}`
    : `BAD: ${plural(failed, 'step')} failed, with ${warnings}`
  return `${what} (${formatDuration(seconds * 1000)})`
}

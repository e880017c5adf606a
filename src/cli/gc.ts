import type { Command } from 'commander'
import { withStore } from '../app.ts'
import { parseTargetUrl } from '../backupstore/target-url.ts'
import { formatDuration } from '../lib/duration.ts'
import type { GcSummary } from '../prune/gc.ts'
import { collectGarbage } from '../prune/gc.ts'
import type { CommonOptions, Context } from './context.ts'
import { answer, withCommonOptions } from './context.ts'
import { bytes, facts, plural } from './format.ts'
import { lockTimeoutOption, minAgeOption } from './options.ts'

interface Options extends CommonOptions {
  readonly target: string
  readonly dryRun?: boolean
  readonly minAge: number
  readonly allowEmpty?: boolean
  readonly lockTimeout: number
}

export function defineGc(program: Command, context: Context): void {
  withCommonOptions(program.command('gc'))
    .summary('remove what no backup needs')
    .description(
      'Remove blocks that no backup refers to, and what dead runs left: placeholders, staged files, locks, empty folders.',
    )
    .requiredOption('--target <url>', 'as in vfs:///mnt/store')
    .option('--dry-run', 'tell what would go, remove nothing')
    .addOption(minAgeOption())
    .option(
      '--allow-empty',
      'remove blocks even when the store has no backup at all; so does giving a --min-age',
    )
    .addOption(lockTimeoutOption())
    .addHelpText(
      'after',
      `
Examples:
  drover gc --target vfs:///mnt/store --dry-run
  drover gc --target vfs:///mnt/store --min-age 24h`,
    )
    .action((options: Options, command: Command) =>
      answer(context, options, (run) => {
        const target = parseTargetUrl(options.target)
        return withStore(target, run, async (tools) => {
          const summary = await collectGarbage(
            {
              target: target.text,
              dryRun: options.dryRun ?? false,
              minAgeMs: options.minAge,
              lockTimeoutMs: options.lockTimeout,
              // whoever names an age has thought about what goes
              allowEmpty:
                options.allowEmpty ?? command.getOptionValueSource('minAge') !== 'default',
            },
            tools,
          )
          return { document: summary, lines: describe(summary) }
        })
      }),
    )
}

function describe(summary: GcSummary): string[] {
  const young = summary.tooYoung > 0 ? ` (${summary.tooYoung} unreferenced but too young)` : ''
  return [
    summary.dryRun ? 'would be removed:' : 'removed:',
    ...facts([
      ['blocks', `${summary.removed}, ${bytes(summary.freedBytes)} in all`],
      [
        'dead runs',
        `${plural(summary.placeholders.length, 'placeholder')}, ${plural(summary.stagingFiles, 'staged file')}, ${plural(summary.locks, 'expired lock')}, ${plural(summary.folders, 'empty folder')}`,
      ],
      ['stay', `${plural(summary.kept, 'block')}${young}`],
      ['time', formatDuration(summary.seconds * 1000)],
    ]),
  ]
}

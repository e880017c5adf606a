import type { Command } from 'commander'
import { withStore } from '../app.ts'
import { parseBackupUrl } from '../backupstore/target-url.ts'
import { deleteBackup } from '../prune/delete.ts'
import type { CommonOptions, Context } from './context.ts'
import { answer, withCommonOptions } from './context.ts'
import { bytes, plural } from './format.ts'
import { lockTimeoutOption, minAgeOption } from './options.ts'

interface Options extends CommonOptions {
  readonly minAge: number
  readonly lockTimeout: number
}

export function defineDelete(program: Command, context: Context): void {
  withCommonOptions(program.command('delete'))
    .summary('delete a backup')
    .description(
      'Delete a backup, then those of its blocks that no other backup needs and that are old enough.',
    )
    .argument('<backup-url>', 'as printed by backup and list')
    .addOption(minAgeOption())
    .addOption(lockTimeoutOption())
    .addHelpText(
      'after',
      `
Examples:
  drover delete 'vfs:///mnt/store?backingImage=ubuntu'
  drover delete 'vfs:///mnt/store?backingImage=ubuntu' --min-age 0s`,
    )
    .action((url: string, options: Options) =>
      answer(context, options, (run) => {
        const backup = parseBackupUrl(url)
        return withStore(backup.target, run, async (tools) => {
          const summary = await deleteBackup(
            { backup, minAgeMs: options.minAge, lockTimeoutMs: options.lockTimeout },
            tools,
          )
          const young =
            summary.tooYoungBlocks > 0
              ? [
                  `${plural(summary.tooYoungBlocks, 'block')} too young to go: gc removes them later`,
                ]
              : []
          return {
            document: summary,
            lines: [
              `deleted ${backup.name}: ${plural(summary.removedBlocks, 'block')} removed, ${bytes(summary.freedBytes)} freed`,
              ...young,
            ],
          }
        })
      }),
    )
}

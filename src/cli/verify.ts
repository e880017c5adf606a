import type { Command } from 'commander'
import { Option } from 'commander'
import { withCompute, withReaderLock } from '../app.ts'
import { parseBackupUrl } from '../backupstore/target-url.ts'
import { formatDuration } from '../lib/duration.ts'
import type { VerifyLevel, VerifySummary } from '../verify/verify.ts'
import { VERIFY_LEVELS, verifyBackup } from '../verify/verify.ts'
import type { CommonOptions, Context } from './context.ts'
import { answer, withCommonOptions } from './context.ts'
import { EXIT } from './exit-codes.ts'
import { bytes, facts, plural, printable, rate } from './format.ts'
import { concurrencyOption, lockTimeoutOption, noLockOption } from './options.ts'

interface Options extends CommonOptions {
  readonly level: VerifyLevel
  readonly concurrentLimit: number
  readonly lock: boolean
  readonly lockTimeout: number
}

export function defineVerify(program: Command, context: Context): void {
  withCommonOptions(program.command('verify'))
    .summary('prove a backup without restoring it')
    .description('Prove a backup without restoring it. All bad blocks are named; exit 3 if any.')
    .argument('<backup-url>', 'as printed by backup and list')
    .addOption(
      new Option(
        '--level <level>',
        'config: its fields; exists: and that every block is there; blocks: that every block is what its id says; full (default): instead of ids, that all blocks make the image of the recorded SHA-512',
      )
        .choices(VERIFY_LEVELS)
        .default('full'),
    )
    .addOption(concurrencyOption('--concurrent-limit', 'blocks read at once'))
    .addOption(noLockOption())
    .addOption(lockTimeoutOption())
    .addHelpText(
      'after',
      `
Examples:
  drover verify 'vfs:///mnt/store?backingImage=ubuntu'
  drover verify 'vfs:///mnt/store?backingImage=ubuntu' --level exists
  drover verify 'vfs:///mnt/store?backingImage=ubuntu' --level blocks --concurrent-limit 8
  drover verify 'vfs:///mnt/store?backingImage=ubuntu' --json | jq '.missing, .corrupt'`,
    )
    .action((url: string, options: Options) =>
      answer(context, options, async (run) => {
        const backup = parseBackupUrl(url)
        const concurrency = options.concurrentLimit
        const mayNeedNone = options.level === 'config' || options.level === 'exists'
        const how = { ...run, concurrency, mayNeedNone }
        const summary = await withCompute(backup.target, how, (tools) =>
          withReaderLock(
            tools,
            { lockTimeoutMs: options.lockTimeout, noLock: !options.lock },
            (lock) =>
              verifyBackup(
                { backup, level: options.level, concurrentLimit: concurrency },
                { ...tools, lock },
              ),
          ),
        )
        return {
          document: summary,
          lines: describe(summary),
          exitCode: summary.ok ? EXIT.done : EXIT.badData,
        }
      }),
    )
}

function* describe(summary: VerifySummary): Generator<string, void, undefined> {
  const { missing, corrupt, blocks, level, sizeBytes, seconds } = summary
  for (const { id, offsets } of missing) yield `missing  ${id} at ${someOf(offsets)}`
  for (const { id, offsets, reason } of corrupt) {
    yield `corrupt  ${id} at ${someOf(offsets)}: ${printable(reason)}`
  }
  const pace = level === 'full' || level === 'blocks' ? `, ${rate(sizeBytes, seconds)}` : ''
  yield summary.ok ? `good: ${whatIsProven(summary)}` : `BAD: ${whatIsBad(summary)}`
  yield* facts([
    ['url', summary.url],
    ['size', `${bytes(sizeBytes)} (${sizeBytes} bytes)`],
    ['blocks', `${blocks.checked} of ${blocks.total} stored ones checked`],
    ['sha512', summary.checksum ?? 'not computed'],
    ['recorded', summary.recordedChecksum ?? 'none'],
    ['time', `${formatDuration(seconds * 1000)}${pace}`],
  ])
}

function someOf(offsets: readonly number[]): string {
  const shown = offsets.slice(0, 8).join(', ')
  return offsets.length > 8 ? `${shown} and ${offsets.length - 8} more` : shown
}

function whatIsProven({ level, recordedChecksum }: VerifySummary): string {
  switch (level) {
    case 'config':
      return 'the config is well formed; no block was looked at'
    case 'exists':
      return 'every block exists; none was read'
    case 'blocks':
      return 'every block was read and is what its id says; the image as a whole was not compared'
    case 'full':
      return recordedChecksum === null
        ? 'every block was read and is what its id says; no SHA-512 is recorded to compare with'
        : 'every block was read, and the image they make has the SHA-512 recorded'
  }
}

function whatIsBad({ missing, corrupt }: VerifySummary): string {
  const bad = missing.length + corrupt.length
  if (bad === 0) return 'every block is right, but the image as a whole is not the recorded one'
  return `${plural(bad, 'block')} of this backup cannot be relied on`
}

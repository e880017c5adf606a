import type { Command } from 'commander'
import { Option } from 'commander'
import { withCompute, withReaderLock } from '../app.ts'
import { parseChecksum } from '../backupstore/block.ts'
import { parseBackupUrl } from '../backupstore/target-url.ts'
import { formatDuration } from '../lib/duration.ts'
import type { RestoreSummary } from '../restore/restore.ts'
import { restoreImage } from '../restore/restore.ts'
import type { CommonOptions, Context } from './context.ts'
import { answer, withCommonOptions } from './context.ts'
import { bytes, facts, rate } from './format.ts'
import { concurrencyOption, lockTimeoutOption, noLockOption } from './options.ts'

interface Options extends CommonOptions {
  readonly checksum?: string
  readonly concurrentLimit: number
  readonly verify: 'full' | 'blocks'
  readonly force?: boolean
  readonly lock: boolean
  readonly lockTimeout: number
}

export function defineRestore(program: Command, context: Context): void {
  withCommonOptions(program.command('restore'))
    .summary('restore an image file from a backup')
    .description('Restore an image file. The file appears when it is proven, or not at all.')
    .argument('<backup-url>', 'as printed by backup and list')
    .argument('<file>', 'the file to restore to')
    .option('--checksum <sha512>', 'fail unless the image has this SHA-512')
    .addOption(concurrencyOption('--concurrent-limit', 'blocks restored at once'))
    .addOption(
      new Option(
        '--verify <level>',
        'full: the whole file by its SHA-512; blocks: each block by its id',
      )
        .choices(['full', 'blocks'])
        .default('full'),
    )
    .option('--force', 'replace an existing file, once the new one is proven')
    .addOption(noLockOption())
    .addOption(lockTimeoutOption())
    .addHelpText(
      'after',
      `
Examples:
  drover restore 'vfs:///mnt/store?backingImage=ubuntu' ubuntu.qcow2
  drover restore 'vfs:///mnt/store?backingImage=web-1' disk.raw --concurrent-limit 8 --force
  drover restore 'vfs:///mnt/read-only?backingImage=web-1' disk.raw --no-lock`,
    )
    .action((url: string, file: string, options: Options) =>
      answer(context, options, async (run) => {
        const from = parseBackupUrl(url)
        const checksum =
          options.checksum === undefined ? undefined : parseChecksum(options.checksum)
        const concurrency = options.concurrentLimit
        const request = {
          from,
          file,
          checksum,
          verify: options.verify,
          force: options.force ?? false,
          concurrentLimit: concurrency,
        }
        const summary = await withCompute(from.target, { ...run, concurrency }, (tools) =>
          withReaderLock(
            tools,
            { lockTimeoutMs: options.lockTimeout, noLock: !options.lock },
            (lock) => restoreImage(request, { ...tools, lock }),
          ),
        )
        return { document: summary, lines: describe(summary) }
      }),
    )
}

function describe(summary: RestoreSummary): string[] {
  const { sizeBytes, seconds } = summary
  const verified =
    summary.verified === 'full'
      ? 'the whole file, by its SHA-512'
      : 'every block by its id; the whole file was not compared'
  return [
    `restored ${summary.file}`,
    ...facts([
      ['from', summary.url],
      ['size', `${bytes(sizeBytes)} (${sizeBytes} bytes)`],
      ['sha512', summary.checksum ?? 'not computed'],
      ['verified', verified],
      ['time', `${formatDuration(seconds * 1000)}, ${rate(sizeBytes, seconds)}`],
    ]),
  ]
}

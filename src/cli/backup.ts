import type { Command } from 'commander'
import { Option } from 'commander'
import { withCompute } from '../app.ts'
import { backupImage } from '../backup/backup.ts'
import type { BackupSummary } from '../backup/request.ts'
import { parseChecksum } from '../backupstore/block.ts'
import type { Compression } from '../backupstore/compression.ts'
import { COMPRESSIONS } from '../backupstore/compression.ts'
import { nameFromFile, writableName } from '../backupstore/names.ts'
import { parseTargetUrl } from '../backupstore/target-url.ts'
import { formatDuration } from '../lib/duration.ts'
import type { CommonOptions, Context } from './context.ts'
import { answer, withCommonOptions } from './context.ts'
import { bytes, facts, plural, rate } from './format.ts'
import { collectLabel, concurrencyOption, lockTimeoutOption } from './options.ts'

interface Options extends CommonOptions {
  readonly target: string
  readonly name?: string
  readonly checksum?: string
  readonly compression: Compression
  readonly label?: Record<string, string>
  readonly concurrency: number
  readonly replace?: boolean
  readonly allowAnyName?: boolean
  readonly lockTimeout: number
}

export function defineBackup(program: Command, context: Context): void {
  withCommonOptions(program.command('backup'))
    .summary('back up an image file')
    .description('Back up an image file (raw or qcow2, taken as plain bytes) to a target.')
    .argument('<file>', 'the image file')
    .requiredOption('--target <url>', 'where to, as in vfs:///mnt/store')
    .option('--name <name>', "the backup's name (default: from the file's name)")
    .option('--checksum <sha512>', 'fail unless the image has this SHA-512')
    .addOption(
      new Option('--compression <method>', 'how new blocks are stored')
        .choices(COMPRESSIONS)
        .default('lz4'),
    )
    .option('--label <key=value>', 'a label, may be repeated', collectLabel)
    .addOption(concurrencyOption('--concurrency', 'blocks compressed and written at once'))
    .option('--replace', 'take the name even if it holds other content')
    .option('--allow-any-name', 'allow names that not every cluster can show')
    .addOption(lockTimeoutOption())
    .addHelpText(
      'after',
      `
Examples:
  drover backup ubuntu.qcow2 --target vfs:///mnt/store
  drover backup disk.raw --target vfs:///mnt/store --name web-1 --label env=prod
  drover backup disk.raw --target vfs:///mnt/store --checksum "$(sha512sum <disk.raw | cut -c1-128)"`,
    )
    .action((file: string, options: Options) =>
      answer(context, options, async (run) => {
        const target = parseTargetUrl(options.target)
        const name =
          options.name === undefined
            ? nameFromFile(file)
            : writableName(options.name, options.allowAnyName ?? false)
        const checksum =
          options.checksum === undefined ? undefined : parseChecksum(options.checksum)
        const { concurrency } = options
        const summary = await withCompute(target, { ...run, concurrency }, (tools) =>
          backupImage(
            {
              file,
              target,
              name,
              checksum,
              compression: options.compression,
              labels: options.label,
              replace: options.replace ?? false,
              lockTimeoutMs: options.lockTimeout,
            },
            tools,
          ),
        )
        return { document: summary, lines: describe(summary) }
      }),
    )
}

function describe(summary: BackupSummary): string[] {
  const { blocks, sizeBytes, seconds } = summary
  return [
    `${summary.name}: ${summary.outcome}`,
    ...facts([
      ['url', summary.url],
      ['size', `${bytes(sizeBytes)} (${sizeBytes} bytes)`],
      ['sha512', summary.checksum],
      [
        'blocks',
        `${plural(blocks.total, 'block')}: ${blocks.new} new, ${blocks.reused} reused, ${blocks.zero} zero`,
      ],
      ['stored', `${bytes(summary.bytesWritten)} (${summary.compression})`],
      ['time', `${formatDuration(seconds * 1000)}, ${rate(sizeBytes, seconds)}`],
    ]),
  ]
}

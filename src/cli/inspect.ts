import type { Command } from 'commander'
import { withStore } from '../app.ts'
import { BlockTable } from '../backupstore/block-table.ts'
import { blockCount } from '../backupstore/block.ts'
import { readBackup, requireComplete } from '../backupstore/catalog.ts'
import type { Backup } from '../backupstore/config.ts'
import type { BackupUrl } from '../backupstore/target-url.ts'
import { parseBackupUrl } from '../backupstore/target-url.ts'
import type { CommonOptions, Context } from './context.ts'
import { answer, withCommonOptions } from './context.ts'
import { bytes, facts, plural, printable } from './format.ts'
import { labelsOf } from './list.ts'

export function defineInspect(program: Command, context: Context): void {
  withCommonOptions(program.command('inspect'))
    .summary('show what a backup says of itself')
    .description('Show the config of a backup. Nothing is read but the config; see verify.')
    .argument('<backup-url>', 'as printed by backup and list')
    .addHelpText(
      'after',
      `
Examples:
  drover inspect 'vfs:///mnt/store?backingImage=ubuntu'
  drover inspect 'vfs:///mnt/store?backingImage=ubuntu' --json | jq -r .checksum`,
    )
    .action((url: string, options: CommonOptions) =>
      answer(context, options, (run) => {
        const from = parseBackupUrl(url)
        return withStore(from.target, run, async ({ store, signal }) => {
          const found = await readBackup(store, from.name, signal)
          const document = documentOf(from, requireComplete(found, from.name).backup)
          return { document, lines: describe(document) }
        })
      }),
    )
}

function documentOf(from: BackupUrl, backup: Backup) {
  const distinct = new BlockTable()
  for (let entry = 0; entry < backup.blocks.length; entry++) {
    distinct.setEntry(backup.blocks, entry, 0)
  }
  const total = blockCount(backup.sizeBytes)
  return {
    name: backup.name,
    url: from.text,
    sizeBytes: backup.sizeBytes,
    checksum: backup.checksum ?? '',
    createdAt: backup.createdAt,
    completedAt: backup.completedAt,
    compression: backup.compression,
    labels: backup.labels,
    blocks: {
      total,
      zero: total - backup.blocks.length,
      stored: backup.blocks.length,
      distinct: distinct.size,
    },
    unknownFields: Object.keys(backup.unknown),
  }
}

function describe(backup: ReturnType<typeof documentOf>): string[] {
  const { blocks } = backup
  return [
    backup.name,
    ...facts([
      ['url', backup.url],
      ['size', `${bytes(backup.sizeBytes)} (${backup.sizeBytes} bytes)`],
      ['sha512', backup.checksum || 'not recorded'],
      ['created', backup.createdAt],
      ['completed', backup.completedAt],
      ['codec', backup.compression],
      [
        'blocks',
        `${plural(blocks.total, 'block')}: ${blocks.stored} stored (${blocks.distinct} distinct), ${blocks.zero} zero`,
      ],
      ['labels', printable(labelsOf(backup.labels)) || 'none'],
    ]),
  ]
}

import type { Command } from 'commander'
import { withStore } from '../app.ts'
import type { Catalog } from '../backupstore/catalog.ts'
import { listBackups } from '../backupstore/catalog.ts'
import type { TargetUrl } from '../backupstore/target-url.ts'
import { backupUrl, parseTargetUrl } from '../backupstore/target-url.ts'
import type { CommonOptions, Context } from './context.ts'
import { answer, withCommonOptions } from './context.ts'
import { bytes, plural, printable, table } from './format.ts'

interface Options extends CommonOptions {
  readonly target: string
}

export function defineList(program: Command, context: Context): void {
  withCommonOptions(program.command('list'))
    .summary('list the backups of a target')
    .description('List the backups of a target, and what looks like one and is none.')
    .requiredOption('--target <url>', 'as in vfs:///mnt/store')
    .addHelpText(
      'after',
      `
Examples:
  drover list --target vfs:///mnt/store
  drover list --target vfs:///mnt/store --json | jq -r '.backups[].url'`,
    )
    .action((options: Options) =>
      answer(context, options, (run) => {
        const target = parseTargetUrl(options.target)
        return withStore(target, run, async ({ store, signal }) => {
          const catalog = await listBackups(store, signal)
          return { document: documentOf(target, catalog), lines: describe(target, catalog) }
        })
      }),
    )
}

const documentOf = (target: TargetUrl, { backups, incomplete, unreadable }: Catalog) => ({
  target: target.text,
  backups: backups.map((backup) => ({
    name: backup.name,
    url: backupUrl(target, backup.name),
    sizeBytes: backup.sizeBytes,
    checksum: backup.checksum ?? '',
    createdAt: backup.createdAt,
    completedAt: backup.completedAt,
    compression: backup.compression,
    labels: backup.labels,
  })),
  incomplete: incomplete.map(({ name, createdAt }) => ({ name, createdAt })),
  unreadable,
})

function describe(target: TargetUrl, { backups, incomplete, unreadable }: Catalog): string[] {
  const rows = backups.map((backup) => [
    backup.name,
    bytes(backup.sizeBytes),
    backup.completedAt,
    backup.compression,
    backup.checksum === undefined ? 'no checksum' : `${backup.checksum.slice(0, 16)}…`,
    printable(labelsOf(backup.labels)),
  ])
  const heading = ['NAME', 'SIZE', 'COMPLETED', 'CODEC', 'SHA512', 'LABELS']
  return [
    ...(rows.length > 0 ? table([heading, ...rows]) : []),
    `${plural(backups.length, 'backup')} in ${target.text}`,
    ...incomplete.map(
      ({ name, createdAt }) => `incomplete, not a backup: ${name} (begun ${createdAt || '?'})`,
    ),
    ...unreadable.map(({ name, reason }) => `unreadable: ${printable(name)}: ${printable(reason)}`),
  ]
}

export const labelsOf = (labels: Readonly<Record<string, string>>): string =>
  Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',')

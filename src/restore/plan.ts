/** What a restore must find, and what it takes. */
import { DroverError } from '../lib/errors.ts'
import type { Checksum } from '../backupstore/block.ts'
import { BLOCK_BYTES, blockLength } from '../backupstore/block.ts'
import type { Backup } from '../backupstore/config.ts'

/** Bytes that a restore writes: holes take none. */
export function dataBytesOf({ blocks, sizeBytes }: Backup): number {
  if (blocks.length === 0) return 0
  const last = blocks.indexAt(blocks.length - 1)
  return (blocks.length - 1) * BLOCK_BYTES + blockLength(sizeBytes, last)
}

/**
 * The checksum the restored file must have.
 * @throws DroverError CHECKSUM_MISMATCH when the backup is known not to be the image asked for
 */
export function expectedChecksum(
  backup: Backup,
  wanted: Checksum | undefined,
): Checksum | undefined {
  if (wanted !== undefined && backup.checksum !== undefined && wanted !== backup.checksum) {
    throw checksumMismatch(backup, backup.checksum, wanted, 'recorded ')
  }
  return wanted ?? backup.checksum
}

export const checksumMismatch = (
  { name }: Pick<Backup, 'name'>,
  checksum: Checksum,
  expected: Checksum,
  known: 'recorded ' | '' = '',
): DroverError =>
  new DroverError(
    'CHECKSUM_MISMATCH',
    `${name} is not the image expected: its ${known}SHA-512 is ${checksum}, expected ${expected}`,
    { details: { expected, checksum } },
  )

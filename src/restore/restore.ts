/**
 * Restoring an image: its blocks in parallel into a file beside the real one, which takes its
 * place when it is proven.
 *
 * The hash of the whole file is computed on the way, in file order, and must be the one the backup
 * recorded: that proves every byte, so blocks are not hashed one by one as well. When it is another
 * one, or none is recorded, each block is proven by its id, which names the bad one. A good result
 * needs no lock, so nothing waits for it; a bad one is believed only after a second look under it.
 */
import pLimit from 'p-limit'
import type { Clock } from '../lib/clock.ts'
import { DroverError } from '../lib/errors.ts'
import { orAborted, runLanes } from '../lib/lanes.ts'
import { withReleasers } from '../lib/releasers.ts'
import type { Checksum } from '../backupstore/block.ts'
import type { BlockCompute } from '../backupstore/compute.ts'
import type { ProvenBy } from '../backupstore/compression.ts'
import type { Backup } from '../backupstore/config.ts'
import type { Lock } from '../backupstore/lock.ts'
import type { ReadStore } from '../backupstore/object-store.ts'
import type { Observer } from '../backupstore/observer.ts'
import { piecesOf } from '../backupstore/pieces.ts'
import type { BlockReader } from '../backupstore/read-block.ts'
import { readBlockSurely, throwBadBlock } from '../backupstore/read-block.ts'
import { requireBackup } from '../backupstore/require-backup.ts'
import type { BackupUrl } from '../backupstore/target-url.ts'
import { withoutZeroBlocks } from '../backupstore/zero-blocks.ts'
import type { ImageWriter } from '../image/writer.ts'
import { openImageWriter } from '../image/writer.ts'
import { checksumMismatch, dataBytesOf, expectedChecksum } from './plan.ts'
import { Repeats } from './repeats.ts'

export interface RestoreRequest {
  readonly from: BackupUrl
  readonly file: string
  readonly checksum: Checksum | undefined
  /** `blocks`: each block by its id, without the hash of the whole file, unless one is asked for. */
  readonly verify: 'full' | 'blocks'
  readonly force: boolean
  /** Blocks read and decoded at once. */
  readonly concurrentLimit: number
}

export interface RestoreTools {
  readonly store: Pick<ReadStore, 'open' | 'readInto'>
  readonly compute: BlockCompute
  readonly clock: Clock
  /** Absent when the store may not be written to. */
  readonly lock: Lock | undefined
  readonly signal: AbortSignal
  readonly observer: Observer
}

export interface RestoreSummary {
  readonly url: string
  readonly file: string
  readonly sizeBytes: number
  /** SHA-512 of the restored file; null when it was not computed. */
  readonly checksum: Checksum | null
  /**
   * `full`: the whole file matches the recorded checksum. `blocks`: every block matches its id,
   * and the file as a whole was not compared, because it was not asked for or none is recorded.
   */
  readonly verified: 'full' | 'blocks'
  readonly seconds: number
}

/**
 * @throws DroverError BACKUP_*, CONFIG_INVALID, BLOCK_*, IMAGE_CORRUPT, CHECKSUM_MISMATCH,
 * FILE_*, NO_SPACE, STORE_BUSY, TARGET_*: in every case nothing happened to the file
 */
export async function restoreImage(
  request: RestoreRequest,
  tools: RestoreTools,
): Promise<RestoreSummary> {
  const { store, clock, signal, observer } = tools
  const startedMs = clock.monotonicMs()

  return withReleasers(async (own) => {
    const found = await requireBackup(store, request.from.name, tools.lock, signal)
    // zero blocks that are listed become holes like all others
    const blocks = withoutZeroBlocks(found.backup.blocks, found.backup.sizeBytes)
    const backup: Backup = { ...found.backup, blocks }
    const expected = expectedChecksum(backup, request.checksum)
    const writer = await openImageWriter(request.file, {
      sizeBytes: backup.sizeBytes,
      dataBytes: dataBytesOf(backup),
      force: request.force,
    })
    own.add(() => writer.abort())

    // a checksum that somebody asks for is compared, whatever else is left out
    const whole = request.verify === 'full' || request.checksum !== undefined
    const toProve = whole ? expected : undefined
    const pass: Pass = { backup, writer, whole, concurrentLimit: request.concurrentLimit }
    observer.phase('restoring', backup.sizeBytes)
    let checksum = await writeBlocks({ ...pass, provenBy: toProve ? 'file' : 'id' }, tools)
    if (toProve !== undefined && checksum !== toProve) {
      // a block is bad, or was read badly: its id will tell
      observer.phase('restoring again, each block by its id', backup.sizeBytes)
      checksum = await writeBlocks({ ...pass, provenBy: 'id' }, tools)
    }
    if (checksum !== undefined) requireProof(backup, checksum, expected, request)

    observer.phase('flushing')
    await writer.commit()
    return {
      url: request.from.text,
      file: writer.file,
      sizeBytes: backup.sizeBytes,
      checksum: checksum ?? null,
      verified: checksum !== undefined && expected !== undefined ? 'full' : 'blocks',
      seconds: (clock.monotonicMs() - startedMs) / 1000,
    }
  })
}

interface Pass {
  readonly backup: Backup
  readonly writer: ImageWriter
  /** Whether the file is hashed as a whole. */
  readonly whole: boolean
  readonly concurrentLimit: number
}

/** @returns the checksum of the file as it was written; undefined when it is not hashed as a whole */
async function writeBlocks(
  { backup, writer, whole, concurrentLimit, provenBy }: Pass & { readonly provenBy: ProvenBy },
  { store, compute, lock, signal, observer }: RestoreTools,
): Promise<Checksum | undefined> {
  const hash = whole ? compute.openFileHash(signal) : undefined
  // a frame whose own checksum is wrong can hold the right bytes: restore what can be proven
  const reader: BlockReader = { store, compute, strictness: 'bytes', provenBy, lock }
  const limit = pLimit(concurrentLimit)
  const repeats = new Repeats(backup)
  await runLanes(compute.slots, piecesOf(backup), signal, async (piece, slot, laneSignal) => {
    if (piece.kind === 'zeros') {
      if (hash) await orAborted(hash.addZeros(piece.order, piece.length), laneSignal)
    } else {
      const { id, offset, length } = piece
      const bytes = slot.raw.subarray(0, length)
      const there = await repeats.placeOf(piece, laneSignal)
      if (there !== undefined) await writer.read(bytes, there)
      if (there !== undefined && provenBy === 'id') {
        // what was proven once must not have been spoilt on this disk
        if ((await compute.identify(slot, length)) !== id) throw spoilt(writer.file, there)
      }
      if (there === undefined) {
        const found = await limit(() => readBlockSurely(reader, id, length, slot, laneSignal))
        if (found.state !== 'good') throwBadBlock(found, id, offset)
      }
      const hashed = hash && orAborted(hash.addBlock(piece.order, slot, length), laneSignal)
      hashed?.catch(() => undefined) // awaited below, unless the writing fails first
      await writer.write(bytes, offset)
      repeats.wrote(piece)
      await hashed
    }
    observer.advance(piece.length)
  })
  return hash?.digest()
}

const spoilt = (file: string, offset: number): DroverError =>
  new DroverError(
    'FILE_UNWRITABLE',
    `${file} cannot be written: its disk gave back other bytes at offset ${offset} than were written there a moment ago`,
    { details: { file, offset } },
  )

function requireProof(
  backup: Backup,
  checksum: Checksum,
  expected: Checksum | undefined,
  request: RestoreRequest,
): void {
  if (expected === undefined || checksum === expected) return
  if (backup.checksum === undefined) throw checksumMismatch(backup, checksum, expected)
  throw new DroverError(
    'IMAGE_CORRUPT',
    `every block of ${backup.name} matches its id, but the image as a whole does not match its checksum: expected ${expected}, got ${checksum}. ${request.file} was not written`,
    { details: { name: backup.name, expected, checksum } },
  )
}

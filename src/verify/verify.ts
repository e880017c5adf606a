/**
 * Proving a backup without restoring it. Four levels: `config` reads the config, `exists` compares
 * it with a listing of the pool, `blocks` reads every block and proves it by its id, `full` reads
 * every block and proves the file as a whole by the SHA-512 that the backup recorded. Where that is
 * another one, or none is recorded, `full` proves each block by its id too, to name the bad ones.
 *
 * Everything that is bad is found and named. A bad finding is a finding only after a second look
 * under the lock; a good one needs none.
 */
import pLimit from 'p-limit'
import { DroverError } from '../lib/errors.ts'
import { orAborted, runLanes } from '../lib/lanes.ts'
import type { Checksum } from '../backupstore/block.ts'
import type { BlockMap } from '../backupstore/block-map.ts'
import { BlockTable } from '../backupstore/block-table.ts'
import type { StoredBackup } from '../backupstore/catalog.ts'
import type { ProvenBy } from '../backupstore/compression.ts'
import type { Backup } from '../backupstore/config.ts'
import { piecesOf } from '../backupstore/pieces.ts'
import { listPool } from '../backupstore/pool.ts'
import type { BlockReader } from '../backupstore/read-block.ts'
import { readBlock } from '../backupstore/read-block.ts'
import { requireBackup } from '../backupstore/require-backup.ts'
import type { BackupUrl } from '../backupstore/target-url.ts'
import type { Bad, BadBlock, Suspects, VerifyTools } from './look-again.ts'
import { UNSEEN, confirm, none } from './look-again.ts'

export const VERIFY_LEVELS = ['config', 'exists', 'blocks', 'full'] as const
export type VerifyLevel = (typeof VERIFY_LEVELS)[number]

/** Full reads of a backup whose blocks read badly only sometimes. */
const FULL_TRIES = 3

export interface VerifyRequest {
  readonly backup: BackupUrl
  readonly level: VerifyLevel
  /** Blocks read and decoded at once. */
  readonly concurrentLimit: number
}

export interface VerifySummary {
  readonly url: string
  readonly level: VerifyLevel
  readonly ok: boolean
  readonly sizeBytes: number
  readonly blocks: {
    /** Blocks of the image that are stored; zero blocks are not. */
    readonly total: number
    readonly checked: number
  }
  readonly missing: readonly BadBlock[]
  readonly corrupt: ReadonlyArray<BadBlock & { readonly reason: string }>
  /** SHA-512 of the whole image as read; null when not every block was read and good. */
  readonly checksum: Checksum | null
  /** What the config says; null when it says nothing. */
  readonly recordedChecksum: Checksum | null
  readonly seconds: number
}

/** @throws DroverError BACKUP_*, CONFIG_INVALID, STORE_BUSY, STORE_CHANGED, TARGET_* */
export async function verifyBackup(
  request: VerifyRequest,
  tools: VerifyTools,
): Promise<VerifySummary> {
  const { clock } = tools
  const startedMs = clock.monotonicMs()
  const found = await requireBackup(tools.store, request.backup.name, tools.lock, tools.signal)
  const { backup } = found
  const result = await check(found, request, tools)
  const { missing, corrupt } = result.bad
  const checksumOk =
    result.checksum === undefined ||
    backup.checksum === undefined ||
    result.checksum === backup.checksum
  return {
    url: request.backup.text,
    level: request.level,
    ok: missing.length === 0 && corrupt.length === 0 && checksumOk,
    sizeBytes: backup.sizeBytes,
    blocks: { total: backup.blocks.length, checked: result.checked },
    missing,
    corrupt,
    checksum: result.checksum ?? null,
    recordedChecksum: backup.checksum ?? null,
    seconds: (clock.monotonicMs() - startedMs) / 1000,
  }
}

interface Result {
  readonly checked: number
  readonly bad: Bad
  readonly checksum: Checksum | undefined
}

async function check(
  found: StoredBackup,
  { level, concurrentLimit }: VerifyRequest,
  tools: VerifyTools,
): Promise<Result> {
  const { backup } = found
  switch (level) {
    case 'config':
      return { checked: 0, bad: { missing: [], corrupt: [] }, checksum: undefined }
    case 'exists': {
      const bad = await findMissing(backup.blocks, tools)
      return {
        checked: backup.blocks.length,
        bad: bad.size === 0 ? none() : await confirm(found, bad, tools),
        checksum: undefined,
      }
    }
    case 'blocks':
    case 'full': {
      const reading: Reading = { backup, whole: level === 'full', concurrentLimit }
      if (level === 'full' && backup.checksum !== undefined) {
        const { suspects, checksum } = await readAll({ ...reading, provenBy: 'file' }, tools)
        if (suspects.size === 0 && checksum === backup.checksum) {
          return { checked: backup.blocks.length, bad: none(), checksum }
        }
      }
      return readSurely(found, reading, tools)
    }
  }
}

/** Reads and proves each block by its id, until it is clear what is bad. */
async function readSurely(
  found: StoredBackup,
  reading: Reading,
  tools: VerifyTools,
): Promise<Result> {
  const checked = found.backup.blocks.length
  for (let tries = 1; tries <= FULL_TRIES; tries++) {
    const { suspects, checksum } = await readAll({ ...reading, provenBy: 'id' }, tools)
    const bad = suspects.size === 0 ? none() : await confirm(found, suspects, tools)
    const isBad = bad.missing.length + bad.corrupt.length > 0
    // what looked bad and is good now was a passing fault: the whole is hashed once more
    if (isBad || checksum !== undefined || !reading.whole) return { checked, bad, checksum }
  }
  throw new DroverError(
    'TARGET_UNREACHABLE',
    `blocks of ${found.backup.name} read badly and then well again, ${FULL_TRIES} times over: the target is not reliable`,
    { retryable: true },
  )
}

async function findMissing(
  blocks: BlockMap,
  { store, signal, observer }: VerifyTools,
): Promise<Suspects> {
  observer.phase('listing blocks')
  const pool = await listPool(store, signal)
  const missing: Suspects = new BlockTable()
  for (let entry = 0; entry < blocks.length; entry++) {
    if (!pool.hasEntry(blocks, entry)) missing.setEntry(blocks, entry, UNSEEN)
  }
  return missing
}

interface Reading {
  readonly backup: Backup
  /** Hash the file as a whole, as long as nothing is bad. */
  readonly whole: boolean
  readonly concurrentLimit: number
}

/**
 * Reads every block. Where the file's hash is to prove them, one that cannot be decoded ends the
 * reading: nothing can be proven then.
 */
async function readAll(
  { backup, whole, concurrentLimit, provenBy }: Reading & { readonly provenBy: ProvenBy },
  { store, compute, lock, signal, observer }: VerifyTools,
): Promise<{ suspects: Suspects; checksum: Checksum | undefined }> {
  const how = provenBy === 'id' && whole ? 'verifying each block by its id' : 'verifying'
  observer.phase(how, backup.sizeBytes)
  const suspects: Suspects = new BlockTable()
  const noMoreHash = new AbortController()
  const hashSignal = AbortSignal.any([signal, noMoreHash.signal])
  const hash = whole ? compute.openFileHash(hashSignal) : undefined
  // what a bad block leaves unhashed is not waited for
  const unlessBad = async (hashed: Promise<void> | undefined) => {
    try {
      await hashed
    } catch (error) {
      if (suspects.size === 0) throw error
    }
  }
  const reader: BlockReader = { store, compute, strictness: 'frame', provenBy, lock }
  const limit = pLimit(concurrentLimit)
  await runLanes(compute.slots, piecesOf(backup), signal, async (piece, slot, laneSignal) => {
    if (provenBy === 'file' && suspects.size > 0) return
    if (piece.kind === 'zeros') {
      await unlessBad(hash && orAborted(hash.addZeros(piece.order, piece.length), laneSignal))
    } else {
      const { id, length, order } = piece
      const state = await limit(() => readBlock(reader, id, length, slot, laneSignal))
      if (state.state === 'good') {
        await unlessBad(hash && orAborted(hash.addBlock(order, slot, length), laneSignal))
      } else {
        suspects.set(id, UNSEEN)
        noMoreHash.abort(new DroverError('BLOCK_CORRUPT', 'a block is bad'))
      }
    }
    observer.advance(piece.length)
  })
  return { suspects, checksum: suspects.size === 0 ? await hash?.digest() : undefined }
}

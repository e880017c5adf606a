/**
 * Proving a backup without restoring it. Three levels: `config` reads the config, `exists` compares
 * it with a listing of the pool, `full` reads and proves every block and the file as a whole.
 *
 * Everything that is bad is found and named. A bad finding is a finding only after a second look
 * under the lock; a good one needs none.
 */
import pLimit from 'p-limit'
import type { Clock } from '../lib/clock.ts'
import { DroverError } from '../lib/errors.ts'
import { orAborted, runLanes } from '../lib/lanes.ts'
import type { BlockId, Checksum } from '../backupstore/block.ts'
import { BLOCK_BYTES, blockLength } from '../backupstore/block.ts'
import type { BlockMap } from '../backupstore/block-map.ts'
import type { StoredBackup } from '../backupstore/catalog.ts'
import type { BlockCompute } from '../backupstore/compute.ts'
import type { Backup } from '../backupstore/config.ts'
import { configKey } from '../backupstore/layout.ts'
import type { Lock } from '../backupstore/lock.ts'
import type { ReadStore } from '../backupstore/object-store.ts'
import type { Observer } from '../backupstore/observer.ts'
import { piecesOf } from '../backupstore/pieces.ts'
import { listPool } from '../backupstore/pool.ts'
import type { BlockState } from '../backupstore/read-block.ts'
import { readBlock, underLock } from '../backupstore/read-block.ts'
import { requireBackup } from '../backupstore/require-backup.ts'
import type { BackupUrl } from '../backupstore/target-url.ts'

export const VERIFY_LEVELS = ['config', 'exists', 'full'] as const
export type VerifyLevel = (typeof VERIFY_LEVELS)[number]

/** Full reads of a backup whose blocks read badly only sometimes. */
const FULL_TRIES = 3

export interface VerifyRequest {
  readonly backup: BackupUrl
  readonly level: VerifyLevel
  /** Blocks read and decoded at once. */
  readonly concurrentLimit: number
}

export interface VerifyTools {
  readonly store: ReadStore
  readonly compute: BlockCompute
  readonly clock: Clock
  readonly lock: Lock | undefined
  readonly signal: AbortSignal
  readonly observer: Observer
}

export interface BadBlock {
  readonly id: BlockId
  /** Where the block stands in the image. */
  readonly offsets: readonly number[]
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

interface Bad {
  readonly missing: BadBlock[]
  readonly corrupt: Array<BadBlock & { reason: string }>
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
    case 'full': {
      for (let tries = 1; tries <= FULL_TRIES; tries++) {
        const { suspects, checksum } = await readAll(backup, concurrentLimit, tools)
        const bad = suspects.size === 0 ? none() : await confirm(found, suspects, tools)
        const isBad = bad.missing.length + bad.corrupt.length > 0
        // what looked bad and is good now was a passing fault: the whole is hashed once more
        if (isBad || checksum !== undefined) {
          return { checked: backup.blocks.length, bad, checksum }
        }
      }
      throw new DroverError(
        'TARGET_UNREACHABLE',
        `blocks of ${backup.name} read badly and then well again, ${FULL_TRIES} times over: the target is not reliable`,
        { retryable: true },
      )
    }
  }
}

const none = (): Bad => ({ missing: [], corrupt: [] })

/** Bad blocks are few; a store with nothing but bad ones still fits. */
type Suspects = Map<BlockId, Exclude<BlockState, { state: 'good' }>>

async function findMissing(
  blocks: BlockMap,
  { store, signal, observer }: VerifyTools,
): Promise<Suspects> {
  observer.phase('listing blocks')
  const pool = await listPool(store, signal)
  const missing: Suspects = new Map()
  for (let entry = 0; entry < blocks.length; entry++) {
    const id = blocks.idAt(entry)
    if (!pool.has(id)) missing.set(id, { state: 'missing' })
  }
  return missing
}

/** Reads and proves every block, and hashes the file as long as nothing is bad. */
async function readAll(
  backup: Backup,
  concurrentLimit: number,
  { store, compute, lock, signal, observer }: VerifyTools,
): Promise<{ suspects: Suspects; checksum: Checksum | undefined }> {
  observer.phase('verifying', backup.sizeBytes)
  const suspects: Suspects = new Map()
  const noMoreHash = new AbortController()
  const hash = compute.openFileHash(AbortSignal.any([signal, noMoreHash.signal]))
  // what a bad block leaves unhashed is not waited for
  const unlessBad = async (hashed: Promise<void>) => {
    try {
      await hashed
    } catch (error) {
      if (suspects.size === 0) throw error
    }
  }
  const reader = { store, compute, lock }
  const limit = pLimit(concurrentLimit)
  await runLanes(compute.slots, piecesOf(backup), signal, async (piece, slot, laneSignal) => {
    if (piece.kind === 'zeros') {
      await unlessBad(orAborted(hash.addZeros(piece.order, piece.length), laneSignal))
    } else {
      const { id, length } = piece
      const state = await limit(() => readBlock(reader, id, length, slot, laneSignal))
      if (state.state === 'good') {
        await unlessBad(orAborted(hash.addBlock(piece.order, slot, piece.length), laneSignal))
      } else {
        suspects.set(piece.id, state)
        noMoreHash.abort(new DroverError('BLOCK_CORRUPT', 'a block is bad'))
      }
    }
    observer.advance(piece.length)
  })
  return { suspects, checksum: suspects.size === 0 ? await hash.digest() : undefined }
}

/**
 * The second look: each suspect is read again under the lock, and the config must still be the
 * one that was verified.
 */
async function confirm(found: StoredBackup, suspects: Suspects, tools: VerifyTools): Promise<Bad> {
  const { store, compute, lock, signal, observer } = tools
  const { blocks, sizeBytes, name } = found.backup
  observer.phase('looking again under the lock')
  await underLock(lock)
  const info = await store.stat(configKey(name), { signal })
  if (info?.version !== found.info.version) {
    throw new DroverError('STORE_CHANGED', `${name} was changed or deleted while it was verified`, {
      details: { name },
      retryable: true,
    })
  }
  const offsets = offsetsOf(blocks, suspects)
  const bad = none()
  await runLanes(compute.slots, suspects.keys(), signal, async (id, slot, laneSignal) => {
    const at = offsets.get(id) ?? []
    const length = blockLength(sizeBytes, (at[0] ?? 0) / BLOCK_BYTES)
    const state = await readBlock({ store, compute, lock }, id, length, slot, laneSignal)
    if (state.state === 'missing') bad.missing.push({ id, offsets: at })
    if (state.state === 'corrupt') bad.corrupt.push({ id, offsets: at, reason: state.reason })
  })
  const byOffset = (a: BadBlock, b: BadBlock) => (a.offsets[0] ?? 0) - (b.offsets[0] ?? 0)
  bad.missing.sort(byOffset)
  bad.corrupt.sort(byOffset)
  return bad
}

function offsetsOf(blocks: BlockMap, suspects: Suspects): Map<BlockId, number[]> {
  const offsets = new Map<BlockId, number[]>()
  for (let entry = 0; entry < blocks.length; entry++) {
    const id = blocks.idAt(entry)
    if (!suspects.has(id)) continue
    const at = offsets.get(id)
    if (at) at.push(blocks.offsetAt(entry))
    else offsets.set(id, [blocks.offsetAt(entry)])
  }
  return offsets
}

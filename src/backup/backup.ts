/**
 * Backing up an image: one pass over the file, new blocks to the pool, the config last.
 *
 *   open lock ─────────── settle 2 s ───────────┐ held: list the pool, judge the name
 *   read → hash file, find ids, compress, stage ┴→ publish blocks → check the file → config
 *
 * The config is the commit record. Until it is written, in one step, nothing that this run did can
 * be mistaken for a backup; blocks without a config only make the next run shorter.
 *
 * Where nothing may be written before all ids are known (the name exists already, or blocks are to
 * be stored uncompressed), the pass only finds ids, and what is missing is read again.
 */
import type { Clock } from '../lib/clock.ts'
import { DroverError, isDroverError } from '../lib/errors.ts'
import { withReleasers } from '../lib/releasers.ts'
import type { Checksum } from '../backupstore/block.ts'
import { listPool } from '../backupstore/pool.ts'
import { readBackup } from '../backupstore/catalog.ts'
import type { Compression } from '../backupstore/codec.ts'
import type { BlockCompute } from '../backupstore/compute.ts'
import type { Backup } from '../backupstore/config.ts'
import { configTime, serializeConfig } from '../backupstore/config.ts'
import type { RunId } from '../backupstore/layout.ts'
import { CONFIGS_PREFIX, configKey } from '../backupstore/layout.ts'
import type { Lock } from '../backupstore/lock.ts'
import { LOCK_EXPIRY_MS, openLock } from '../backupstore/lock.ts'
import type { BackupName } from '../backupstore/names.ts'
import type { LockStore, ObjectInfo, PruneStore } from '../backupstore/object-store.ts'
import type { Observer } from '../backupstore/observer.ts'
import { isDeadPlaceholder } from '../backupstore/placeholder.ts'
import type { TargetUrl } from '../backupstore/target-url.ts'
import { backupUrl } from '../backupstore/target-url.ts'
import { openImageSource } from '../image/source.ts'
import { BlockWriter, storedFamily } from './block-writer.ts'
import type { CommitPlan, Content, Existing } from './plan.ts'
import {
  damagedConflict,
  familiesInPool,
  nameConflict,
  planCommit,
  planCompression,
} from './plan.ts'
import { scanImage } from './scan.ts'

export interface BackupRequest {
  readonly file: string
  readonly target: TargetUrl
  readonly name: BackupName
  /** What the image must be; anything else fails the backup. */
  readonly checksum: Checksum | undefined
  readonly compression: Compression
  /** Undefined: none asked for. */
  readonly labels: Readonly<Record<string, string>> | undefined
  readonly replace: boolean
  readonly lockTimeoutMs: number
}

/** What a backup needs of a store: it writes, locks and tidies, and never removes data. */
export type BackupStore = LockStore & Pick<PruneStore, 'removeEmptyFolders'>

export interface BackupTools {
  readonly store: BackupStore
  readonly compute: BlockCompute
  readonly clock: Clock
  readonly run: RunId
  readonly signal: AbortSignal
  readonly observer: Observer
}

export interface BackupSummary {
  readonly name: BackupName
  readonly url: string
  readonly sizeBytes: number
  readonly checksum: Checksum
  readonly compression: Compression
  readonly blocks: {
    readonly total: number
    readonly zero: number
    readonly reused: number
    readonly new: number
  }
  /** Stored bytes of the new blocks. */
  readonly bytesWritten: number
  readonly seconds: number
  readonly outcome: 'created' | 'unchanged' | 'replaced'
}

/** Tries to commit a config that somebody else keeps changing. */
const COMMIT_TRIES = 5

/**
 * @throws DroverError SOURCE_*, CHECKSUM_MISMATCH, NAME_CONFLICT, BACKUP_IN_PROGRESS,
 * CODEC_CONFLICT, STORE_BUSY, LOCK_LOST, TARGET_*: in every case no config was written
 */
export async function backupImage(
  request: BackupRequest,
  tools: BackupTools,
): Promise<BackupSummary> {
  const { store, compute, clock, observer } = tools
  const startedMs = clock.monotonicMs()
  const createdAt = configTime(clock.wallMs())

  return withReleasers(async (own) => {
    const source = await openImageSource(request.file)
    own.add(() => source.close())
    if (source.sizeBytes % 512 !== 0) {
      observer.warn(
        `the image's size, ${source.sizeBytes} bytes, is no multiple of 512: Longhorn refuses to make a volume of it`,
      )
    }
    const lock = openLock({
      store,
      type: 'shared',
      run: tools.run,
      clock,
      signal: tools.signal,
      timeoutMs: request.lockTimeoutMs,
      onEvent: (event) => observer.lock(event),
    })
    own.add(() => lock.release())
    const stop = new AbortController()
    const signal = AbortSignal.any([tools.signal, lock.signal, stop.signal])

    const seen = await firstLook(store, request.name)
    refuseEarly(seen, source.sizeBytes, request)
    const compression = compressionFor(seen, request)
    const defer = compression === 'none' || (seen.kind === 'complete' && !request.replace)

    const hint = listPool(store, signal)
    hint.catch(() => undefined)
    const pool = (async () => {
      await lock.acquired
      // a live writer of this name, or a name that changed hands, ends the run now
      const now = await look(store, request.name, seen, lock)
      refuseEarly(now, source.sizeBytes, request)
      refuseDamaged(now, request)
      await tidy(store)
      return listPool(store, signal)
    })()
    // without the lock there will be no backup: do not read on for nothing
    pool.catch((error: unknown) => stop.abort(error))

    const area = await store.openStaging?.()
    const writer = new BlockWriter({ store, compute, source, lock, signal, hint, pool }, area)
    own.add(() => writer.close())

    observer.phase('backing up', source.sizeBytes)
    const scan = await scanImage({
      source,
      compute,
      signal,
      onBlock: (block) => (defer ? Promise.resolve() : writer.offer(block, compression)),
      onProgress: (bytes) => observer.advance(bytes),
    })
    const content: Content = { ...scan, sizeBytes: source.sizeBytes }
    requireChecksum(request, content.checksum)
    await source.checkUnchanged()

    observer.phase('waiting for the lock')
    const decided = await pool
    let used = compression
    if (defer) {
      observer.phase('writing')
      // judged before anything is written, so that a conflict leaves nothing behind
      planCommit(await look(store, request.name, seen, lock), content, { ...request, compression })
      const families = await familiesInPool(content, decided, (...stored) =>
        storedFamily(store, ...stored),
      )
      used = planCompression(compression, families)
      if (used !== compression) {
        observer.warn(
          `stored as ${used}, not uncompressed: blocks it shares with other backups are compressed, and Longhorn could not restore a mixture`,
        )
      }
      await writer.writeMissing(content.blocks, decided, used)
    } else {
      observer.phase('finishing')
      await writer.finish(compression)
    }
    await source.checkUnchanged()

    const outcome = await commit({
      request,
      tools,
      lock,
      content,
      compression: used,
      seen,
      createdAt,
    })
    const written = writer.written()
    const zero = scan.total - content.blocks.length
    return {
      name: request.name,
      url: backupUrl(request.target, request.name),
      sizeBytes: content.sizeBytes,
      checksum: content.checksum,
      compression: used,
      blocks: {
        total: scan.total,
        zero,
        reused: content.blocks.length - written.blocks,
        new: written.blocks,
      },
      bytesWritten: written.bytes,
      seconds: (clock.monotonicMs() - startedMs) / 1000,
      outcome,
    }
  })
}

/** What stands under the name, with the object it was read from. */
type Seen = Existing & { readonly info?: ObjectInfo }

/** What stands under the name before the lock is held: a hint, and what a placeholder is compared with. */
async function firstLook(store: BackupStore, name: BackupName): Promise<Seen> {
  try {
    const found = await readBackup(store, name)
    if (!found) return { kind: 'none' }
    const { backup, info } = found
    const kind = backup.completedAt === '' ? 'dead' : 'complete'
    return { kind, backup, version: info.version, info }
  } catch (error) {
    if (!isDroverError(error, 'CONFIG_INVALID')) throw error
    const info = await store.stat(configKey(name))
    if (!info) return { kind: 'none' }
    return { kind: 'damaged', reason: error.message, version: info.version, info }
  }
}

/**
 * What stands under the name, under the lock. Read again only when it changed.
 * @throws DroverError BACKUP_IN_PROGRESS for a placeholder whose writer may live
 */
async function look(store: BackupStore, name: BackupName, seen: Seen, lock: Lock): Promise<Seen> {
  const info = await store.stat(configKey(name))
  const same = info?.version === seen.info?.version && seen.kind !== 'damaged'
  const now = same ? seen : await firstLook(store, name)
  if (now.kind !== 'dead' || !now.info) return now
  if (await isDeadPlaceholder(now.info, seen.info, lock)) return now
  const since = now.backup.createdAt || 'an unknown time'
  throw new DroverError(
    'BACKUP_IN_PROGRESS',
    `${name} is being backed up by someone else since ${since}; if that run is dead, its remains may be taken over ${LOCK_EXPIRY_MS / 1000} s after its last sign of life, when no other backup or restore runs`,
    { details: { name, createdAt: now.backup.createdAt }, retryable: true },
  )
}

/** A conflict that can be seen without reading the image. */
function refuseEarly(existing: Existing, sizeBytes: number, request: BackupRequest): void {
  if (existing.kind !== 'complete' || request.replace) return
  const { backup } = existing
  const otherChecksum =
    request.checksum !== undefined &&
    backup.checksum !== undefined &&
    backup.checksum !== request.checksum
  if (backup.sizeBytes !== sizeBytes || otherChecksum) throw nameConflict(backup, request.checksum)
}

function refuseDamaged(existing: Existing, { replace }: BackupRequest): void {
  if (existing.kind === 'damaged' && !replace) throw damagedConflict(existing.reason)
}

/** An existing backup is healed with the compression it has. */
const compressionFor = (existing: Existing, request: BackupRequest): Compression =>
  existing.kind === 'complete' && !request.replace
    ? existing.backup.compression
    : request.compression

function requireChecksum({ checksum: wanted, file }: BackupRequest, got: Checksum): void {
  if (wanted === undefined || wanted === got) return
  throw new DroverError(
    'CHECKSUM_MISMATCH',
    `${file} is not the image expected: its SHA-512 is ${got}, expected ${wanted}. Nothing was committed`,
    { details: { expected: wanted, checksum: got } },
  )
}

/** Longhorn takes an empty folder for a backup and then collects no blocks at all. */
async function tidy(store: BackupStore): Promise<void> {
  await store.removeEmptyFolders?.(CONFIGS_PREFIX, { minAgeMs: LOCK_EXPIRY_MS })
}

interface Commit {
  readonly request: BackupRequest
  readonly tools: BackupTools
  readonly lock: Lock
  readonly content: Content
  readonly compression: Compression
  readonly seen: Seen
  /** When the run began. */
  readonly createdAt: string
}

/** Writes the config, unless there is nothing to change. */
async function commit(commit: Commit): Promise<BackupSummary['outcome']> {
  const { request, tools, lock, content } = commit
  for (let tries = 1; tries <= COMMIT_TRIES; tries++) {
    const existing = await look(tools.store, request.name, commit.seen, lock)
    const wanted = { ...request, compression: commit.compression }
    const plan: CommitPlan = planCommit(existing, content, wanted)
    if (plan.action === 'keep') return 'unchanged'
    const body = serializeConfig(newBackup(commit, existing))
    lock.assertHeld()
    const { written } = await tools.store.put(configKey(request.name), body, {
      durable: true,
      expect: existing.kind === 'none' ? 'absent' : { version: existing.version },
      signal: AbortSignal.any([tools.signal, lock.signal]),
    })
    if (written) return plan.outcome
  }
  throw new DroverError(
    'STORE_CHANGED',
    `the config of ${request.name} kept changing while it was to be written`,
    { retryable: true },
  )
}

function newBackup(
  { request, tools, content, compression, createdAt }: Commit,
  existing: Existing,
): Backup {
  const before =
    existing.kind === 'complete' || existing.kind === 'dead' ? existing.backup : undefined
  const sameContent = existing.kind === 'complete' && before?.checksum === content.checksum
  return {
    name: request.name,
    sizeBytes: content.sizeBytes,
    checksum: content.checksum,
    labels: request.labels ?? (sameContent ? before.labels : {}),
    compression,
    createdAt,
    completedAt: configTime(tools.clock.wallMs()),
    secret: before?.secret ?? '',
    secretNamespace: before?.secretNamespace ?? '',
    unknown: before?.unknown ?? {},
    blocks: content.blocks,
  }
}

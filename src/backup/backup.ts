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
import { DroverError, interrupted } from '../lib/errors.ts'
import { withReleasers } from '../lib/releasers.ts'
import type { Checksum } from '../backupstore/block.ts'
import { MAX_IMAGE_BYTES } from '../backupstore/block.ts'
import type { BlockTable } from '../backupstore/block-table.ts'
import type { Compression } from '../backupstore/compression.ts'
import { configTime } from '../backupstore/config.ts'
import { CONFIGS_PREFIX } from '../backupstore/layout.ts'
import type { Lock } from '../backupstore/lock.ts'
import { openLock } from '../backupstore/lock.ts'
import { LOCK_EXPIRY_MS } from '../backupstore/lock-file.ts'
import { listPool } from '../backupstore/pool.ts'
import { backupUrl } from '../backupstore/target-url.ts'
import type { ImageSource } from '../image/source.ts'
import { openImageSource } from '../image/source.ts'
import { BlockWriter } from './block-writer.ts'
import { familiesInPool, planCompression } from './codec-family.ts'
import { commit } from './commit.ts'
import type { Seen } from './existing.ts'
import { firstLook, look } from './existing.ts'
import type { Content } from './plan.ts'
import { planCommit, refuseEarly } from './plan.ts'
import type { BackupRequest, BackupSummary, BackupTools } from './request.ts'
import { scanImage } from './scan.ts'

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
    checkSize(source, tools)
    const stop = new AbortController()
    const listings: Promise<unknown>[] = []
    // released last: nothing of this run goes on when it is over
    own.add(() => Promise.allSettled(listings))
    own.add(() => stop.abort(interrupted()))
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
    const signal = AbortSignal.any([tools.signal, lock.signal, stop.signal])

    const seen = await firstLook(store, request.name, signal)
    refuseEarly(seen, source.sizeBytes, { ...request, sure: false })
    const heals = seen.kind === 'complete' && !request.replace
    // an existing backup is healed with the compression it has
    const compression = heals ? seen.backup.compression : request.compression
    const writeLater = heals || compression === 'none'

    const pool = started(poolUnderLock(request, tools, { lock, seen, source, signal }), listings)
    // without the lock there will be no backup: do not read on for nothing
    pool.catch((error: unknown) => stop.abort(error))
    const hint = started(poolBefore(lock, pool, store, signal), listings)
    const writer = await BlockWriter.open(
      // what cannot be published ends the run now, not when the image is read to its end
      { store, compute, source, lock, signal, pool, onFailure: (error) => stop.abort(error) },
      hint,
    )
    own.add(() => writer.close())

    observer.phase('backing up', source.sizeBytes)
    const scan = await scanImage({
      source,
      compute,
      signal,
      mostPutOff: tools.mostPutOff,
      onBlock: async (block) => {
        if (!writeLater) await writer.offer(block, compression)
      },
      ...(writeLater ? {} : { early: writer }),
      onProgress: (bytes) => observer.advance(bytes),
    })
    const content: Content = { ...scan, sizeBytes: source.sizeBytes }
    requireChecksum(request, content.checksum)
    await source.checkUnchanged()

    observer.phase('waiting for the lock')
    if ((await pool).size === 0 && seen.kind === 'none') {
      observer.note(
        `the target held no block before: a new store is begun in ${request.target.text}`,
      )
    }
    observer.phase('writing')
    const prepared: Prepared = { request, tools, content, compression, seen, lock, writer }
    const used = writeLater
      ? await writeNow(prepared, await pool)
      : await writer.finish(compression)
    await source.checkUnchanged()

    const outcome = await commit({ ...prepared, compression: used, createdAt })
    const written = writer.written()
    return {
      name: request.name,
      url: backupUrl(request.target, request.name),
      sizeBytes: content.sizeBytes,
      checksum: content.checksum,
      compression: used,
      blocks: {
        total: scan.total,
        zero: scan.total - content.blocks.length,
        reused: content.blocks.length - written.blocks,
        new: written.blocks,
      },
      bytesWritten: written.bytes,
      seconds: (clock.monotonicMs() - startedMs) / 1000,
      outcome,
    }
  })
}

/** Remembers what goes on, to wait for it in the end; it is awaited where it is needed, if it is. */
function started<T>(work: Promise<T>, all: Promise<unknown>[]): Promise<T> {
  work.catch(() => undefined)
  all.push(work)
  return work
}

interface Prepared {
  readonly request: BackupRequest
  readonly tools: BackupTools
  readonly content: Content
  readonly compression: Compression
  readonly seen: Seen
  readonly lock: Lock
  readonly writer: BlockWriter
}

/**
 * Waits for the lock, judges the name (a live writer of it, or a name that changed hands, ends the
 * run now), and lists the pool as it decides.
 */
async function poolUnderLock(
  request: BackupRequest,
  { store }: BackupTools,
  at: {
    readonly lock: Lock
    readonly seen: Seen
    readonly source: ImageSource
    readonly signal: AbortSignal
  },
): Promise<BlockTable> {
  await at.lock.acquired
  const now = await look(store, request.name, at.seen, at.lock, at.signal)
  refuseEarly(now, at.source.sizeBytes, { ...request, sure: true })
  // Longhorn takes an empty folder for a backup and then collects no blocks at all
  await store.removeEmptyFolders?.(CONFIGS_PREFIX, { minAgeMs: LOCK_EXPIRY_MS })
  return listPool(store, at.signal)
}

/**
 * The pool as listed while the lock settles. A listing that takes longer than that is given up for
 * the deciding one: two at once slow each other down and hold a large pool in memory twice.
 */
async function poolBefore(
  lock: Lock,
  decided: Promise<BlockTable>,
  store: BackupTools['store'],
  signal: AbortSignal,
): Promise<BlockTable> {
  const held = new AbortController()
  lock.acquired.then(
    () => held.abort(),
    () => undefined,
  )
  try {
    return await listPool(store, AbortSignal.any([signal, held.signal]))
  } catch (error) {
    if (held.signal.aborted && !signal.aborted) return decided
    throw error
  }
}

/** Writes what the pool lacks, now that all ids are known; returns the compression it took. */
async function writeNow(
  { request, tools, content, compression, seen, lock, writer }: Prepared,
  pool: BlockTable,
): Promise<Compression> {
  // judged before anything is written, so that a conflict leaves nothing behind
  const existing = await look(tools.store, request.name, seen, lock, tools.signal)
  planCommit(existing, content, { ...request, compression })
  const families = await familiesInPool(tools.store, content, pool)
  const used = planCompression(compression, families)
  if (used !== compression) {
    tools.observer.warn(
      `stored as ${used}, not uncompressed: blocks it shares with other backups are compressed, and Longhorn could not restore a mixture`,
    )
  }
  await writer.writeMissing(content.blocks, pool, used)
  return used
}

function checkSize({ file, sizeBytes }: ImageSource, { observer }: BackupTools): void {
  if (sizeBytes > MAX_IMAGE_BYTES) {
    throw new DroverError(
      'SOURCE_UNREADABLE',
      `${file} has ${sizeBytes} bytes: expected no more than ${MAX_IMAGE_BYTES}, the largest image a backup can hold`,
      { details: { file, sizeBytes } },
    )
  }
  if (sizeBytes % 512 === 0) return
  observer.warn(
    `the image's size, ${sizeBytes} bytes, is no multiple of 512: Longhorn refuses to make a volume of it`,
  )
}

function requireChecksum({ checksum: wanted, file }: BackupRequest, got: Checksum): void {
  if (wanted === undefined || wanted === got) return
  throw new DroverError(
    'CHECKSUM_MISMATCH',
    `${file} is not the image expected: its SHA-512 is ${got}, expected ${wanted}. Nothing was committed`,
    { details: { expected: wanted, checksum: got } },
  )
}

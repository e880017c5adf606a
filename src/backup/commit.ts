/** The last step of a backup: its config, in one step, or nothing. */
import { DroverError, isDroverError } from '../lib/errors.ts'
import type { Compression } from '../backupstore/compression.ts'
import type { Backup } from '../backupstore/config.ts'
import { configTime, serializeConfig } from '../backupstore/config.ts'
import { configKey } from '../backupstore/layout.ts'
import type { Lock } from '../backupstore/lock.ts'
import type { Seen } from './existing.ts'
import { look } from './existing.ts'
import type { CommitPlan, Content, Existing } from './plan.ts'
import { planCommit } from './plan.ts'
import type { BackupRequest, BackupSummary, BackupTools } from './request.ts'

/** Tries to commit a config that somebody else keeps changing. */
const COMMIT_TRIES = 5

export interface Commit {
  readonly request: BackupRequest
  readonly tools: BackupTools
  readonly lock: Lock
  readonly content: Content
  readonly compression: Compression
  readonly seen: Seen
  /** When the run began. */
  readonly createdAt: string
}

/**
 * Writes the config, unless there is nothing to change. All blocks are durable by now.
 * @throws DroverError NAME_CONFLICT, BACKUP_IN_PROGRESS, LOCK_LOST, STORE_CHANGED
 */
export async function commit(commit: Commit): Promise<BackupSummary['outcome']> {
  const { request, tools, lock, content } = commit
  const signal = AbortSignal.any([tools.signal, lock.signal])
  for (let tries = 1; tries <= COMMIT_TRIES; tries++) {
    const existing = await look(tools.store, request.name, commit.seen, lock, signal)
    const wanted = { ...request, compression: commit.compression }
    const plan: CommitPlan = planCommit(existing, content, wanted)
    // the server's word that we hold the lock still; a machine that was paused cannot know itself
    await lock.confirm()
    if (plan.action === 'keep') {
      if (plan.labelsDiffer) {
        tools.observer.warn('the backup exists and keeps its labels; --replace gives it new ones')
      }
      return 'unchanged'
    }
    const body = serializeConfig(newBackup(commit, existing))
    const put = tools.store.put(configKey(request.name), body, {
      durable: true,
      expect: existing.kind === 'none' ? 'absent' : { version: existing.version },
      before: () => lock.assertHeld(),
      signal,
    })
    const { written } = await put.catch((error: unknown) => {
      throw tools.store.inDoubt?.() ? unanswered(error, request.name) : error
    })
    if (written) return plan.outcome
  }
  throw new DroverError(
    'STORE_CHANGED',
    `the config of ${request.name} kept changing while it was to be written`,
    { retryable: true },
  )
}

/** The config was sent, and nobody knows whether it stands there now. */
function unanswered(error: unknown, name: string): unknown {
  if (!isDroverError(error, 'TARGET_UNREACHABLE', 'TARGET_THROTTLED')) return error
  return new DroverError(
    error.code,
    `${error.message}. The last step of the backup was not answered: ${name} may exist, whole, or not; run it again`,
    { details: { ...error.details, mayExist: true }, retryable: true, cause: error },
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

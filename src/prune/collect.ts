/**
 * Removing blocks that no backup refers to. Only when that is certain: every config was read,
 * none is being written, the configs are the same afterwards as before, and the block has been
 * there for a while (a writer that lost its lock may still be about to commit).
 */
import { DroverError, isDroverError } from '../lib/errors.ts'
import { BlockTable } from '../backupstore/block-table.ts'
import { listConfigs, readBackup } from '../backupstore/catalog.ts'
import { BLOCKS_PREFIX, blockKey, idOfBlockKey, nameOfConfigKey } from '../backupstore/layout.ts'
import type { Lock } from '../backupstore/lock.ts'
import { isReadableName } from '../backupstore/names.ts'
import type { ObjectInfo, PruneStore } from '../backupstore/object-store.ts'
import { isDeadPlaceholder } from '../backupstore/placeholder.ts'

export interface CollectOptions {
  readonly store: PruneStore
  /** A deletion lock; it is held. */
  readonly lock: Lock
  readonly signal: AbortSignal
  readonly minAgeMs: number
  readonly dryRun: boolean
  /** The configs as they were before the lock, to tell which placeholders changed since. */
  readonly seenBefore: readonly ObjectInfo[]
  /** Only these blocks; all of the pool when absent. */
  readonly among?: BlockTable
}

export interface Collected {
  /** Blocks removed, or that would be. */
  readonly removed: number
  /** Blocks of the pool that stay. */
  readonly kept: number
  /** Of those, unreferenced ones that are too young. */
  readonly tooYoung: number
  readonly freedBytes: number
}

/** Blocks removed between two looks at the configs. */
const BATCH = 1000

/**
 * @throws DroverError CONFIG_INVALID, BACKUP_IN_PROGRESS, STORE_CHANGED, LOCK_LOST, TARGET_*
 */
export async function collectBlocks(options: CollectOptions): Promise<Collected> {
  const { store, lock, signal } = options
  const configs = await listConfigs(store, signal)
  const referenced = await referencedBlocks(configs, options)
  const { victims, kept, tooYoung } = await findVictims(referenced, options)

  const requireSame = async () => {
    if (fingerprint(await listConfigs(store, signal)) === fingerprint(configs)) return
    throw new DroverError(
      'STORE_CHANGED',
      'backups came, went or changed while blocks were being collected: nothing more is removed',
      { retryable: true },
    )
  }
  await requireSame()
  let removed = 0
  let freedBytes = 0
  for (const [id, storedBytes] of victims.entries()) {
    if (!options.dryRun) {
      if (removed > 0 && removed % BATCH === 0) await requireSame()
      lock.assertHeld()
      await store.remove(blockKey(id), { signal })
    }
    removed += 1
    freedBytes += storedBytes
  }
  return { removed, kept, tooYoung, freedBytes }
}

const fingerprint = (configs: readonly ObjectInfo[]): string =>
  configs.map(({ key, version }) => `${key} ${version}`).join('\n')

async function referencedBlocks(
  configs: readonly ObjectInfo[],
  { store, lock, signal, seenBefore }: CollectOptions,
): Promise<BlockTable> {
  const referenced = new BlockTable()
  for (const info of configs) {
    const name = nameOfConfigKey(info.key) ?? ''
    if (!isReadableName(name)) {
      throw new DroverError(
        'CONFIG_INVALID',
        `no block is removed, because ${JSON.stringify(info.key)} cannot belong to a backup and might refer to some`,
        { details: { key: info.key } },
      )
    }
    const found = await readBackup(store, name, signal).catch((error: unknown) => {
      if (!isDroverError(error, 'CONFIG_INVALID', 'UNSAFE_PATH')) throw error
      throw new DroverError(
        error.code,
        `no block is removed, because ${error.message}, and it might refer to some`,
        { details: error.details, cause: error },
      )
    })
    if (!found)
      throw new DroverError('STORE_CHANGED', `${name} was deleted meanwhile`, { retryable: true })
    const { backup } = found
    const before = seenBefore.find(({ key }) => key === info.key)
    if (backup.completedAt === '' && !(await isDeadPlaceholder(found.info, before, lock))) {
      throw new DroverError(
        'BACKUP_IN_PROGRESS',
        `no block is removed, because ${name} may be being backed up, since ${backup.createdAt || 'an unknown time'}`,
        { details: { name, createdAt: backup.createdAt }, retryable: true },
      )
    }
    for (let entry = 0; entry < backup.blocks.length; entry++) {
      referenced.setEntry(backup.blocks, entry, 0)
    }
  }
  return referenced
}

async function findVictims(
  referenced: BlockTable,
  { store, lock, signal, minAgeMs, among }: CollectOptions,
): Promise<{ victims: BlockTable; kept: number; tooYoung: number }> {
  const victims = new BlockTable()
  let kept = 0
  let tooYoung = 0
  for await (const page of store.list(BLOCKS_PREFIX, { signal })) {
    for (const { key, sizeBytes, modifiedAtMs, notPlain } of page) {
      const id = idOfBlockKey(key)
      if (id === undefined || notPlain) continue // not a block: not ours to judge
      const free = !referenced.has(id) && (among === undefined || among.has(id))
      const old = lock.serverNowMs() - modifiedAtMs >= minAgeMs
      if (free && old) victims.set(id, sizeBytes)
      else kept += 1
      if (free && !old) tooYoung += 1
    }
  }
  if (victims.size + kept === 0 && referenced.size > 0) {
    throw new DroverError(
      'TARGET_UNREACHABLE',
      'the target lists no block at all, although backups refer to some: its listing cannot be trusted',
    )
  }
  return { victims, kept, tooYoung }
}

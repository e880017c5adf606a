/**
 * Removing blocks that no backup refers to. Only when that is certain: every config was read,
 * none is being written, the configs are the same afterwards as before, and the block has been
 * there for a while (a writer that lost its lock may still be about to commit).
 */
import { DroverError, isDroverError } from '../lib/errors.ts'
import { BlockTable } from '../backupstore/block-table.ts'
import type { ConfigListing, StoredBackup } from '../backupstore/catalog.ts'
import { CONFIG_UNREADABLE, listConfigs, readBackup } from '../backupstore/catalog.ts'
import type { Key } from '../backupstore/layout.ts'
import {
  BLOCKS_PREFIX,
  CONFIGS_PREFIX,
  blockKey,
  idOfBlockKey,
  nameOfConfigKey,
} from '../backupstore/layout.ts'
import { isReadableName } from '../backupstore/names.ts'
import type { PruneStore } from '../backupstore/object-store.ts'
import { MOST_REMOVED_AT_ONCE } from '../backupstore/object-store.ts'
import { isDeadPlaceholder } from '../backupstore/placeholder.ts'
import { removeMany } from './remove-many.ts'
import type { Held } from './under-deletion-lock.ts'

export interface CollectOptions extends Held {
  readonly store: PruneStore
  readonly minAgeMs: number
  readonly dryRun: boolean
  /** Configs that this run removed, or with `dryRun` would have. */
  readonly gone: ReadonlySet<Key>
  /** Whether to collect when there is no backup at all. */
  readonly allowEmpty: boolean
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

/** `Collected` as it grows, for who wants to know how far it came when it fails. */
export type Tally = { -readonly [Count in keyof Collected]: Collected[Count] }

export const newTally = (): Tally => ({ removed: 0, kept: 0, tooYoung: 0, freedBytes: 0 })

/**
 * @throws DroverError CONFIG_INVALID, BACKUP_IN_PROGRESS, STORE_CHANGED, LOCK_LOST, TARGET_*
 */
export async function collectBlocks(
  options: CollectOptions,
  tally: Tally = newTally(),
): Promise<Collected> {
  const { store, lock, signal, mayRemove } = options
  const listing = await listConfigs(store, signal)
  requireSomeLeft(listing, options)
  const { referenced, backups } = await referencedBlocks(listing, options)
  const victims = await findVictims(referenced, options, tally)
  if (backups === 0 && victims.size > 0 && !options.allowEmpty) {
    throw noBackupAtAll(victims.size + tally.kept)
  }

  const requireSame = async () => {
    if (fingerprint(await listConfigs(store, signal)) !== fingerprint(listing)) throw changed()
    if (!options.dryRun) await lock.confirm()
  }
  await requireSame()
  let batches = 0
  for (const batch of inBatches(victims)) {
    if (!options.dryRun && batches++ > 0) await requireSame()
    const all = [...batch.keys()]
    const { removed, failure } = options.dryRun
      ? { removed: all }
      : await removeMany(store, all, { before: mayRemove, signal })
    for (const key of removed) {
      tally.removed += 1
      tally.freedBytes += batch.get(key) ?? 0
    }
    if (failure) throw failure
  }
  return tally
}

/** Keys with their stored lengths. */
function* inBatches(victims: BlockTable): Generator<Map<Key, number>, void, undefined> {
  let batch = new Map<Key, number>()
  for (const [id, storedBytes] of victims.entries()) {
    batch.set(blockKey(id), storedBytes)
    if (batch.size < MOST_REMOVED_AT_ONCE) continue
    yield batch
    batch = new Map()
  }
  if (batch.size > 0) yield batch
}

const fingerprint = ({ configs, strays }: ConfigListing): string =>
  [
    ...configs.map(({ key, version }) => `${key} ${version}`),
    ...strays.map(({ name }) => name),
  ].join('\n')

/** One backup after another may be deleted beside us; all of them at once is a fault. */
function requireSomeLeft({ configs }: ConfigListing, { seenBefore, gone }: CollectOptions): void {
  if (configs.length > 0 || [...seenBefore.keys()].every((key) => gone.has(key))) return
  throw new DroverError(
    'STORE_CHANGED',
    'no block is removed, because all backups that were there a moment ago are gone',
    { details: { before: seenBefore.size }, retryable: true },
  )
}

const changed = () =>
  new DroverError(
    'STORE_CHANGED',
    'backups came, went or changed while blocks were being collected: nothing more is removed',
    { retryable: true },
  )

const noBackupAtAll = (blocks: number) =>
  new DroverError(
    'STORE_CHANGED',
    `the store has ${blocks} blocks and no backup at all: nothing is removed, because that is also what a store looks like whose backups went astray. If none is missing, use --allow-empty or give a --min-age`,
    { details: { blocks } },
  )

/** @returns also how many backups there are */
async function referencedBlocks(
  { configs, strays }: ConfigListing,
  options: CollectOptions,
): Promise<{ referenced: BlockTable; backups: number }> {
  const [stray] = strays
  if (stray) throw unknowable(`${CONFIGS_PREFIX}${stray.name}`, stray.reason)
  const referenced = new BlockTable()
  let backups = 0
  for (const info of configs) {
    // a real run has removed it; one that came back since counts like any other
    if (options.dryRun && options.gone.has(info.key)) continue
    const name = nameOfConfigKey(info.key) ?? ''
    if (!isReadableName(name)) throw unknowable(info.key, 'cannot belong to a backup')
    const { backup } = await readSurely(name, options)
    if (backup.completedAt !== '') backups += 1
    for (let entry = 0; entry < backup.blocks.length; entry++) {
      referenced.setEntry(backup.blocks, entry, 0)
    }
  }
  return { referenced, backups }
}

const unknowable = (key: Key, reason: string) =>
  new DroverError(
    'CONFIG_INVALID',
    `no block is removed, because ${JSON.stringify(key)} ${reason} and might refer to some`,
    { details: { key, reason } },
  )

/** A backup, or the placeholder of a writer that is dead. */
async function readSurely(
  name: Parameters<typeof readBackup>[1],
  { store, lock, signal, seenBefore }: CollectOptions,
): Promise<StoredBackup> {
  const found = await readBackup(store, name, signal).catch((error: unknown) => {
    if (!isDroverError(error, ...CONFIG_UNREADABLE)) throw error
    throw new DroverError(
      error.code,
      `no block is removed, because ${error.message}, and it might refer to some`,
      { details: error.details, cause: error },
    )
  })
  if (!found) {
    throw new DroverError('STORE_CHANGED', `${name} was deleted meanwhile`, { retryable: true })
  }
  const { backup, info } = found
  if (
    backup.completedAt === '' &&
    !(await isDeadPlaceholder(info, seenBefore.get(info.key), lock))
  ) {
    throw new DroverError(
      'BACKUP_IN_PROGRESS',
      `no block is removed, because ${name} may be being backed up, since ${backup.createdAt || 'an unknown time'}`,
      { details: { name, createdAt: backup.createdAt }, retryable: true },
    )
  }
  return found
}

async function findVictims(
  referenced: BlockTable,
  { store, lock, signal, minAgeMs, among }: CollectOptions,
  tally: Tally,
): Promise<BlockTable> {
  const victims = new BlockTable()
  for await (const page of store.list(BLOCKS_PREFIX, { signal })) {
    for (const { key, sizeBytes, modifiedAtMs, notPlain } of page) {
      const id = idOfBlockKey(key)
      if (id === undefined || notPlain) continue // not a block: not ours to judge
      const free = !referenced.has(id) && (among === undefined || among.has(id))
      const old = lock.serverNowMs() - modifiedAtMs >= minAgeMs
      if (free && old) victims.set(id, sizeBytes)
      else tally.kept += 1
      if (free && !old) tally.tooYoung += 1
    }
  }
  if (victims.size + tally.kept === 0 && referenced.size > 0) {
    throw new DroverError(
      'TARGET_UNREACHABLE',
      'the target lists no block at all, although backups refer to some: its listing cannot be trusted',
    )
  }
  return victims
}

/** Which backups a store holds, and what each config says. */
import pLimit from 'p-limit'
import { DroverError, isDroverError } from '../lib/errors.ts'
import type { Backup } from './config.ts'
import type { BackupFacts } from './config-facts.ts'
import { parseConfig, parseConfigHead } from './config.ts'
import { CONFIGS_PREFIX, configKey, nameOfConfigKey } from './layout.ts'
import type { BackupName } from './names.ts'
import { isReadableName } from './names.ts'
import type { ObjectInfo, ReadStore } from './object-store.ts'

type CatalogStore = Pick<ReadStore, 'open' | 'list'>

/** A config as read, with the object it came from. */
export interface StoredBackup {
  readonly backup: Backup
  readonly info: ObjectInfo
}

/**
 * One config, whole. It may be a placeholder: look at `completedAt`, or use `requireComplete`.
 * @returns undefined when there is none
 * @throws DroverError CONFIG_INVALID
 */
export async function readBackup(
  store: Pick<ReadStore, 'open'>,
  name: BackupName,
  signal?: AbortSignal,
): Promise<StoredBackup | undefined> {
  const key = configKey(name)
  const object = await store.open(key, signal ? { signal } : {})
  if (!object) return undefined
  return { backup: await parseConfig(object.chunks, name, key), info: object.info }
}

/** @throws DroverError BACKUP_NOT_FOUND, BACKUP_INCOMPLETE */
export function requireComplete(found: StoredBackup | undefined, name: BackupName): StoredBackup {
  if (!found) {
    throw new DroverError('BACKUP_NOT_FOUND', `there is no backup ${name} in this target`, {
      details: { name },
    })
  }
  if (found.backup.completedAt === '') {
    throw new DroverError(
      'BACKUP_INCOMPLETE',
      `${name} is not a backup: its writer stopped, or is still at work, since ${found.backup.createdAt || 'an unknown time'}`,
      { details: { name, createdAt: found.backup.createdAt } },
    )
  }
  return found
}

export interface Catalog {
  readonly backups: readonly BackupFacts[]
  /** Placeholders: begun and not completed. Not backups. */
  readonly incomplete: readonly BackupFacts[]
  readonly unreadable: ReadonlyArray<{ readonly name: string; readonly reason: string }>
}

/** Configs read at once. */
const READERS = 4
/** Enough for all facts of a config with ordinary labels. */
const HEAD_BYTES = 64 * 1024

/**
 * All backups of a store, in order of name. A config that cannot be read hides no other one; a
 * listing that cannot be finished is an error.
 */
export async function listBackups(store: CatalogStore, signal?: AbortSignal): Promise<Catalog> {
  const configs = await listConfigs(store, signal)
  const limit = pLimit(READERS)
  const entries = await Promise.all(
    configs.map((info) =>
      limit(async () => ({ info, found: await readFacts(store, info, signal) })),
    ),
  )
  const backups: BackupFacts[] = []
  const incomplete: BackupFacts[] = []
  const unreadable: Array<{ name: string; reason: string }> = []
  for (const { info, found } of entries) {
    if (found === undefined) continue // deleted since the listing
    if ('reason' in found)
      unreadable.push({ name: nameOfConfigKey(info.key) ?? info.key, ...found })
    else (found.completedAt === '' ? incomplete : backups).push(found)
  }
  return { backups, incomplete, unreadable }
}

/**
 * The config objects of a store, in order of key. Other files that lie there are left out, but not
 * a link in place of a backup's folder: it stands for a config that nobody can read.
 */
export async function listConfigs(
  store: Pick<ReadStore, 'list'>,
  signal?: AbortSignal,
): Promise<ObjectInfo[]> {
  const configs: ObjectInfo[] = []
  for await (const page of store.list(CONFIGS_PREFIX, signal ? { signal } : {})) {
    for (const info of page) {
      const key = info.notPlain ? configKeyOfLink(info.key) : info.key
      if (nameOfConfigKey(key) !== undefined) configs.push({ ...info, key })
    }
  }
  return configs.sort((a, b) => (a.key < b.key ? -1 : 1))
}

/** The config that a link hides: the link itself, or what would be in the linked folder. */
function configKeyOfLink(key: string): string {
  const inFolder = key.slice(CONFIGS_PREFIX.length).includes('/')
  return inFolder ? key : configKey(key.slice(CONFIGS_PREFIX.length) as BackupName)
}

/** What a listing needs of a config: its head when that is enough, else all of it. */
async function readFacts(
  store: Pick<ReadStore, 'open'>,
  { key, sizeBytes }: ObjectInfo,
  signal?: AbortSignal,
): Promise<BackupFacts | { reason: string } | undefined> {
  const name = nameOfConfigKey(key) ?? ''
  if (!isReadableName(name)) return { reason: 'its name is not a legal backup name' }
  const options = signal ? { signal } : {}
  try {
    if (sizeBytes > HEAD_BYTES) {
      const head = await store.open(key, { ...options, firstBytes: HEAD_BYTES })
      if (!head) return undefined
      const parts: Uint8Array[] = []
      for await (const chunk of head.chunks) parts.push(chunk)
      const facts = await parseConfigHead(Buffer.concat(parts), name, key)
      if (facts) return facts
    }
    return (await readBackup(store, name, signal))?.backup
  } catch (error) {
    // damaged, forbidden or leading out of the store: told with the name, not instead of the rest
    if (isDroverError(error, 'CONFIG_INVALID', 'TARGET_FORBIDDEN', 'UNSAFE_PATH')) {
      return { reason: error.message }
    }
    throw error
  }
}

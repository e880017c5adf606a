/** Which backups a store holds, and what each config says. */
import pLimit from 'p-limit'
import { DroverError, isDroverError } from '../lib/errors.ts'
import type { Backup } from './config.ts'
import type { BackupFacts } from './config-facts.ts'
import { parseConfig, parseConfigHead } from './config.ts'
import type { Key } from './layout.ts'
import { CONFIGS_PREFIX, configKey, nameOfConfigKey } from './layout.ts'
import type { BackupName } from './names.ts'
import { isReadableName } from './names.ts'
import type { ObjectInfo, ReadStore } from './object-store.ts'

/** Codes of errors that are about one config: it is damaged, forbidden, or no plain file. */
export const CONFIG_UNREADABLE = [
  'CONFIG_INVALID',
  'OBJECT_UNREADABLE',
  'TARGET_FORBIDDEN',
  'UNSAFE_PATH',
] as const

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
  readonly unreadable: readonly Stray[]
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
  const { configs, strays } = await listConfigs(store, signal)
  const entries = await pLimit(READERS).map(configs, ({ key }) => describe(store, key, signal))
  const backups: BackupFacts[] = []
  const incomplete: BackupFacts[] = []
  const unreadable = [...strays]
  for (const found of entries) {
    if (found === undefined) continue // deleted since the listing
    if ('reason' in found) unreadable.push(found)
    else (found.completedAt === '' ? incomplete : backups).push(found)
  }
  return { backups, incomplete, unreadable: unreadable.sort(byName) }
}

async function describe(
  store: Pick<ReadStore, 'open'>,
  key: Key,
  signal?: AbortSignal,
): Promise<BackupFacts | Stray | undefined> {
  const name = nameOfConfigKey(key) ?? ''
  if (!isReadableName(name)) return { name, reason: 'its name is not a legal backup name' }
  try {
    return (await readFacts(store, name, signal))?.facts
  } catch (error) {
    // told with the name, not instead of the rest
    if (!isDroverError(error, ...CONFIG_UNREADABLE)) throw error
    return { name, reason: error.message }
  }
}

/** Something in the place of a backup that tells nothing of it. */
export interface Stray {
  readonly name: string
  readonly reason: string
}

export interface ConfigListing {
  /** In order of key. */
  readonly configs: readonly ObjectInfo[]
  /**
   * Whatever else lies where backups do, in order of name: a backup may have been there whose
   * config somebody renamed, so its blocks cannot be told from garbage.
   */
  readonly strays: readonly Stray[]
}

/**
 * The configs of a store. A link in place of a backup's folder counts as one: it stands for a
 * config that nobody can read. Other files beside a config are left out.
 */
export async function listConfigs(
  store: Pick<ReadStore, 'list'>,
  signal?: AbortSignal,
): Promise<ConfigListing> {
  const configs: ObjectInfo[] = []
  const named = new Set<string>()
  const others = new Map<string, string>()
  for await (const page of store.list(CONFIGS_PREFIX, signal ? { signal } : {})) {
    for (const info of page) {
      const key = info.notPlain ? configKeyOfLink(info.key) : info.key
      const [name = '', ...below] = key.slice(CONFIGS_PREFIX.length).split('/')
      if (nameOfConfigKey(key) === undefined) {
        others.set(name, below.length > 0 ? NO_CONFIG : NO_FOLDER)
      } else {
        named.add(name)
        configs.push({ ...info, key })
      }
    }
  }
  const strays = [...others].map(([name, reason]) => ({ name, reason }))
  return {
    configs: configs.sort((a, b) => (a.key < b.key ? -1 : 1)),
    strays: strays.filter(({ name }) => !named.has(name)).sort(byName),
  }
}

const NO_CONFIG = 'holds files but no backing-image.cfg'
const NO_FOLDER = 'is a file where only folders of backups belong'

const byName = (a: Stray, b: Stray): number => (a.name < b.name ? -1 : 1)

/** The config that a link hides: the link itself, or what would be in the linked folder. */
function configKeyOfLink(key: string): string {
  const inFolder = key.slice(CONFIGS_PREFIX.length).includes('/')
  return inFolder ? key : configKey(key.slice(CONFIGS_PREFIX.length) as BackupName)
}

/** What a config says of its backup, without the blocks, and the object it came from. */
export interface StoredFacts {
  readonly facts: BackupFacts
  readonly info: ObjectInfo
}

/**
 * The facts of one config: from its head when they stand there, else all of it is read. A long
 * one is not proven beyond that.
 * @returns undefined when there is none
 * @throws DroverError CONFIG_INVALID
 */
export async function readFacts(
  store: Pick<ReadStore, 'open'>,
  name: BackupName,
  signal?: AbortSignal,
): Promise<StoredFacts | undefined> {
  const key = configKey(name)
  const options = { firstBytes: HEAD_BYTES, ...(signal ? { signal } : {}) }
  const object = await store.open(key, options)
  if (!object) return undefined
  const { info } = object
  if (info.sizeBytes <= HEAD_BYTES) {
    return { facts: withoutBlocks(await parseConfig(object.chunks, name, key)), info }
  }
  const parts: Uint8Array[] = []
  for await (const chunk of object.chunks) parts.push(chunk)
  const facts = await parseConfigHead(Buffer.concat(parts), name, key)
  if (facts) return { facts: withoutBlocks(facts), info }
  const found = await readBackup(store, name, signal)
  return found && { facts: withoutBlocks(found.backup), info: found.info }
}

/** Whoever keeps the facts of many backups must not keep their blocks. */
function withoutBlocks(backup: BackupFacts & { readonly blocks: unknown }): BackupFacts {
  const { blocks: _, ...facts } = backup
  return facts
}

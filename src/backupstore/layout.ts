/** Every key of a store, in one place. All keys are below the path of the target's URL. */
import type { BlockId } from './block.ts'
import { isBlockId } from './block.ts'
import type { BackupName } from './names.ts'

/** An object's key: segments joined by `/`, relative to the target. */
export type Key = string

export const STORE_PREFIX = 'backupstore/'
/** Configs and blocks. */
export const IMAGES_PREFIX = 'backupstore/backing-images/'
export const CONFIGS_PREFIX = 'backupstore/backing-images/backing-images/'
export const BLOCKS_PREFIX = 'backupstore/backing-images/blocks/'
/** `22/fc`: the first four hex digits of SHA-512("BACKINGIMAGE"), one folder for all images. */
export const LOCKS_PREFIX = 'backupstore/volumes/22/fc/BACKINGIMAGE/locks/'
/** Drover's own: files being made, one folder a run. Longhorn never lists it. */
export const STAGING_PREFIX = 'backupstore/drover/staging/'

const CONFIG_FILE = 'backing-image.cfg'

/** 16 hex digits that name a run: its lock and its staging folder. */
export type RunId = string & { readonly __brand: 'RunId' }
export const isRunId = (text: string): text is RunId => /^[0-9a-f]{16}$/.test(text)

export const configKey = (name: BackupName): Key => `${CONFIGS_PREFIX}${name}/${CONFIG_FILE}`

export const blockKey = (id: BlockId): Key =>
  `${BLOCKS_PREFIX}${id.slice(0, 2)}/${id.slice(2, 4)}/${id}.blk`

export const lockKey = (run: RunId): Key => `${LOCKS_PREFIX}lock-${run}.lck`

export const stagingKey = (run: RunId, file: string): Key => `${STAGING_PREFIX}${run}/${file}`

/** The name in a config's key, or undefined for any other key. It may be an unreadable name. */
export function nameOfConfigKey(key: Key): string | undefined {
  if (!key.startsWith(CONFIGS_PREFIX) || !key.endsWith(`/${CONFIG_FILE}`)) return undefined
  const name = key.slice(CONFIGS_PREFIX.length, -CONFIG_FILE.length - 1)
  return name === '' || name.includes('/') ? undefined : name
}

/** The id in a block's key, or undefined for anything that is not a block in its right place. */
export function idOfBlockKey(key: Key): BlockId | undefined {
  const id = key.slice(BLOCKS_PREFIX.length + 6, -4)
  return isBlockId(id) && blockKey(id) === key ? id : undefined
}

export function isLockKey(key: Key): boolean {
  return key.startsWith(`${LOCKS_PREFIX}lock-`) && key.endsWith('.lck')
}

/** The name of a lock file (`lock-…`) in its key. */
export const nameOfLockKey = (key: Key): string => key.slice(LOCKS_PREFIX.length, -'.lck'.length)

/** The run that made a staged file, or undefined for what no run of ours makes. */
export function runOfStagingKey(key: Key): RunId | undefined {
  const run = key.slice(STAGING_PREFIX.length).split('/')[0] ?? ''
  return key.startsWith(STAGING_PREFIX) && isRunId(run) ? run : undefined
}

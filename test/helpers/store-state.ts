/** What lies in a store's folder, seen from outside, and what may lie there. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { lstat, readFile, readdir, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import type { BlockId } from '../../src/backupstore/block.ts'
import { decodeBlock } from '../../src/backupstore/codec.ts'
import type { KnownImage } from './known-image.ts'
import { age, filesBelow } from './stores.ts'

const IMAGES = 'backupstore/backing-images'
const LOCKS = 'backupstore/volumes/22/fc/BACKINGIMAGE/locks'
const CONFIG = new RegExp(`^${IMAGES}/backing-images/([a-z0-9-]+)/backing-image\\.cfg$`)
const BLOCK = new RegExp(`^${IMAGES}/blocks/(..)/(..)/(\\1\\2[0-9a-f]{60})\\.blk$`)
const LOCK = new RegExp(`^${LOCKS}/lock-[0-9a-f]{16}\\.lck$`)
const STAGED = /^backupstore\/drover\/staging\/[0-9a-f]{16}\//

export const configPath = (store: string, name: string): string =>
  join(store, IMAGES, 'backing-images', name, 'backing-image.cfg')

export const blockPath = (store: string, id: string): string =>
  join(store, IMAGES, 'blocks', id.slice(0, 2), id.slice(2, 4), `${id}.blk`)

export interface StoreState {
  /** Names of backups with a config. */
  readonly configs: readonly string[]
  /** Ids of the blocks in the pool. */
  readonly blocks: ReadonlySet<string>
  /** Paths of lock files. */
  readonly locks: readonly string[]
  /** Paths of files in staging. */
  readonly staged: readonly string[]
  /** Files that lie where nothing of a store belongs. */
  readonly strays: readonly string[]
}

export async function stateOf(store: string): Promise<StoreState> {
  const configs: string[] = []
  const blocks = new Set<string>()
  const locks: string[] = []
  const staged: string[] = []
  const strays: string[] = []
  for (const path of await filesBelow(store)) {
    const name = CONFIG.exec(path)?.[1]
    const id = BLOCK.exec(path)?.[3]
    if (name !== undefined) configs.push(name)
    else if (id !== undefined) blocks.add(id)
    else if (LOCK.test(path)) locks.push(path)
    else if (STAGED.test(path)) staged.push(path)
    else strays.push(path)
  }
  return { configs, blocks, locks, staged, strays }
}

export interface LockContent {
  readonly Name: string
  readonly Type: number
  readonly Acquired: boolean
}

/** @throws when the file is not a whole lock file; undefined when it is gone */
export function readLockFile(store: string, path: string): LockContent | undefined {
  let content: string
  try {
    content = readFileSync(join(store, path), 'utf8')
  } catch {
    return undefined
  }
  return JSON.parse(content) as LockContent
}

/** Fails unless every block of the pool decodes to its id. `proven` saves doing so twice. */
export async function assertBlocksProven(
  store: string,
  blocks: Iterable<string>,
  lengths: ReadonlyMap<string, number>,
  proven: Set<string>,
): Promise<void> {
  for (const id of blocks) {
    const length = lengths.get(id)
    assert.ok(length, `${id} is no block of any image of this test`)
    const path = blockPath(store, id)
    const { ino, mtimeNs, size } = await lstat(path, { bigint: true })
    const version = `${id} ${ino} ${mtimeNs} ${size}`
    if (proven.has(version)) continue
    const decoded = decodeBlock(await readFile(path), length, id as BlockId)
    assert.ok(decoded.ok, `${id} in the pool ${decoded.ok ? '' : decoded.reason}`)
    proven.add(version)
    await setImmediate() // lets timers run on time
  }
}

/** Fails unless a config describes this image, entry by entry. */
export async function assertConfigOf(
  store: string,
  name: string,
  image: KnownImage,
): Promise<void> {
  const config = JSON.parse(await readFile(configPath(store, name), 'utf8'))
  assert.equal(config.Name, name)
  assert.equal(config.Size, String(image.sizeBytes))
  assert.equal(config.Checksum, image.sha512)
  assert.equal(config.BlockCount, String(image.entries.length))
  assert.match(config.CompleteTime, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  assert.deepEqual(
    config.Blocks,
    image.entries.map(({ offset, id }) => ({ Offset: offset, BlockChecksum: id })),
  )
}

/** Fails unless the store holds these backups and what they need, and nothing else at all. */
export async function assertHoldsExactly(
  store: string,
  backups: ReadonlyMap<string, KnownImage>,
): Promise<void> {
  const { configs, blocks, locks, staged, strays } = await stateOf(store)
  const needed = [...backups.values()].flatMap(({ entries }) => entries.map(({ id }) => id))
  assert.deepEqual(strays, [])
  assert.deepEqual(locks, [])
  assert.deepEqual(staged, [])
  assert.deepEqual([...configs].sort(), [...backups.keys()].sort())
  assert.deepEqual([...blocks].sort(), [...new Set(needed)].sort())
  assert.deepEqual(
    (await emptyFolders(store)).filter((path) => path !== 'backupstore'),
    [],
  )
  const top = await readdir(join(store, 'backupstore')).catch(() => [])
  assert.deepEqual(top, backups.size > 0 ? ['backing-images'] : [])
}

async function emptyFolders(store: string): Promise<string[]> {
  const empty: string[] = []
  for (const path of await foldersBelow(store)) {
    if ((await readdir(join(store, path))).length === 0) empty.push(path)
  }
  return empty
}

async function foldersBelow(store: string): Promise<string[]> {
  const entries = await readdir(store, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(store.length + 1))
}

/** The stand-in for 150 s and more in which nobody gave a sign of life. */
export async function letDeadRunsExpire(store: string): Promise<void> {
  const dead = /^backupstore\/(volumes|drover)\//
  await age(store, 200, dead)
  for (const path of await foldersBelow(store)) {
    if (!dead.test(path)) continue
    const then = new Date((await lstat(join(store, path))).mtimeMs - 200_000)
    await utimes(join(store, path), then, then)
  }
}

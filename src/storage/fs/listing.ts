/** Everything below a folder of a store, some folders at a time. */
import type { BigIntStats } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { throwIfAborted } from '../../lib/errors.ts'
import type { Key } from '../../backupstore/layout.ts'
import type { ObjectInfo } from '../../backupstore/object-store.ts'
import { askAgain } from './ask-again.ts'
import { isAbsent } from './fs-errors.ts'
import type { StorePaths } from './paths.ts'

/** Folders read at once in a listing. */
const WALKERS = 16

/** @param alive called with each few folders, whether anything was in them or not */
export async function* listFolders(
  paths: StorePaths,
  prefix: Key,
  { signal, alive }: { readonly signal?: AbortSignal; readonly alive?: () => void },
): AsyncGenerator<readonly ObjectInfo[]> {
  const folders = [prefix]
  while (folders.length > 0) {
    throwIfAborted(signal)
    const read = await Promise.all(folders.splice(-WALKERS).map((each) => readFolder(paths, each)))
    for (const { below } of read) folders.push(...below)
    alive?.()
    const files = read.flatMap(({ files }) => files)
    if (files.length > 0) yield files
  }
}

export const infoOf = (key: Key, stats: BigIntStats): ObjectInfo => ({
  key,
  sizeBytes: Number(stats.size),
  modifiedAtMs: Number(stats.mtimeNs) / 1e6,
  version: `${stats.ino}-${stats.mtimeNs}-${stats.size}`,
})

async function readFolder(
  paths: StorePaths,
  prefix: Key,
): Promise<{ files: ObjectInfo[]; below: Key[] }> {
  const path = paths.ofPrefix(prefix)
  if (!(await paths.folderExists(path, prefix))) return { files: [], below: [] }
  const entries = await askAgain(() => readdir(path, { withFileTypes: true })).catch(
    (error: unknown) => {
      if (isAbsent(error)) return [] // removed since
      throw error
    },
  )
  const found = entries.filter((entry) => !entry.isDirectory())
  const files = await Promise.all(found.map(({ name }) => statFile(path, `${prefix}${name}`)))
  return {
    files: files.filter((info) => info !== undefined),
    below: entries.filter((entry) => entry.isDirectory()).map(({ name }) => `${prefix}${name}/`),
  }
}

async function statFile(folder: string, key: Key): Promise<ObjectInfo | undefined> {
  try {
    const path = join(folder, basename(key))
    const stats = await askAgain(() => lstat(path, { bigint: true }))
    return stats.isFile() ? infoOf(key, stats) : { ...infoOf(key, stats), notPlain: true }
  } catch (error) {
    if (isAbsent(error)) return undefined
    throw error
  }
}

/** Folders of a store: made when needed, like those around them; removed when they are empty. */
import { chmod, chown, lstat, mkdir, readdir, rmdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { systemCode, throwIfAborted } from '../../lib/errors.ts'
import { askAgain } from './ask-again.ts'
import { isAbsent } from './fs-errors.ts'
import { unsafe } from './paths.ts'

/** Owner and mode that new folders and files get. Longhorn's are 0700 and root's. */
export interface Ownership {
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

const DEFAULT_MODE = 0o700

export async function ownershipLike(folder: string): Promise<Ownership> {
  const own = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 }
  try {
    const stats = await lstat(folder)
    return { mode: stats.mode & 0o777, uid: stats.uid, gid: stats.gid }
  } catch (error) {
    if (!isAbsent(error)) throw error
    return { mode: DEFAULT_MODE, ...own }
  }
}

/** Gives a new file or folder its owner; one that we may not give away stays ours. */
export async function giveTo(path: string, { uid, gid }: Ownership): Promise<void> {
  if (uid === process.geteuid?.() && gid === process.getegid?.()) return
  try {
    await chown(path, uid, gid)
  } catch (error) {
    if (systemCode(error) !== 'EPERM') throw error
  }
}

/**
 * Makes a folder below `root` and those above it.
 * @returns the folders whose entries changed, to be flushed
 */
export async function makeFolders(
  root: string,
  folder: string,
  like: Ownership,
): Promise<string[]> {
  const changed: string[] = []
  let at = root
  for (const segment of folder.slice(root.length + 1).split('/')) {
    const parent = at
    at = join(at, segment)
    const stats = await askAgain(() => lstat(at)).catch((error: unknown) => {
      if (isAbsent(error)) return undefined
      throw error
    })
    if (stats?.isDirectory()) continue
    if (stats) throw unsafe(at.slice(root.length + 1), 'it is a link or a file, not a folder')
    try {
      await mkdir(at, { mode: like.mode })
      await chmod(at, like.mode)
      await giveTo(at, like)
    } catch (error) {
      if (systemCode(error) !== 'EEXIST') throw error
    }
    changed.push(parent)
  }
  return changed
}

/**
 * Removes a folder and those above it, up to `stop`, as long as they are empty.
 * @returns the first one that stays
 */
export async function removeEmptyUpwards(folder: string, stop: string): Promise<string> {
  let at = folder
  for (; at !== stop && at.startsWith(`${stop}/`); at = dirname(at)) {
    try {
      await rmdir(at)
    } catch (error) {
      if (isAbsent(error)) continue
      const code = systemCode(error)
      if (code === 'ENOTEMPTY' || code === 'EEXIST' || code === 'EBUSY') return at
      throw error
    }
  }
  return at
}

/**
 * Removes empty folders at and below `folder`, deepest first.
 * @returns how many went, or would go
 */
export async function removeEmptyBelow(
  folder: string,
  options: {
    readonly olderThanMs: number
    readonly dryRun: boolean
    readonly signal?: AbortSignal | undefined
    /** Called with each folder. */
    readonly alive?: () => void
  },
): Promise<number> {
  let removed = 0
  /** @returns whether the folder is, or would be, gone */
  const visit = async (path: string): Promise<boolean> => {
    throwIfAborted(options.signal)
    options.alive?.()
    // the age is that from before we changed anything in it
    const stats = await askAgain(() => lstat(path))
    const entries = await askAgain(() => readdir(path, { withFileTypes: true }))
    let left = entries.length
    for (const entry of entries) {
      if (entry.isDirectory() && (await visit(join(path, entry.name)))) left -= 1
    }
    if (left > 0 || stats.mtimeMs > options.olderThanMs) return false
    if (!options.dryRun) {
      try {
        await rmdir(path)
      } catch (error) {
        if (isAbsent(error)) return true
        const code = systemCode(error)
        if (code === 'ENOTEMPTY' || code === 'EEXIST') return false
        throw error
      }
    }
    removed += 1
    return true
  }
  try {
    await visit(folder)
  } catch (error) {
    if (!isAbsent(error)) throw error
  }
  return removed
}

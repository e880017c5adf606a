import { lstat, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import pLimit from 'p-limit'
import { isAbsent } from './fs-errors.ts'

/** A server takes its time for each. */
const REMOVERS = 8

/** Removes a folder with all that is in it. Links are removed and not followed. */
export async function removeTree(folder: string, alive: () => void): Promise<void> {
  const removing = pLimit(REMOVERS)
  const remove = async (path: string): Promise<void> => {
    await rm(path, { force: true })
    alive()
  }
  const empty = async (at: string): Promise<void> => {
    const entries = await readdir(at, { withFileTypes: true })
    alive()
    await Promise.all(
      entries.map((entry) => {
        const path = join(at, entry.name)
        return entry.isDirectory() ? empty(path) : removing(() => remove(path))
      }),
    )
  }
  try {
    if ((await lstat(folder)).isDirectory()) await empty(folder)
  } catch (error) {
    if (!isAbsent(error)) throw error
  }
  await rm(folder, { recursive: true, force: true }) // what is left: the folders
}

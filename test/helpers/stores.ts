/** Stores on disk for tests: the golden one, and looking into any. */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { lstat, readdir, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))

/** Unpacks the store that Longhorn wrote into an empty folder. */
export async function unpackGolden(folder: string): Promise<void> {
  await run('tar', ['-xzf', fixture('longhorn-backupstore.tar.gz'), '-C', folder])
}

export const golden: Readonly<Record<string, { file: string; size: number; sha512: string }>> =
  JSON.parse(readFileSync(fixture('golden.json'), 'utf8'))

/** Writes the images of the golden store. */
export const makeGoldenImages = (folder: string) =>
  run(process.execPath, [fixture('make-images.mjs'), folder])

/** All files below a folder, as paths relative to it, sorted. */
export async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort()
}

export const blockFiles = async (store: string): Promise<string[]> =>
  (await filesBelow(store)).filter((path) => path.endsWith('.blk'))

/** Makes files look older: the stand-in for waiting until locks expire. */
export async function age(store: string, seconds: number, matching = /./): Promise<void> {
  for (const path of await filesBelow(store)) {
    if (!matching.test(path)) continue
    const { mtimeMs } = await lstat(join(store, path))
    const then = new Date(mtimeMs - seconds * 1000)
    await utimes(join(store, path), then, then)
  }
}

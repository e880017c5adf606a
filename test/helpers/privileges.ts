/** What only root can set up: small file systems, and tests that run as somebody else. */
import { execFile } from 'node:child_process'
import { chmod, mkdtemp, rmdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { promisify } from 'node:util'
import { tempFolder } from './temp.ts'

const run = promisify(execFile)
const NOBODY = 65534

export const isRoot = process.geteuid?.() === 0

/**
 * Mounts a file system in memory on a folder of the test's own; it goes when the test ends.
 * @returns undefined, with the test skipped, where mounting is not allowed
 */
export async function mountTmpfs(
  t: TestContext,
  options: string,
): Promise<{ folder: string; makeReadOnly(): Promise<void> } | undefined> {
  const folder = await mkdtemp(join(tmpdir(), 'drover-mount-'))
  try {
    await run('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', folder])
  } catch {
    await rmdir(folder)
    t.skip('needs the right to mount a file system')
    return undefined
  }
  t.after(async () => {
    await run('umount', ['-l', folder])
    await rmdir(folder)
  })
  return {
    folder,
    async makeReadOnly() {
      await run('mount', ['-o', 'remount,ro', folder])
    },
  }
}

/** Runs `work` without root's powers to read and write everything. */
export async function asNobody<T>(work: () => Promise<T>): Promise<T> {
  if (!isRoot) return work()
  process.setegid?.(NOBODY)
  process.seteuid?.(NOBODY)
  try {
    return await work()
  } finally {
    process.seteuid?.(0)
    process.setegid?.(0)
  }
}

/** A folder that `asNobody` can enter and change; what a test closed in it is opened in the end. */
export async function openFolder(t: TestContext): Promise<string> {
  let folder = ''
  // hooks run in the order they were given: this one before the folder is removed
  t.after(() => run('chmod', ['-R', 'u+rwX', folder]))
  folder = await tempFolder(t)
  await chmod(folder, 0o777)
  return folder
}

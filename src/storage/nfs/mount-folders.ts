/**
 * The folders that shares are mounted in. What is mounted by root must appear nowhere else than
 * here, so nobody else may own or change them, or lead us elsewhere by a link.
 */
import { lstat, mkdir, realpath } from 'node:fs/promises'
import { DroverError, systemCode } from '../../lib/errors.ts'

const WRITABLE_BY_OTHERS = 0o022

/**
 * @returns its real path, as the kernel lists mounts
 * @throws DroverError INVALID_CONFIG
 */
export async function makeMountDir(folder: string): Promise<string> {
  await makeOwn(folder, folder)
  return realpath(folder)
}

/**
 * Makes a mount point that nothing is mounted at: what is mounted hides the folder below.
 * @throws DroverError INVALID_CONFIG
 */
export const makeMountPoint = (mountPoint: string, mountDir: string): Promise<void> =>
  makeOwn(mountPoint, mountDir)

async function makeOwn(folder: string, mountDir: string): Promise<void> {
  let found
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    found = await lstat(folder)
  } catch (cause) {
    throw new DroverError(
      'INVALID_CONFIG',
      `${folder} cannot be made to mount shares in (${systemCode(cause) ?? String(cause)}): expected a place for a folder in DROVER_MOUNT_DIR`,
      { details: { folder: mountDir }, cause },
    )
  }
  const isOurs = found.uid === process.geteuid?.()
  if (found.isDirectory() && isOurs && (found.mode & WRITABLE_BY_OTHERS) === 0) return
  throw new DroverError(
    'INVALID_CONFIG',
    `${folder} is no safe place to mount shares: expected DROVER_MOUNT_DIR to name a folder that is no link, belongs to the user that Drover runs as, and is not writable by group or others`,
    { details: { folder: mountDir } },
  )
}

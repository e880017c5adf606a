/**
 * The moments in which a name appears or goes. The calls that do it are synchronous, so that
 * nothing comes between them and the last check of whether we may.
 */
import { linkSync, renameSync, unlinkSync } from 'node:fs'
import type { Stats } from 'node:fs'
import { lstat, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { systemCode } from '../../lib/errors.ts'
import { askAgain } from './ask-again.ts'
import { isAbsent } from './fs-errors.ts'
import type { LastCheck } from './last-check.ts'
import { lastly } from './last-check.ts'

/** Tries to find out what stands in the way and goes again each time. */
const TRIES = 20

/** What `link` says on file systems that have no hard links (CIFS, FAT, some of FUSE). */
export const NO_LINKS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'])

/**
 * A link fails where something stands already; a rename would replace it. What was staged may be
 * left over.
 * @param mayReplace whether what stands there is none of the objects worth keeping
 */
export async function placeNew(
  staged: string,
  path: string,
  mayReplace: (there: Stats) => boolean | Promise<boolean>,
  check: LastCheck,
): Promise<boolean> {
  for (let tries = 1; ; tries++) {
    const paths = [staged, dirname(path)]
    const refused = await lastly(check, paths, () => tryLink(staged, path))
    if (refused === undefined) return true
    const there = await statIfThere(path)
    if (!there && refused === 'EEXIST' && tries < TRIES) continue // it went again
    if (there && !(await mayReplace(there))) return false
    await placeOver(staged, path, check)
    return true
  }
}

/** @returns why there is no link, when that leaves another way */
function tryLink(staged: string, path: string): string | undefined {
  try {
    linkSync(staged, path)
    return undefined
  } catch (error) {
    const code = systemCode(error) ?? ''
    if (code === 'EEXIST' || NO_LINKS.has(code)) return code
    throw error
  }
}

/** Absent is one answer; everything else that goes wrong is thrown. */
export async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await askAgain(() => lstat(path))
  } catch (error) {
    if (isAbsent(error)) return undefined
    throw error
  }
}

/** Puts the staged file in the place of whatever stands there. */
export const placeOver = (staged: string, path: string, check: LastCheck): Promise<void> =>
  lastly(check, [staged, dirname(path)], () => renameSync(staged, path))

/**
 * @param check without one the event loop need not wait for the disk
 * @returns false when it was not there
 */
export async function removeFile(path: string, check: LastCheck | undefined): Promise<boolean> {
  try {
    await askAgain(() => (check ? lastly(check, [path], () => unlinkSync(path)) : unlink(path)))
    return true
  } catch (error) {
    if (isAbsent(error)) return false
    throw error
  }
}

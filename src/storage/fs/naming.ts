/**
 * The moments in which a name appears or goes. The calls that do it are synchronous, so that
 * nothing comes between them and the last check of whether we may.
 */
import { linkSync, renameSync, unlinkSync } from 'node:fs'
import type { Stats } from 'node:fs'
import { lstat, unlink } from 'node:fs/promises'
import { systemCode, throwIfAborted } from '../../lib/errors.ts'
import type { WriteCallOptions } from '../../backupstore/object-store.ts'
import { isAbsent } from './fs-errors.ts'

/** Tries to find out what stands in the way and goes again each time. */
const TRIES = 20

/** What `link` says on file systems that have no hard links (CIFS, FAT, some of FUSE). */
const NO_LINKS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'])

/**
 * A link fails where something stands already; a rename would replace it.
 * @param mayReplace whether what stands there is none of the objects worth keeping
 */
export async function placeNew(
  staged: string,
  path: string,
  mayReplace: (there: Stats) => boolean,
  before: () => void,
): Promise<boolean> {
  for (let tries = 1; ; tries++) {
    before()
    const refused = tryLink(staged, path)
    if (refused === undefined) {
      await unlink(staged)
      return true
    }
    const there = await statIfThere(path)
    if (!there && refused === 'EEXIST' && tries < TRIES) continue // it went again
    if (there && !mayReplace(there)) {
      await unlink(staged)
      return false
    }
    placeOver(staged, path, before)
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
    return await lstat(path)
  } catch (error) {
    if (isAbsent(error)) return undefined
    throw error
  }
}

/** Puts the staged file in the place of whatever stands there. */
export function placeOver(staged: string, path: string, before: () => void): void {
  before()
  renameSync(staged, path)
}

/** What is asked directly before a name appears or goes. */
export const lastCheck =
  ({ signal, before }: WriteCallOptions) =>
  (): void => {
    throwIfAborted(signal)
    before?.()
  }

/** @returns false when it was not there */
export async function removeFile(path: string, { signal, before }: WriteCallOptions) {
  try {
    throwIfAborted(signal)
    // without a check to keep company, the event loop need not wait for the disk
    if (!before) await unlink(path)
    else {
      before()
      unlinkSync(path)
    }
    return true
  } catch (error) {
    if (isAbsent(error)) return false
    throw error
  }
}

/**
 * From keys to paths, and no further: a key, or a link that lies in the store, never leads out of
 * the target's folder.
 */
import { realpath } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { DroverError, systemCode } from '../../lib/errors.ts'
import { askAgain } from './ask-again.ts'

export class StorePaths {
  /** The target's folder with all links resolved. */
  readonly root: string

  constructor(root: string) {
    this.root = root
  }

  /** @throws DroverError UNSAFE_PATH for a key that no layout makes */
  of(key: string): string {
    const segments = key.split('/')
    const plain = segments.every(
      (segment) => segment !== '' && segment !== '.' && segment !== '..' && !segment.includes('\0'),
    )
    if (!plain) throw unsafe(key, 'it is not a plain key')
    return join(this.root, key)
  }

  /** The folder of a prefix, which ends in a slash. */
  ofPrefix(prefix: string): string {
    return this.of(prefix.endsWith('/') ? prefix.slice(0, -1) : prefix)
  }

  /**
   * The path of a key whose folder exists and is reached without links.
   * @returns undefined when the folder does not exist
   */
  async inside(key: string): Promise<string | undefined> {
    const path = this.of(key)
    const folder = posix.dirname(path)
    return (await this.folderExists(folder, key)) ? path : undefined
  }

  /** Whether a folder at or below the root exists; links on the way are refused. */
  async folderExists(folder: string, key: string): Promise<boolean> {
    let real: string
    try {
      real = await askAgain(() => realpath(folder))
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return false
      if (systemCode(error) === 'ELOOP') throw unsafe(key, 'a link stands in its way', error)
      throw error
    }
    if (real !== folder) throw unsafe(key, 'a link stands in its way')
    return true
  }
}

export function unsafe(key: string, why: string, cause?: unknown): DroverError {
  return new DroverError(
    'UNSAFE_PATH',
    `${JSON.stringify(key)} is not followed: ${why}. Expected plain files and folders inside the store`,
    { details: { key }, cause },
  )
}

/** Reading plain files, and nothing that only looks like one. */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { DroverError, systemCode, throwIfAborted } from '../../lib/errors.ts'
import type { Key } from '../../backupstore/layout.ts'
import { askAgain } from './ask-again.ts'
import { isAbsent, readError } from './fs-errors.ts'
import type { StorePaths } from './paths.ts'
import { unsafe } from './paths.ts'

const READ_CHUNK_BYTES = 256 * 1024

/** @returns undefined when there is none */
export async function openFile(paths: StorePaths, key: Key): Promise<FileHandle | undefined> {
  const path = await paths.inside(key)
  if (path === undefined) return undefined
  try {
    // without O_NONBLOCK a pipe that lies in a hostile store would be waited for
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
    const handle = await askAgain(() => open(path, flags))
    if ((await handle.stat()).isFile()) return handle
    await handle.close()
  } catch (error) {
    if (isAbsent(error)) return undefined
    if (systemCode(error) === 'ENXIO') throw unsafe(key, 'it is a socket')
    throw error
  }
  throw unsafe(key, 'it is not a plain file')
}

export async function readFully(
  file: FileHandle,
  into: Uint8Array,
  length: number,
): Promise<number> {
  let done = 0
  while (done < length) {
    const { bytesRead } = await file.read(into, done, length - done, done)
    if (bytesRead === 0) break // shorter than it said: its id will tell
    done += bytesRead
  }
  return done
}

/** The first `end` bytes; closes the file afterwards. */
export async function* chunksOf(
  handle: FileHandle,
  key: Key,
  end: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  try {
    for (let at = 0; at < end;) {
      throwIfAborted(signal)
      const chunk = Buffer.allocUnsafe(Math.min(READ_CHUNK_BYTES, end - at))
      const { bytesRead } = await handle.read(chunk, 0, chunk.length, at)
      if (bytesRead === 0)
        throw new DroverError('STORE_CHANGED', `${key} became shorter while it was read`)
      at += bytesRead
      yield chunk.subarray(0, bytesRead)
    }
  } catch (error) {
    throw readError(error, key)
  } finally {
    await handle.close()
  }
}

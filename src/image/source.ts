/** An image file to back up, opened once and checked that it stays as it is. */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { resolve } from 'node:path'
import { DroverError, systemCode, throwIfAborted } from '../lib/errors.ts'

export interface ImageSource {
  readonly file: string
  readonly sizeBytes: number
  /**
   * Fills `into` from an offset.
   * @throws DroverError SOURCE_CHANGED when the file ends early
   */
  read(into: Uint8Array, offset: number, signal?: AbortSignal): Promise<void>
  /** @throws DroverError SOURCE_CHANGED when size or time differ from those at the start */
  checkUnchanged(): Promise<void>
  close(): Promise<void>
}

/** @throws DroverError SOURCE_NOT_FOUND, SOURCE_UNREADABLE, SOURCE_EMPTY */
export async function openImageSource(path: string): Promise<ImageSource> {
  const file = resolve(path)
  const handle = await openFile(file)
  try {
    const first = await handle.stat({ bigint: true })
    if (!first.isFile()) {
      throw new DroverError('SOURCE_UNREADABLE', `${file} is not a regular file`, {
        details: { file },
      })
    }
    if (first.size === 0n) {
      throw new DroverError(
        'SOURCE_EMPTY',
        `${file} is empty: expected an image of 1 byte or more`,
        {
          details: { file },
        },
      )
    }
    return {
      file,
      sizeBytes: Number(first.size),
      read: (into, offset, signal) => readFully(handle, file, into, offset, signal),
      async checkUnchanged() {
        const now = await handle.stat({ bigint: true })
        if (now.size === first.size && now.mtimeNs === first.mtimeNs) return
        throw changed(file, 'its size or modification time is not what it was at the start')
      },
      close: () => handle.close(),
    }
  } catch (error) {
    await handle.close()
    throw error
  }
}

async function openFile(file: string): Promise<FileHandle> {
  try {
    // without O_NONBLOCK a named pipe would be waited for
    return await open(file, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (cause) {
    const code = systemCode(cause) === 'ENOENT' ? 'SOURCE_NOT_FOUND' : 'SOURCE_UNREADABLE'
    const why =
      code === 'SOURCE_NOT_FOUND' ? 'does not exist' : `cannot be read (${systemCode(cause)})`
    throw new DroverError(code, `the image file ${file} ${why}`, { details: { file }, cause })
  }
}

async function readFully(
  handle: FileHandle,
  file: string,
  into: Uint8Array,
  offset: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let done = 0; done < into.length;) {
    throwIfAborted(signal)
    let bytesRead: number
    try {
      ;({ bytesRead } = await handle.read(into, done, into.length - done, offset + done))
    } catch (cause) {
      throw new DroverError(
        'SOURCE_UNREADABLE',
        `${file} cannot be read at byte ${offset + done} (${systemCode(cause)})`,
        { details: { file, offset: offset + done }, cause },
      )
    }
    if (bytesRead === 0) throw changed(file, `it ends at byte ${offset + done}`)
    done += bytesRead
  }
}

export const changed = (file: string, why: string): DroverError =>
  new DroverError(
    'SOURCE_CHANGED',
    `${file} changed while it was read: ${why}. Nothing was committed`,
    {
      details: { file },
      retryable: true,
    },
  )

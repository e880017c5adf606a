/**
 * An image file being restored: written beside its real place, and put there only when it is
 * proven. What is never written stays a hole.
 */
import {
  link,
  lstat,
  open,
  readdir,
  realpath,
  rename,
  statfs,
  unlink,
  utimes,
} from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import type { ErrorCode } from '../lib/errors.ts'
import { DroverError, systemCode } from '../lib/errors.ts'
import { flushFolder } from '../lib/flush-folder.ts'
import { isDeadTemp, tempNameFor } from './temp-name.ts'

export interface ImageWriter {
  /** The absolute path the image will have. */
  readonly file: string
  write(bytes: Uint8Array, offset: number): Promise<void>
  /** Flushes, gives the file its name, flushes the folder. */
  commit(): Promise<void>
  /** Removes what was written; nothing happened to `file`. Does nothing after `commit`. */
  abort(): Promise<void>
}

export interface ImageWriterOptions {
  readonly sizeBytes: number
  /** Bytes that will be written: what must be free on the disk. */
  readonly dataBytes: number
  /** Replace an existing file in the end. */
  readonly force: boolean
}

const TOUCH_MS = 60_000
const FLUSH_EVERY_BYTES = 64 * 1024 * 1024

/**
 * Checks everything that can be checked before the first byte, and removes what dead runs left.
 * @throws DroverError FILE_EXISTS, FILE_UNWRITABLE, NO_SPACE
 */
export async function openImageWriter(
  path: string,
  { sizeBytes, dataBytes, force }: ImageWriterOptions,
): Promise<ImageWriter> {
  const base = basename(resolve(path))
  const folder = await folderOf(path)
  const file = join(folder, base)
  await refuseExisting(file, force)
  await removeDeadTemps(folder, base)
  await requireSpace(folder, dataBytes)

  const temp = join(folder, tempNameFor(base))
  const handle = await attempt(file, () => open(temp, 'wx', 0o644))
  const touch = setInterval(() => {
    utimes(temp, new Date(), new Date()).catch(() => undefined)
  }, TOUCH_MS).unref()
  let open_ = true
  let committed = false

  const close = async () => {
    clearInterval(touch)
    if (open_) await handle.close()
    open_ = false
  }
  const flushAhead = earlyFlusher(handle)
  const writer: ImageWriter = {
    file,
    write: (bytes, offset) =>
      attempt(file, async () => {
        await writeFully(handle, bytes, offset)
        flushAhead.wrote(bytes.length)
      }),
    commit: () =>
      attempt(file, async () => {
        await flushAhead.settled()
        await handle.sync()
        await close()
        await (force ? rename(temp, file) : giveNewName(temp, file))
        committed = true
        await flushFolder(folder)
      }),
    async abort() {
      if (committed) return
      await flushAhead.settled().catch(() => undefined)
      await close()
      await unlink(temp).catch((error: unknown) => {
        if (systemCode(error) !== 'ENOENT') throw error
      })
    },
  }
  try {
    await attempt(file, () => handle.truncate(sizeBytes))
    return writer
  } catch (error) {
    await writer.abort()
    throw error
  }
}

/**
 * Flushes in the background while the file is written, so that the disk does not begin its work
 * only when everything else is done. One flush at a time; a failure comes out of `settled`.
 */
function earlyFlusher(handle: FileHandle): {
  wrote(bytes: number): void
  settled(): Promise<void>
} {
  let unflushed = 0
  let flush: Promise<void> | undefined
  let failure: { error: unknown } | undefined
  return {
    wrote(bytes) {
      unflushed += bytes
      if (flush || unflushed < FLUSH_EVERY_BYTES) return
      unflushed = 0
      flush = handle
        .datasync()
        .catch((error: unknown) => {
          failure = { error }
        })
        .finally(() => {
          flush = undefined
        })
    },
    async settled() {
      await flush
      if (failure) throw failure.error
    },
  }
}

async function folderOf(path: string): Promise<string> {
  const folder = dirname(resolve(path))
  try {
    return await realpath(folder)
  } catch (cause) {
    throw new DroverError(
      'FILE_UNWRITABLE',
      `the folder ${folder} to restore to does not exist, or cannot be entered`,
      { details: { folder }, cause },
    )
  }
}

async function refuseExisting(file: string, force: boolean): Promise<void> {
  const stats = await lstat(file).catch(() => undefined)
  if (!stats) return
  if (!force) throw fileExists(file)
  if (!stats.isFile() && !stats.isSymbolicLink()) {
    throw new DroverError(
      'FILE_UNWRITABLE',
      `${file} is not a regular file: expected a file to replace`,
      {
        details: { file },
      },
    )
  }
}

const fileExists = (file: string): DroverError =>
  new DroverError(
    'FILE_EXISTS',
    `${file} exists: use --force to replace it with the proven image`,
    {
      details: { file },
    },
  )

async function removeDeadTemps(folder: string, base: string): Promise<void> {
  for (const name of await attempt(join(folder, base), () => readdir(folder))) {
    if (!name.endsWith('.partial')) continue
    const path = join(folder, name)
    const stats = await lstat(path).catch(() => undefined)
    if (!stats?.isFile() || !isDeadTemp(name, base, Date.now() - stats.mtimeMs)) continue
    await unlink(path).catch(() => undefined)
  }
}

async function requireSpace(folder: string, dataBytes: number): Promise<void> {
  const { bavail, bsize } = await attempt(folder, () => statfs(folder))
  const freeBytes = bavail * bsize
  if (freeBytes >= dataBytes) return
  throw new DroverError(
    'NO_SPACE',
    `${folder} has ${freeBytes} bytes free, but the image's data needs ${dataBytes}`,
    { details: { folder, freeBytes, neededBytes: dataBytes } },
  )
}

async function writeFully(handle: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, offset + done)
    done += bytesWritten
  }
}

/** A link fails when somebody made the file meanwhile; a rename would replace theirs. */
async function giveNewName(temp: string, file: string): Promise<void> {
  try {
    await link(temp, file)
  } catch (error) {
    const code = systemCode(error)
    if (code === 'EEXIST') throw fileExists(file)
    if (code !== 'EPERM' && code !== 'ENOTSUP') throw error
    await refuseExisting(file, false)
    return rename(temp, file)
  }
  await unlink(temp)
}

const CODES: Readonly<Record<string, ErrorCode>> = { ENOSPC: 'NO_SPACE', EDQUOT: 'NO_SPACE' }

async function attempt<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (cause instanceof DroverError) throw cause
    const system = systemCode(cause) ?? 'unknown error'
    throw new DroverError(
      CODES[system] ?? 'FILE_UNWRITABLE',
      `${file} cannot be written (${system})`,
      {
        details: { file, system },
        cause,
      },
    )
  }
}

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
import type { Stats } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import type { ErrorCode } from '../lib/errors.ts'
import { DroverError, systemCode } from '../lib/errors.ts'
import { flushFolder } from '../lib/flush-folder.ts'
import { earlyFlusher } from './early-flusher.ts'
import { isDeadTemp, tempNameFor } from './temp-name.ts'

export interface ImageWriter {
  /** The absolute path the image will have. */
  readonly file: string
  write(bytes: Uint8Array, offset: number): Promise<void>
  /** Reads back what was written at an offset. */
  read(into: Uint8Array, offset: number): Promise<void>
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

/** What is in a disk is its owner's business. */
const NEW_FILE_MODE = 0o600
const TOUCH_MS = 60_000

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
  const old = await refuseExisting(file, force)
  await removeDeadTemps(folder, base)
  await requireSpace(folder, dataBytes)

  const temp = join(folder, tempNameFor(base))
  const handle = await attempt(file, () => open(temp, 'wx+', NEW_FILE_MODE))
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
    read: (into, offset) => attempt(file, () => readFully(handle, into, offset)),
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
    if (old) await attempt(file, () => makeLike(handle, old))
    return writer
  } catch (error) {
    await writer.abort()
    throw error
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

/** @returns facts of the regular file that will be replaced */
async function refuseExisting(file: string, force: boolean): Promise<Stats | undefined> {
  const stats = await attempt(file, () => statIfThere(file))
  if (!stats) return undefined
  if (!force) throw fileExists(file)
  if (!stats.isFile()) {
    throw new DroverError(
      'FILE_UNWRITABLE',
      `${file} is not a regular file: expected one to replace${stats.isSymbolicLink() ? ', not a link; name the file it leads to' : ''}`,
      {
        details: { file },
      },
    )
  }
  return stats
}

async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw error
  }
}

/** The new file is as private as the one it replaces. */
async function makeLike(handle: FileHandle, { mode, uid, gid }: Stats): Promise<void> {
  await handle.chmod(mode & 0o7777)
  if (process.geteuid?.() === 0) await handle.chown(uid, gid)
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

async function readFully(handle: FileHandle, into: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < into.length;) {
    const { bytesRead } = await handle.read(into, done, into.length - done, offset + done)
    if (bytesRead === 0) throw new DroverError('FILE_UNWRITABLE', 'somebody cut the file short')
    done += bytesRead
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

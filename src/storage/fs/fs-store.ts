/**
 * A folder as a store: a local disk, or a share that is mounted already. Objects are files, keys
 * are paths below the folder.
 */
import { constants } from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { lstat, open, readdir, realpath, stat, unlink } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { DroverError, systemCode, throwIfAborted } from '../../lib/errors.ts'
import { flushFolder } from '../../lib/flush-folder.ts'
import type { Key, RunId } from '../../backupstore/layout.ts'
import { STORE_PREFIX } from '../../backupstore/layout.ts'
import type { ObjectInfo, ObjectStore, PutOptions } from '../../backupstore/object-store.ts'
import { removeEmptyBelow, removeEmptyUpwards } from './folders.ts'
import { isAbsent, targetError } from './fs-errors.ts'
import { StorePaths, unsafe } from './paths.ts'
import { Staging } from './staging.ts'

const READ_CHUNK_BYTES = 256 * 1024

/**
 * @param folder the target's folder; it must exist
 * @param run names this run's staging folder
 */
export async function openFsStore(folder: string, run: RunId): Promise<ObjectStore> {
  const root = await openRoot(folder)
  const paths = new StorePaths(root.path)
  const staging = new Staging(paths, run)

  const infoOf = (key: Key, stats: BigIntStats): ObjectInfo => ({
    key,
    sizeBytes: Number(stats.size),
    modifiedAtMs: Number(stats.mtimeNs) / 1e6,
    version: `${stats.ino}-${stats.mtimeNs}-${stats.size}`,
  })

  const attempt = async <T>(doing: string, work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      throw targetError(error, doing)
    }
  }

  /** Opens an object and hands it to `use`; undefined when it is absent. */
  const withFile = <T>(key: Key, use: (file: FileHandle, info: ObjectInfo) => Promise<T>) =>
    attempt(`reading ${key}`, async () => {
      const handle = await openFile(paths, key)
      if (!handle) return undefined
      try {
        return await use(handle, infoOf(key, await handle.stat({ bigint: true })))
      } finally {
        await handle.close()
      }
    })

  const statKey = async (key: Key): Promise<ObjectInfo | undefined> => {
    const path = await paths.inside(key)
    if (path === undefined) return undefined
    try {
      const stats = await lstat(path, { bigint: true })
      return stats.isFile() ? infoOf(key, stats) : undefined
    } catch (error) {
      if (isAbsent(error)) return undefined
      throw error
    }
  }

  const list = async function* (
    prefix: Key,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<readonly ObjectInfo[]> {
    const folders = [prefix]
    for (let at = folders.pop(); at !== undefined; at = folders.pop()) {
      throwIfAborted(signal)
      const path = paths.of(at)
      if (!(await paths.folderExists(path, at))) continue
      const entries = await readdir(path, { withFileTypes: true }).catch((error: unknown) => {
        if (isAbsent(error)) return [] // removed since
        throw error
      })
      const files: string[] = []
      for (const entry of entries) {
        if (entry.isDirectory()) folders.push(`${at}${entry.name}/`)
        else if (entry.isFile()) files.push(`${at}${entry.name}`)
      }
      const infos = await Promise.all(files.map((key) => statFile(join(root.path, key), key)))
      const page = infos.filter((info) => info !== undefined)
      if (page.length > 0) yield page
    }
    await root.check()
  }

  const statFile = async (path: string, key: Key): Promise<ObjectInfo | undefined> => {
    try {
      return infoOf(key, await lstat(path, { bigint: true }))
    } catch (error) {
      if (isAbsent(error)) return undefined
      throw error
    }
  }

  const expectationHolds = async (key: Key, expect: PutOptions['expect']): Promise<boolean> => {
    if (expect === undefined || expect === 'absent') return true // `place` sees to it
    return (await statKey(key))?.version === expect.version
  }

  return {
    stat: (key) => attempt(`reading ${key}`, () => statKey(key)),

    async open(key, options = {}) {
      return attempt(`reading ${key}`, async () => {
        const handle = await openFile(paths, key)
        if (!handle) return undefined
        const info = infoOf(key, await handle.stat({ bigint: true }))
        const end = Math.min(info.sizeBytes, options.firstBytes ?? info.sizeBytes)
        return { info, chunks: chunksOf(handle, key, end, options.signal) }
      })
    },

    readInto: (key, into, options = {}) =>
      withFile(key, async (handle, { sizeBytes }) => {
        throwIfAborted(options.signal)
        if (sizeBytes > into.length) return sizeBytes
        return readFully(handle, into, sizeBytes)
      }),

    async *list(prefix, options = {}) {
      try {
        await root.check()
        yield* list(prefix, options.signal)
      } catch (error) {
        throw targetError(error, `listing ${prefix}`)
      }
    },

    put: (key, body, options = {}) =>
      attempt(`writing ${key}`, async () => {
        await root.check()
        const durable = options.durable ?? false
        const staged = await staging.write(body, { durable, signal: options.signal })
        try {
          if (!(await expectationHolds(key, options.expect))) return { written: false }
          const how = options.expect === 'absent' ? 'new' : 'over'
          const before = () => throwIfAborted(options.signal)
          const { placed, changed } = await staging.place(staged, key, how, before)
          if (!placed) return { written: false }
          if (durable) for (const path of new Set(changed)) await flushFolder(path)
        } finally {
          await unlink(staged).catch(() => undefined)
        }
        const info = await statKey(key)
        if (!info) throw new DroverError('STORE_CHANGED', `${key} vanished after it was written`)
        return { written: true, info }
      }),

    openStaging: () => Promise.resolve(staging.area()),

    remove: (key) =>
      attempt(`removing ${key}`, async () => {
        const path = await paths.inside(key)
        if (path === undefined) return false
        const removed = await unlink(path).then(
          () => true,
          (error: unknown) => {
            if (isAbsent(error)) return false
            throw error
          },
        )
        await removeEmptyUpwards(dirname(path), paths.of(STORE_PREFIX))
        return removed
      }),

    removeEmptyFolders: (prefix, options) =>
      attempt(`tidying ${prefix}`, async () => {
        const path = paths.of(prefix)
        if (!(await paths.folderExists(path, prefix))) return 0
        return removeEmptyBelow(path, {
          olderThanMs:
            options.minAgeMs > 0 ? Date.now() - options.minAgeMs : Number.POSITIVE_INFINITY,
          dryRun: options.dryRun ?? false,
          signal: options.signal,
        })
      }),

    close: () => attempt('tidying up', () => staging.close()),
  }
}

/** The target's folder, and a check that it is still the same one (not unmounted, say). */
async function openRoot(folder: string): Promise<{ path: string; check(): Promise<void> }> {
  let path: string
  try {
    path = await realpath(folder)
    const first = await stat(path, { bigint: true })
    if (!first.isDirectory()) throw Object.assign(new Error('no folder'), { code: 'ENOTDIR' })
    return {
      path,
      async check() {
        const now = await stat(path, { bigint: true }).catch(() => undefined)
        if (now?.dev === first.dev && now.ino === first.ino) return
        throw new DroverError(
          'TARGET_UNREACHABLE',
          `${folder} is not the folder any more that it was at the start: is it still mounted?`,
          { retryable: true },
        )
      },
    }
  } catch (error) {
    if (isAbsent(error) || systemCode(error) === 'ENOTDIR') {
      throw new DroverError(
        'TARGET_NOT_FOUND',
        `the target's folder ${folder} does not exist: expected an existing folder`,
        { details: { folder }, cause: error },
      )
    }
    throw targetError(error, `opening ${folder}`)
  }
}

async function openFile(paths: StorePaths, key: Key): Promise<FileHandle | undefined> {
  const path = await paths.inside(key)
  if (path === undefined) return undefined
  try {
    // without O_NONBLOCK a pipe that lies in a hostile store would be waited for
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
    const handle = await open(path, flags)
    if ((await handle.stat()).isFile()) return handle
    await handle.close()
  } catch (error) {
    if (isAbsent(error)) return undefined
    throw error
  }
  throw unsafe(key, 'it is not a plain file')
}

async function readFully(file: FileHandle, into: Uint8Array, length: number): Promise<number> {
  let done = 0
  while (done < length) {
    const { bytesRead } = await file.read(into, done, length - done, done)
    if (bytesRead === 0) break // shorter than it said: its id will tell
    done += bytesRead
  }
  return done
}

async function* chunksOf(
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
      if (bytesRead === 0) return
      at += bytesRead
      yield chunk.subarray(0, bytesRead)
    }
  } catch (error) {
    throw targetError(error, `reading ${key}`)
  } finally {
    await handle.close()
  }
}

/**
 * A folder as a store: a local disk, or a share that is mounted already. Objects are files, keys
 * are paths below the folder.
 */
import type { BigIntStats, Stats } from 'node:fs'
import { lstat, readdir, unlink } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { DroverError, throwIfAborted } from '../../lib/errors.ts'
import { flushFolder } from '../../lib/flush-folder.ts'
import type { Key, RunId } from '../../backupstore/layout.ts'
import { STORE_PREFIX } from '../../backupstore/layout.ts'
import type { ObjectInfo, ObjectStore, PutOptions } from '../../backupstore/object-store.ts'
import { removeEmptyBelow, removeEmptyUpwards } from './folders.ts'
import { isAbsent, readError, targetError } from './fs-errors.ts'
import { chunksOf, openFile, readFully } from './files.ts'
import { lastCheck, removeFile } from './naming.ts'
import { StorePaths } from './paths.ts'
import { openRoot } from './root.ts'
import { Staging } from './staging.ts'

/** Folders read at once in a listing. */
const WALKERS = 16

/**
 * @param folder the target's folder; it must exist
 * @param run names this run's staging folder
 */
export async function openFsStore(folder: string, run: RunId): Promise<ObjectStore> {
  const root = await openRoot(folder)
  const paths = new StorePaths(root.path)
  const staging = new Staging(paths, run, root)

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
      // a target that went away makes all kinds of errors; this is the one worth telling
      if (!(error instanceof DroverError)) await root.check()
      throw targetError(error, doing)
    }
  }

  /** As `attempt`, for reading one object. */
  const reading = async <T>(key: Key, work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof DroverError)) await root.check()
      throw readError(error, key)
    }
  }

  /** Absent is an answer only as long as the target itself is there. */
  const surely = async <T>(found: T | undefined): Promise<T | undefined> => {
    if (found === undefined) await root.check()
    return found
  }

  /** Opens an object and hands it to `use`; undefined when it is absent. */
  const withFile = <T>(
    key: Key,
    signal: AbortSignal | undefined,
    use: (file: FileHandle, info: ObjectInfo) => Promise<T>,
  ) =>
    reading(key, async () => {
      throwIfAborted(signal)
      const handle = await surely(await openFile(paths, key))
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
    while (folders.length > 0) {
      throwIfAborted(signal)
      const read = await Promise.all(folders.splice(-WALKERS).map(readFolder))
      for (const { files, below } of read) {
        folders.push(...below)
        if (files.length > 0) yield files
      }
    }
    await root.check()
  }

  const readFolder = async (prefix: Key): Promise<{ files: ObjectInfo[]; below: Key[] }> => {
    const path = paths.ofPrefix(prefix)
    if (!(await paths.folderExists(path, prefix))) return { files: [], below: [] }
    const entries = await readdir(path, { withFileTypes: true }).catch((error: unknown) => {
      if (isAbsent(error)) return [] // removed since
      throw error
    })
    const found = entries.filter((entry) => !entry.isDirectory())
    const files = await Promise.all(found.map(({ name }) => statFile(path, `${prefix}${name}`)))
    return {
      files: files.filter((info) => info !== undefined),
      below: entries.filter((entry) => entry.isDirectory()).map(({ name }) => `${prefix}${name}/`),
    }
  }

  const statFile = async (folder: string, key: Key): Promise<ObjectInfo | undefined> => {
    try {
      const stats = await lstat(join(folder, basename(key)), { bigint: true })
      return stats.isFile() ? infoOf(key, stats) : { ...infoOf(key, stats), notPlain: true }
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
    stat: (key, options = {}) =>
      reading(key, async () => {
        throwIfAborted(options.signal)
        return surely(await statKey(key))
      }),

    async open(key, options = {}) {
      return reading(key, async () => {
        throwIfAborted(options.signal)
        const handle = await surely(await openFile(paths, key))
        if (!handle) return undefined
        const stats = await handle.stat({ bigint: true }).catch(async (error: unknown) => {
          await handle.close()
          throw error
        })
        const info = infoOf(key, stats)
        const end = Math.min(info.sizeBytes, options.firstBytes ?? info.sizeBytes)
        return { info, chunks: chunksOf(handle, key, end, options.signal) }
      })
    },

    readInto: (key, into, options = {}) =>
      withFile(key, options.signal, async (handle, { sizeBytes }) => {
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
          // a link in the place of an object is not ours to keep
          const how = options.expect === 'absent' ? (there: Stats) => !there.isFile() : 'over'
          if (!(await staging.place(staged, key, how, lastCheck(options))))
            return { written: false }
          if (durable) await staging.flushNames()
        } finally {
          await unlink(staged).catch(() => undefined)
        }
        const info = await statKey(key)
        if (!info) throw new DroverError('STORE_CHANGED', `${key} vanished after it was written`)
        return { written: true, info }
      }),

    openStaging: (isWhole = (_key, sizeBytes) => sizeBytes > 0) =>
      Promise.resolve(staging.area(isWhole)),

    remove: (key, options = {}) =>
      attempt(`removing ${key}`, async () => {
        throwIfAborted(options.signal)
        await root.check()
        const path = await paths.inside(key)
        if (path === undefined) return false
        const removed = await removeFile(path, options)
        const left = await removeEmptyUpwards(dirname(path), paths.ofPrefix(STORE_PREFIX))
        if (options.durable) await flushFolder(left)
        return removed
      }),

    removeEmptyFolders: (prefix, options) =>
      attempt(`tidying ${prefix}`, async () => {
        await root.check()
        const path = paths.ofPrefix(prefix)
        if (!(await paths.folderExists(path, prefix))) return 0
        return removeEmptyBelow(path, {
          olderThanMs:
            options.minAgeMs > 0
              ? (await staging.now()) - options.minAgeMs
              : Number.POSITIVE_INFINITY,
          dryRun: options.dryRun ?? false,
          signal: options.signal,
        })
      }),

    close: () => attempt('tidying up', () => staging.close()),
  }
}

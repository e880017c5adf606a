/**
 * A folder as a store: a local disk, or a share that is mounted already. Objects are files, keys
 * are paths below the folder.
 */
import type { Stats } from 'node:fs'
import { lstat, unlink } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { DroverError, throwIfAborted } from '../../lib/errors.ts'
import { flushFolder } from '../../lib/flush-folder.ts'
import type { Key, RunId } from '../../backupstore/layout.ts'
import { STORE_PREFIX } from '../../backupstore/layout.ts'
import type {
  CallOptions,
  ObjectInfo,
  ObjectStore,
  PutOptions,
  PutResult,
  WriteCallOptions,
} from '../../backupstore/object-store.ts'
import { askAgain } from './ask-again.ts'
import { removeEmptyBelow, removeEmptyUpwards } from './folders.ts'
import { isAbsent, readError, targetError } from './fs-errors.ts'
import { chunksOf, openFile, readFully } from './files.ts'
import type { LastCheck } from './last-check.ts'
import { lastCheck } from './last-check.ts'
import { infoOf, listFolders } from './listing.ts'
import { removeFile } from './naming.ts'
import { StorePaths } from './paths.ts'
import { openRoot } from './root.ts'
import type { AnyBody } from './staging.ts'
import { Staging } from './staging.ts'
import type { FsStagingArea, IsWhole } from './staging-area.ts'
import { stagingArea } from './staging-area.ts'

/** What a process that works for another one needs besides. */
export interface FsStore extends ObjectStore {
  put(key: Key, body: AnyBody, options?: PutOptions & WithCheck): Promise<PutResult>
  openStaging(isWhole?: IsWhole): Promise<FsStagingArea>
  list(prefix: Key, options?: CallOptions & WithAlive): AsyncGenerator<readonly ObjectInfo[]>
  remove(key: Key, options?: WriteCallOptions & WithCheck & { durable?: boolean }): Promise<boolean>
  removeEmptyFolders(
    prefix: Key,
    options: CallOptions & WithAlive & { minAgeMs: number; dryRun?: boolean },
  ): Promise<number>
  close(options?: WithAlive): Promise<void>
}

export interface FsStoreOptions {
  /** Processes that worked for this run before. */
  readonly predecessors?: number
  /**
   * Objects that a publication gives their names at once, and folders in staging: several where a
   * change takes a while, because those of one folder wait for each other.
   */
  readonly placers?: number
}

interface WithAlive {
  /** Called now and then while a long call goes on. */
  readonly alive?: () => void
}

interface WithCheck {
  /** In the place of `before` and, at that moment, of `signal`. */
  readonly check?: LastCheck
}

/**
 * @param folder the target's folder; it must exist
 * @param run names this run's staging folder
 */
export async function openFsStore(
  folder: string,
  run: RunId,
  { predecessors = 0, placers = 1 }: FsStoreOptions = {},
): Promise<FsStore> {
  const root = await openRoot(folder)
  const paths = new StorePaths(root.path)
  const staging = new Staging(paths, run, root, { predecessors, folders: placers })

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
      const stats = await askAgain(() => lstat(path, { bigint: true }))
      return stats.isFile() ? infoOf(key, stats) : undefined
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

    async *list(prefix, options: CallOptions & WithAlive = {}) {
      try {
        await root.check()
        yield* listFolders(paths, prefix, options)
        await root.check()
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
          if (!(await staging.place(staged, key, how, options.check ?? lastCheck(options))))
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
      Promise.resolve(stagingArea(staging, { paths, root, isWhole, placers })),

    remove: (key, options = {}) =>
      attempt(`removing ${key}`, async () => {
        throwIfAborted(options.signal)
        await root.check()
        const path = await paths.inside(key)
        if (path === undefined) return false
        throwIfAborted(options.signal)
        const check = options.check ?? (options.before ? lastCheck(options) : undefined)
        const removed = await removeFile(path, check)
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
          ...(options.alive && { alive: options.alive }),
        })
      }),

    close: ({ alive } = {}) => attempt('tidying up', () => staging.close(alive)),
  }
}

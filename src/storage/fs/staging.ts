/**
 * Files being made. They lie in a folder of this run on the same file system, and get their real
 * names by a link or a rename, so that nothing half-written is ever seen under one.
 */
import { constants } from 'node:fs'
import type { Stats } from 'node:fs'
import { lstat, open, unlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import pLimit from 'p-limit'
import { DroverError, throwIfAborted } from '../../lib/errors.ts'
import { flushFolder } from '../../lib/flush-folder.ts'
import type { Key, RunId } from '../../backupstore/layout.ts'
import { STORE_PREFIX, stagingKey } from '../../backupstore/layout.ts'
import type { Body } from '../../backupstore/object-store.ts'
import type { Ownership } from './folders.ts'
import { giveTo, makeFolders, ownershipLike, removeEmptyUpwards } from './folders.ts'
import { isAbsent } from './fs-errors.ts'
import type { LastCheck } from './last-check.ts'
import { placeNew, placeOver, statIfThere } from './naming.ts'
import type { StorePaths } from './paths.ts'
import { removeTree } from './remove-tree.ts'
import type { Root } from './root.ts'

/** Flushes at once: enough for a file system to put many into one commit of its journal. */
export const FLUSHERS = 8
/** Tries to put a file into a folder that others keep removing because it is empty. */
const PLACE_TRIES = 20
const HEARTBEAT_MS = 60_000
const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants

/** A body whose chunks may come from another process. */
export interface AnyBody extends Omit<Body, 'chunks'> {
  chunks(): Iterable<Uint8Array> | AsyncIterable<Uint8Array>
}

export interface StagingOptions {
  /** Processes that worked for this run before, and may have left files. */
  readonly predecessors: number
  /** Folders that files are spread over: the changes of one folder wait for each other. */
  readonly folders: number
}

export class Staging {
  readonly #paths: StorePaths
  readonly #root: Root
  readonly #folder: string
  readonly #options: StagingOptions
  #like: Promise<Ownership> | undefined
  /** The run's folder, and those in it. */
  readonly #made = new Map<string, Promise<void>>()
  #madeStore = false
  #count = 0
  #heartbeat: NodeJS.Timeout | undefined
  #beating: Promise<void> | undefined
  /** Folders whose names changed and were not flushed yet. */
  readonly #unflushed = new Set<string>()

  constructor(paths: StorePaths, run: RunId, root: Root, options: StagingOptions) {
    this.#paths = paths
    this.#root = root
    this.#folder = paths.ofPrefix(stagingKey(run, ''))
    this.#options = options
  }

  /** Writes a new file in staging and returns its path. */
  async write(
    body: AnyBody,
    options: { durable: boolean; signal?: AbortSignal | undefined },
  ): Promise<string> {
    const like = await this.#ownership()
    const path = await this.#nextPath(like)
    const handle = await open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, like.mode & 0o666)
    try {
      let size = 0
      await handle.chmod(like.mode & 0o666)
      for await (const chunk of body.chunks()) {
        throwIfAborted(options.signal)
        await handle.writeFile(chunk)
        size += chunk.length
      }
      throwIfAborted(options.signal)
      if (size !== body.sizeBytes) {
        throw new DroverError('INTERNAL', `a body of ${size} bytes that said ${body.sizeBytes}`)
      }
      if (options.durable) await handle.datasync()
    } catch (error) {
      await handle.close()
      await unlink(path).catch(() => undefined)
      throw error
    }
    await handle.close()
    await giveTo(path, like)
    return path
  }

  /**
   * Gives a staged file its real name; the name it had stays, or not. The folders whose names
   * changed are flushed by `flushNames`.
   * @param how `over` replaces what is there; otherwise what may be replaced of it
   * @returns false when something was there and stays
   */
  async place(
    staged: string,
    key: Key,
    how: 'over' | ((there: Stats) => boolean | Promise<boolean>),
    check: LastCheck,
  ): Promise<boolean> {
    const like = await this.#ownership()
    const path = this.#paths.of(key)
    const folder = dirname(path)
    for (let tries = 1; ; tries++) {
      try {
        for (const made of await makeFolders(this.#paths.root, folder, like)) {
          this.#unflushed.add(made)
        }
        if (how !== 'over' && !(await placeNew(staged, path, how, check))) return false
        if (how === 'over') await placeOver(staged, path, check)
        this.#unflushed.add(folder)
        return true
      } catch (error) {
        // Longhorn and others remove folders that are empty for a moment: make them again
        if (isAbsent(error) && tries < PLACE_TRIES && (await statIfThere(staged))) continue
        // an empty folder must not stay: Longhorn would take it for a backup
        await this.removeEmptyFolderOf(key)
        throw error
      }
    }
  }

  /** Makes the folders of objects to be placed. Those that stay empty have to go again. */
  async makeFoldersFor(keys: readonly Key[], alive: () => void): Promise<void> {
    const like = await this.#ownership()
    const folders = new Set(keys.map((key) => dirname(this.#paths.of(key))))
    const making = pLimit(FLUSHERS)
    const make = async (folder: string): Promise<void> => {
      for (const made of await makeFolders(this.#paths.root, folder, like)) {
        this.#unflushed.add(made)
      }
      alive()
    }
    await Promise.all([...folders].map((folder) => making(() => make(folder))))
  }

  async removeEmptyFolderOf(key: Key): Promise<void> {
    const folder = dirname(this.#paths.of(key))
    await removeEmptyUpwards(folder, this.#paths.ofPrefix(STORE_PREFIX)).catch(() => undefined)
  }

  /** Makes all names that were given since the last time survive a power cut. */
  async flushNames(alive: () => void = () => undefined): Promise<void> {
    const folders = [...this.#unflushed]
    this.#unflushed.clear()
    const flushing = pLimit(FLUSHERS)
    const flush = async (folder: string): Promise<void> => {
      await flushFolder(folder)
      alive()
    }
    try {
      await Promise.all(folders.map((folder) => flushing(() => flush(folder))))
    } catch (error) {
      for (const folder of folders) this.#unflushed.add(folder)
      throw error
    }
  }

  /** Removes this run's folder, and the ones above it that are empty then. */
  async close(alive: () => void = () => undefined): Promise<void> {
    clearInterval(this.#heartbeat)
    await this.#beating
    if (this.#made.size === 0 && this.#options.predecessors === 0) return
    await removeTree(this.#folder, alive)
    const store = this.#paths.ofPrefix(STORE_PREFIX)
    await removeEmptyUpwards(dirname(this.#folder), store)
    // who only looked for a backup leaves no store behind where there was none
    if (this.#madeStore) await removeEmptyUpwards(store, this.#paths.root)
  }

  /** The server's time: that of a file written now, ms since 1970. */
  async now(): Promise<number> {
    const path = await this.write({ sizeBytes: 0, chunks: () => [] }, { durable: false })
    const { mtimeMs } = await lstat(path)
    await unlink(path)
    return mtimeMs
  }

  /** Names of predecessors may still be in use. */
  async #nextPath(like: Ownership): Promise<string> {
    const { predecessors, folders } = this.#options
    const number = this.#count++
    const name = predecessors === 0 ? String(number) : `${predecessors}-${number}`
    const folder = folders === 1 ? this.#folder : join(this.#folder, `in-${number % folders}`)
    let making = this.#made.get(folder)
    if (!making) {
      making = this.#make(folder, like)
      this.#made.set(folder, making)
      making.catch(() => this.#made.delete(folder))
    }
    await making
    return join(folder, name)
  }

  async #make(folder: string, like: Ownership): Promise<void> {
    await this.#root.check()
    for (let tries = 1; ; tries++) {
      try {
        for (const made of await makeFolders(this.#paths.root, folder, like)) {
          this.#unflushed.add(made)
          if (made === this.#paths.root) this.#madeStore = true
        }
        break
      } catch (error) {
        if (!isAbsent(error) || tries >= PLACE_TRIES) throw error
      }
    }
    // A run that waits for its lock has no lock file; this tells gc that it lives.
    this.#heartbeat ??= setInterval(() => {
      this.#beating = writeFile(join(this.#folder, 'alive'), '', { mode: 0o600 }).catch(
        () => undefined,
      )
    }, HEARTBEAT_MS).unref()
  }

  #ownership(): Promise<Ownership> {
    return (this.#like ??= ownershipLike(this.#paths.ofPrefix(STORE_PREFIX)))
  }
}

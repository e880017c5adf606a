/**
 * Files being made. They lie in a folder of this run on the same file system, and get their real
 * names by a link or a rename, so that nothing half-written is ever seen under one.
 */
import { constants } from 'node:fs'
import type { Stats } from 'node:fs'
import { lstat, open, rm, unlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import pLimit from 'p-limit'
import { DroverError, throwIfAborted } from '../../lib/errors.ts'
import { flushFolder } from '../../lib/flush-folder.ts'
import type { Key, RunId } from '../../backupstore/layout.ts'
import { STORE_PREFIX, stagingKey } from '../../backupstore/layout.ts'
import type { Body, StagingArea } from '../../backupstore/object-store.ts'
import type { Ownership } from './folders.ts'
import { giveTo, makeFolders, ownershipLike, removeEmptyUpwards } from './folders.ts'
import { isAbsent, targetError } from './fs-errors.ts'
import { placeNew, placeOver, statIfThere } from './naming.ts'
import type { StorePaths } from './paths.ts'
import type { Root } from './root.ts'

/** Flushes at once: enough for a file system to put many into one commit of its journal. */
const FLUSHERS = 8
/** Tries to put a file into a folder that others keep removing because it is empty. */
const PLACE_TRIES = 20
const HEARTBEAT_MS = 60_000
const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants

export class Staging {
  readonly #paths: StorePaths
  readonly #root: Root
  readonly #folder: string
  #like: Promise<Ownership> | undefined
  #made = false
  #madeStore = false
  #count = 0
  #heartbeat: NodeJS.Timeout | undefined
  #beating: Promise<void> | undefined
  /** Folders whose names changed and were not flushed yet. */
  readonly #unflushed = new Set<string>()

  constructor(paths: StorePaths, run: RunId, root: Root) {
    this.#paths = paths
    this.#root = root
    this.#folder = paths.ofPrefix(stagingKey(run, ''))
  }

  /** Writes a new file in staging and returns its path. */
  async write(
    body: Body,
    options: { durable: boolean; signal?: AbortSignal | undefined },
  ): Promise<string> {
    const like = await this.#ownership()
    const path = join(this.#folder, String(this.#count++))
    if (!this.#made) await this.#make(like)
    const handle = await open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, like.mode & 0o666)
    try {
      let size = 0
      await handle.chmod(like.mode & 0o666)
      for (const chunk of body.chunks()) {
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
   * Gives a staged file its real name. The folders whose names changed are flushed by `flushNames`.
   * @param how `over` replaces what is there; otherwise what may be replaced of it
   * @param before called directly before the name appears; stops that by throwing
   * @returns false when something was there and stays
   */
  async place(
    staged: string,
    key: Key,
    how: 'over' | ((there: Stats) => boolean),
    before: () => void,
  ): Promise<boolean> {
    const like = await this.#ownership()
    const path = this.#paths.of(key)
    const folder = dirname(path)
    for (let tries = 1; ; tries++) {
      try {
        for (const made of await makeFolders(this.#paths.root, folder, like)) {
          this.#unflushed.add(made)
        }
        if (how !== 'over' && !(await placeNew(staged, path, how, before))) return false
        if (how === 'over') placeOver(staged, path, before)
        this.#unflushed.add(folder)
        return true
      } catch (error) {
        // Longhorn and others remove folders that are empty for a moment: make them again
        if (isAbsent(error) && tries < PLACE_TRIES && (await statIfThere(staged))) continue
        // an empty folder must not stay: Longhorn would take it for a backup
        await removeEmptyUpwards(folder, this.#paths.ofPrefix(STORE_PREFIX)).catch(() => undefined)
        throw error
      }
    }
  }

  /** Makes all names that were given since the last time survive a power cut. */
  async flushNames(): Promise<void> {
    const folders = [...this.#unflushed]
    this.#unflushed.clear()
    const flushing = pLimit(FLUSHERS)
    try {
      await Promise.all(folders.map((folder) => flushing(() => flushFolder(folder))))
    } catch (error) {
      for (const folder of folders) this.#unflushed.add(folder)
      throw error
    }
  }

  /** An area whose files are flushed and published together. */
  area(isWhole: (key: Key, sizeBytes: number) => boolean): StagingArea {
    const flushing = pLimit(FLUSHERS)
    let waiting: Array<{ key: Key; path: string }> = []
    const flushFile = async (path: string) => {
      const handle = await open(path, 'r')
      try {
        await handle.datasync()
      } finally {
        await handle.close()
      }
    }
    return {
      add: async (key, bytes, options) => {
        try {
          this.#paths.of(key) // refuses now what could never be published
          const body: Body = { sizeBytes: bytes.length, chunks: () => [bytes] }
          const path = await this.write(body, { durable: false, signal: options?.signal })
          waiting.push({ key, path })
        } catch (error) {
          await this.#root.check()
          throw targetError(error, `writing ${key}`)
        }
      },
      publish: async (beforeEach) => {
        const batch = waiting
        waiting = []
        const created: Key[] = []
        const existed: Key[] = []
        let placed = 0
        try {
          await Promise.all(batch.map(({ path }) => flushing(() => flushFile(path))))
          for (const { key, path } of batch) {
            const mayReplace = (there: Stats) => !there.isFile() || !isWhole(key, there.size)
            const isNew = await this.place(path, key, mayReplace, beforeEach)
            placed += 1
            ;(isNew ? created : existed).push(key)
          }
          await this.flushNames()
        } catch (error) {
          waiting = [...batch.slice(placed), ...waiting] // for `discard`
          throw targetError(error, 'publishing blocks')
        }
        return { created, existed }
      },
      discard: async () => {
        const batch = waiting
        waiting = []
        for (const { path } of batch) await rm(path, { force: true })
      },
    }
  }

  /** Removes this run's folder, and the ones above it that are empty then. */
  async close(): Promise<void> {
    clearInterval(this.#heartbeat)
    await this.#beating
    if (!this.#made) return
    await rm(this.#folder, { recursive: true, force: true })
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

  async #make(like: Ownership): Promise<void> {
    await this.#root.check()
    for (let tries = 1; ; tries++) {
      try {
        for (const made of await makeFolders(this.#paths.root, this.#folder, like)) {
          this.#unflushed.add(made)
          if (made === this.#paths.root) this.#madeStore = true
        }
        break
      } catch (error) {
        if (!isAbsent(error) || tries >= PLACE_TRIES) throw error
      }
    }
    this.#made = true
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

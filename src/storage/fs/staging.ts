/**
 * Files being made. They lie in a folder of this run on the same file system, and get their real
 * names by a link or a rename, so that nothing half-written is ever seen under one.
 */
import { constants } from 'node:fs'
import { link, lstat, open, rename, rm, unlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import pLimit from 'p-limit'
import { DroverError, systemCode, throwIfAborted } from '../../lib/errors.ts'
import { flushFolder } from '../../lib/flush-folder.ts'
import type { Key, RunId } from '../../backupstore/layout.ts'
import { STORE_PREFIX, stagingKey } from '../../backupstore/layout.ts'
import type { Body, StagingArea } from '../../backupstore/object-store.ts'
import type { Ownership } from './folders.ts'
import { giveTo, makeFolders, ownershipLike, removeEmptyUpwards } from './folders.ts'
import { isAbsent, targetError } from './fs-errors.ts'
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
  #count = 0
  #heartbeat: NodeJS.Timeout | undefined

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
      if (size !== body.sizeBytes)
        throw new DroverError('INTERNAL', `a body of ${size} bytes that said ${body.sizeBytes}`)
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
   * Gives a staged file its real name.
   * @param how `absent` leaves what is there, `new` too unless it is empty
   * @returns false when something was there, and the folders to flush
   */
  async place(
    staged: string,
    key: Key,
    how: 'new' | 'absent' | 'over',
    before: () => void,
  ): Promise<{ placed: boolean; changed: string[] }> {
    const like = await this.#ownership()
    const path = this.#paths.of(key)
    const folder = dirname(path)
    for (let tries = 1; ; tries++) {
      try {
        const changed = await makeFolders(this.#paths.root, folder, like)
        before()
        const placed =
          how === 'over' ? await over(staged, path) : await asNew(staged, path, how === 'new')
        return { placed, changed: [folder, ...changed] }
      } catch (error) {
        // Longhorn and others remove folders that are empty for a moment: make them again
        if (!isAbsent(error) || tries >= PLACE_TRIES) throw error
        await lstat(staged) // unless it is the staged file that is gone
      }
    }
  }

  /** An area whose files are flushed and published together. */
  area(): StagingArea {
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
        const changed = new Set<string>()
        let placed = 0
        try {
          await Promise.all(batch.map(({ path }) => flushing(() => flushFile(path))))
          for (const { key, path } of batch) {
            const result = await this.place(path, key, 'new', beforeEach)
            placed += 1
            ;(result.placed ? created : existed).push(key)
            for (const folder of result.changed) changed.add(folder)
          }
          await Promise.all([...changed].map((folder) => flushing(() => flushFolder(folder))))
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
    if (!this.#made) return
    await rm(this.#folder, { recursive: true, force: true })
    await removeEmptyUpwards(dirname(this.#folder), this.#paths.ofPrefix(STORE_PREFIX))
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
        await makeFolders(this.#paths.root, this.#folder, like)
        break
      } catch (error) {
        if (!isAbsent(error) || tries >= PLACE_TRIES) throw error
      }
    }
    this.#made = true
    // A run that waits for its lock has no lock file; this tells gc that it lives.
    this.#heartbeat ??= setInterval(() => {
      writeFile(join(this.#folder, 'alive'), '', { mode: 0o600 }).catch(() => undefined)
    }, HEARTBEAT_MS).unref()
  }

  #ownership(): Promise<Ownership> {
    return (this.#like ??= ownershipLike(this.#paths.ofPrefix(STORE_PREFIX)))
  }
}

async function over(staged: string, path: string): Promise<boolean> {
  await rename(staged, path)
  return true
}

/** A link fails where something stands already; a rename would replace it. */
async function asNew(staged: string, path: string, overEmpty: boolean): Promise<boolean> {
  try {
    await link(staged, path)
  } catch (error) {
    const code = systemCode(error)
    if (code === 'EEXIST') {
      const there = await lstat(path).catch(() => undefined)
      // an empty file is what a power cut left, a link is not ours: both are replaced
      if (!there || !there.isFile() || (overEmpty && there.size === 0)) return over(staged, path)
      await unlink(staged)
      return false
    }
    // file systems without hard links (CIFS, FAT): a check, then a rename
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EMLINK') throw error
    if (await lstat(path).catch(() => undefined)) {
      await unlink(staged)
      return false
    }
    return over(staged, path)
  }
  await unlink(staged)
  return true
}

/** Staged files that are flushed and published together. */
import type { Stats } from 'node:fs'
import { open, unlink } from 'node:fs/promises'
import pLimit from 'p-limit'
import type { Key } from '../../backupstore/layout.ts'
import { throwIfAborted } from '../../lib/errors.ts'
import type { CallOptions, Published, StagingArea } from '../../backupstore/object-store.ts'
import { isAbsent, targetError } from './fs-errors.ts'
import type { LastCheck } from './last-check.ts'
import { asLastCheck } from './last-check.ts'
import type { StorePaths } from './paths.ts'
import type { Root } from './root.ts'
import type { Staging } from './staging.ts'
import { FLUSHERS } from './staging.ts'

/** Whether what stands under a key, so long, is worth keeping. */
export type IsWhole = (key: Key, sizeBytes: number) => boolean | Promise<boolean>

export interface FsStagingArea extends StagingArea {
  /** @param options `alive` is called now and then while it goes on */
  publish(
    beforeEach: (() => void) | LastCheck,
    options?: CallOptions & { readonly alive?: () => void },
  ): Promise<Published>
  /** Drops what was added last under a key and not published. */
  drop(key: Key): Promise<void>
  /** After the publication that goes on, if any: that may leave something. */
  discard(options?: { readonly alive?: () => void }): Promise<void>
}

export interface StagingAreaOptions {
  readonly paths: StorePaths
  readonly root: Root
  readonly isWhole: IsWhole
  /** Objects that are given their names at once. */
  readonly placers: number
}

interface Staged {
  readonly key: Key
  readonly path: string
}

export function stagingArea(
  staging: Staging,
  { paths, root, isWhole, placers }: StagingAreaOptions,
): FsStagingArea {
  const flushing = pLimit(FLUSHERS)
  const placing = pLimit(placers)
  let waiting: Staged[] = []
  let publishing: Promise<unknown> = Promise.resolve()

  const flushFile = async (path: string): Promise<void> => {
    const handle = await open(path, 'r')
    try {
      await handle.datasync()
    } finally {
      await handle.close()
    }
  }
  /** The names in staging of what has its real one now, or is not needed. */
  const removeNames = async (names: readonly Staged[], alive: () => void): Promise<void> => {
    const removeName = async ({ path }: Staged): Promise<void> => {
      await unlink(path).catch((error: unknown) => {
        if (!isAbsent(error)) throw error
      })
      alive()
    }
    await Promise.all(names.map((staged) => flushing(() => removeName(staged))))
  }

  const publishBatch = async (
    batch: readonly Staged[],
    beforeEach: LastCheck,
    { signal, alive = quietly }: CallOptions & { readonly alive?: () => void } = {},
  ): Promise<Published> => {
    const created: Key[] = []
    const existed: Key[] = []
    const placed = new Set<Staged>()
    const failures: unknown[] = []
    const check = untilFirst(failures, beforeEach)
    const flush = async ({ path }: Staged): Promise<void> => {
      throwIfAborted(signal)
      await flushFile(path)
      alive()
    }
    const place = async (staged: Staged): Promise<void> => {
      const { key, path } = staged
      const mayReplace = async (there: Stats) =>
        !there.isFile() || !(await isWhole(key, there.size))
      try {
        if (failures.length > 0) return
        throwIfAborted(signal)
        const isNew = await staging.place(path, key, mayReplace, check)
        placed.add(staged)
        ;(isNew ? created : existed).push(key)
        alive()
      } catch (error) {
        failures.push(error)
      }
    }
    try {
      await Promise.all(batch.map((staged) => flushing(() => flush(staged))))
      // looking up names goes faster in folders that do not change meanwhile
      if (placers > 1) {
        await staging.makeFoldersFor(
          batch.map(({ key }) => key),
          alive,
        )
      }
      await Promise.all(batch.map((staged) => placing(() => place(staged))))
      if (failures.length > 0) throw failures[0]
      await removeNames(batch, alive)
      await staging.flushNames(alive)
    } catch (error) {
      await removeNames([...placed], alive).catch(() => undefined)
      const left = batch.filter((staged) => !placed.has(staged))
      if (placers > 1) {
        for (const { key } of left) {
          await staging.removeEmptyFolderOf(key)
          alive()
        }
      }
      waiting = [...left, ...waiting] // for `discard`
      throw targetError(error, 'publishing blocks')
    }
    return { created, existed }
  }

  return {
    async add(key, bytes, options) {
      try {
        paths.of(key) // refuses now what could never be published
        const body = { sizeBytes: bytes.length, chunks: () => [bytes] }
        const path = await staging.write(body, { durable: false, signal: options?.signal })
        waiting.push({ key, path })
      } catch (error) {
        await root.check()
        throw targetError(error, `writing ${key}`)
      }
    },

    publish(beforeEach, options) {
      const batch = waiting
      waiting = []
      const work = publishBatch(batch, asLastCheck(beforeEach), options)
      publishing = Promise.allSettled([publishing, work])
      return work
    },

    async drop(key) {
      const at = waiting.findLastIndex((staged) => staged.key === key)
      await removeNames(waiting.splice(at, at < 0 ? 0 : 1), quietly)
    },

    async discard({ alive = quietly } = {}) {
      await publishing
      const batch = waiting
      waiting = []
      await removeNames(batch, alive)
    },
  }
}

const quietly = (): void => undefined

/** After the first failure nothing more is allowed; what was allowed before may still appear. */
function untilFirst(failures: unknown[], { ahead, now }: LastCheck): LastCheck {
  const stop = () => {
    if (failures.length > 0) throw failures[0]
  }
  const fail = (error: unknown): never => {
    failures.push(error)
    throw error
  }
  return {
    ...(ahead && {
      ahead: async (paths) => {
        stop()
        await ahead(paths).catch(fail)
      },
    }),
    now() {
      if (!ahead) stop()
      try {
        return now()
      } catch (error) {
        return fail(error)
      }
    },
  }
}

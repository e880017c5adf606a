/** Staged files that are flushed and published together. */
import type { Stats } from 'node:fs'
import { open, rm, unlink } from 'node:fs/promises'
import pLimit from 'p-limit'
import type { Key } from '../../backupstore/layout.ts'
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

  const flushFile = async (path: string): Promise<void> => {
    const handle = await open(path, 'r')
    try {
      await handle.datasync()
    } finally {
      await handle.close()
    }
  }
  const remove = ({ path }: Staged): Promise<void> => rm(path, { force: true })
  /** The names in staging of what has its real one now, or is not needed. */
  const removeNames = async (names: readonly Staged[]): Promise<void> => {
    const removeName = async ({ path }: Staged): Promise<void> => {
      await unlink(path).catch((error: unknown) => {
        if (!isAbsent(error)) throw error
      })
    }
    await Promise.all(names.map((staged) => flushing(() => removeName(staged))))
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

    async publish(beforeEach, { alive } = {}) {
      const batch = waiting
      waiting = []
      const created: Key[] = []
      const existed: Key[] = []
      const placed = new Set<Staged>()
      const failures: unknown[] = []
      const check = untilFirst(failures, asLastCheck(beforeEach))
      const flush = async ({ path }: Staged): Promise<void> => {
        await flushFile(path)
        alive?.()
      }
      const place = async (staged: Staged): Promise<void> => {
        const { key, path } = staged
        const mayReplace = async (there: Stats) =>
          !there.isFile() || !(await isWhole(key, there.size))
        try {
          if (failures.length > 0) return
          const isNew = await staging.place(path, key, mayReplace, check)
          placed.add(staged)
          ;(isNew ? created : existed).push(key)
        } catch (error) {
          failures.push(error)
        }
      }
      try {
        await Promise.all(batch.map((staged) => flushing(() => flush(staged))))
        // looking up names goes faster in folders that do not change meanwhile
        if (placers > 1) await staging.makeFoldersFor(batch.map(({ key }) => key))
        await Promise.all(batch.map((staged) => placing(() => place(staged))))
        if (failures.length > 0) throw failures[0]
        await removeNames(batch)
        await staging.flushNames()
      } catch (error) {
        await removeNames([...placed]).catch(() => undefined)
        const left = batch.filter((staged) => !placed.has(staged))
        if (placers > 1) for (const { key } of left) await staging.removeEmptyFolderOf(key)
        waiting = [...left, ...waiting] // for `discard`
        throw targetError(error, 'publishing blocks')
      }
      return { created, existed }
    },

    async drop(key) {
      const at = waiting.findLastIndex((staged) => staged.key === key)
      for (const staged of waiting.splice(at, at < 0 ? 0 : 1)) await remove(staged)
    },

    async discard() {
      const batch = waiting
      waiting = []
      for (const staged of batch) await remove(staged)
    },
  }
}

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

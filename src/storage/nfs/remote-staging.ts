/**
 * A staging area in a helper. It lives and dies with that helper: what a helper that was killed
 * left behind cannot be told from what is half-written.
 */
import { DroverError, throwIfAborted } from '../../lib/errors.ts'
import { orAborted } from '../../lib/lanes.ts'
import type { Key } from '../../backupstore/layout.ts'
import type { StagingArea } from '../../backupstore/object-store.ts'
import type { HelperKeeper } from './helper-keeper.ts'
import type { HelperProcess } from './helper-process.ts'
import type { Parcel } from './windows.ts'
import { INLINE_BYTES } from './windows.ts'

/** An area in one helper. */
interface Home {
  readonly helper: HelperProcess
  readonly area: Promise<number>
  /** Objects added and not published. */
  waiting: number
  /** Adds whose callers gave up: what comes of them is taken back. */
  readonly givenUp: Set<Promise<unknown>>
}

export function remoteStaging(
  keeper: HelperKeeper,
  isWhole: ((key: Key, sizeBytes: number) => boolean) | undefined,
): StagingArea {
  let home: Home | undefined

  /** What is staged must not be lost unnoticed. */
  const assertNotLost = (): void => {
    const why = home?.helper.gone
    if (!home || !why || home.waiting === 0) return
    throw new DroverError('TARGET_UNREACHABLE', `what was staged is lost: ${why.message}`, {
      details: { ...why.details, objects: home.waiting },
      retryable: true,
      cause: why,
    })
  }

  const homeIn = (helper: HelperProcess): Home => {
    if (home?.helper === helper) return home
    const area = helper.call('stage-open', { asksWhole: isWhole !== undefined })
    area.catch(() => undefined) // told to who uses it
    return (home = { helper, area, waiting: 0, givenUp: new Set() })
  }

  const add = async (
    to: Home,
    given: { readonly key: Key; readonly bytes: Parcel; readonly window?: number },
    signal: AbortSignal | undefined,
  ): Promise<void> => {
    const { key, bytes, window } = given
    const area = await to.area
    const adding = to.helper.call('stage-add', { area, key, bytes }, { window })
    try {
      await (signal ? orAborted(adding, signal) : adding)
      to.waiting += 1
    } catch (error) {
      if (signal?.aborted) {
        const takenBack = adding
          .then(() => to.helper.call('stage-drop', { area, key }))
          .catch(() => undefined)
          .finally(() => to.givenUp.delete(takenBack))
        to.givenUp.add(takenBack)
      }
      throw error
    }
  }

  return {
    async add(key, bytes, { signal } = {}) {
      assertNotLost()
      const helper = await keeper.get(signal)
      const to = homeIn(helper)
      if (bytes.length <= INLINE_BYTES) {
        return add(to, { key, bytes: { kind: 'inline', bytes } }, signal)
      }
      await helper.windows.lend(signal, async (window) => {
        await helper.windows.fill(window, bytes, 0)
        const { length } = bytes
        await add(to, { key, bytes: { kind: 'window', window, length }, window }, signal)
      })
    },

    async publish(beforeEach, { signal } = {}) {
      throwIfAborted(signal)
      assertNotLost()
      if (!home || home.waiting === 0) return { created: [], existed: [] }
      const from = home
      await Promise.all(from.givenUp)
      const tells = {
        grant() {
          throwIfAborted(signal)
          beforeEach()
        },
        ...(isWhole && {
          whole: ({ key, sizeBytes }: { key: Key; sizeBytes: number }) => isWhole(key, sizeBytes),
        }),
      }
      const area = await from.area
      const published = await from.helper.call('stage-publish', { area }, { signal, tells })
      from.waiting -= published.created.length + published.existed.length
      return published
    },

    async discard() {
      const from = home
      if (!from) return
      await Promise.all(from.givenUp)
      if (!from.helper.gone) await from.helper.call('stage-discard', { area: await from.area })
      from.waiting = 0
    },
  }
}

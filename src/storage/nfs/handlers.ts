/** What a helper does for each call: the folder driver, on the place that was opened. */
import { DroverError } from '../../lib/errors.ts'
import type { RunId } from '../../backupstore/layout.ts'
import type { FsStore } from '../fs/fs-store.ts'
import { openFsStore } from '../fs/fs-store.ts'
import { probeStep } from '../fs/probe-steps.ts'
import type { FsStagingArea, IsWhole } from '../fs/staging-area.ts'
import { askedCheck } from './grant.ts'
import type { ListCursor, ReadCursor } from './cursors.ts'
import { Numbered, nextPage, nextPart } from './cursors.ts'
import type { PutGiven } from './messages.ts'
import type { OpenPlace } from './place.ts'
import { openPlace } from './place.ts'
import { readInTime } from './soft-timeout.ts'
import type { CallContext, Handlers } from './serve.ts'
import type { WindowBuffers } from './windows.ts'

/**
 * Naming an object takes several round trips to the server. The last one holds up all others here,
 * so more placers would only wait for each other.
 */
const PLACERS = 4

interface Session {
  readonly store: FsStore
  readonly path: string
  readonly run: RunId
  readonly grantMs: number
  readonly waitMs: number
}

interface Area {
  readonly area: FsStagingArea
  /** The publication that goes on. */
  publishing: CallContext | undefined
}

export interface Work {
  readonly handlers: Handlers
  /** Lets go of the place; done when it was closed before. */
  leave(): Promise<void>
}

/** @param stop aborted when the store's process is gone */
export function workWith(windows: WindowBuffers, stop: AbortSignal): Work {
  let opening: Promise<OpenPlace> | undefined
  let session: Session | undefined
  const lists = new Numbered<ListCursor>()
  const reads = new Numbered<ReadCursor>()
  const areas = new Numbered<Area>()

  const working = (): Session => {
    if (!session) throw new DroverError('INTERNAL', 'nothing is open in this helper')
    return session
  }
  const checkIf = (asks: boolean, context: CallContext) =>
    asks ? { check: askedCheck(context, working().grantMs) } : {}

  const leave = async (): Promise<void> => {
    const place = await opening?.catch(() => undefined)
    opening = undefined
    // what is open in it would keep it from being unmounted
    for (const { pages } of lists.takeAll()) await pages.return?.()
    for (const { chunks } of reads.takeAll()) await chunks.return?.()
    await place?.close()
  }

  const handlers: Handlers = {
    hello: () => undefined,

    async open({ place, run, predecessors, grantMs }, { alive }) {
      opening = openPlace(place, { alive, signal: stop })
      try {
        const { path, waitMs } = await opening
        const store = await openFsStore(path, run, { predecessors, placers: PLACERS })
        session = { store, path, run, grantMs, waitMs }
      } catch (error) {
        await leave()
        throw error
      }
      return undefined
    },

    stat: ({ key }, { signal }) => working().store.stat(key, { signal }),

    async read({ key, room, window }, { signal }) {
      const into =
        window === undefined ? Buffer.allocUnsafe(room) : windows.at(window).subarray(0, room)
      const { store, waitMs } = working()
      const sizeBytes = await readInTime(waitMs, () => store.readInto(key, into, { signal }))
      if (sizeBytes === undefined) return undefined
      if (sizeBytes > room) return { sizeBytes }
      return { sizeBytes, bytes: await windows.pack(into.subarray(0, sizeBytes), window) }
    },

    async 'read-start'({ key, firstBytes, window }) {
      const options = firstBytes === undefined ? {} : { firstBytes }
      const object = await working().store.open(key, options)
      if (!object) return undefined
      const { info } = object
      const leftBytes = Math.min(info.sizeBytes, firstBytes ?? info.sizeBytes)
      const cursor = { chunks: object.chunks[Symbol.asyncIterator](), leftBytes }
      const { waitMs } = working()
      const { bytes, more } = await readInTime(waitMs, () => nextPart(cursor, windows, window))
      return more ? { info, bytes, cursor: reads.add(cursor) } : { info, bytes }
    },

    async 'read-on'({ cursor, window }) {
      const { waitMs } = working()
      const part = await readInTime(waitMs, () => nextPart(reads.get(cursor), windows, window))
      if (!part.more) reads.take(cursor)
      return part
    },

    async 'list-start'({ prefix }, context) {
      const alive = () => cursor.context.alive()
      const cursor: ListCursor = {
        pages: working().store.list(prefix, { alive }),
        context,
      }
      const { objects, more } = await nextPage(cursor)
      return more ? { objects, cursor: lists.add(cursor) } : { objects }
    },

    async 'list-on'({ cursor: number }, context) {
      const cursor = lists.get(number)
      cursor.context = context
      const { objects, more } = await nextPage(cursor)
      if (more) return { objects, cursor: number }
      lists.take(number)
      return { objects }
    },

    async 'let-go'({ cursor }) {
      await lists.take(cursor)?.pages.return?.()
      await reads.take(cursor)?.chunks.return?.()
      return undefined
    },

    put: (given, context) => {
      const { key, sizeBytes, durable, expect } = given
      const body = { sizeBytes, chunks: () => partsOf(given, context, windows) }
      return working().store.put(key, body, {
        durable,
        signal: context.signal,
        ...(expect === undefined ? {} : { expect }),
        ...checkIf(given.asks, context),
      })
    },

    remove: ({ key, durable, asks }, context) => {
      const options = { durable, signal: context.signal, ...checkIf(asks, context) }
      return working().store.remove(key, options)
    },

    tidy: ({ prefix, minAgeMs, dryRun }, { signal, alive }) =>
      working().store.removeEmptyFolders(prefix, { minAgeMs, dryRun, signal, alive }),

    async 'stage-open'({ asksWhole }) {
      const isWhole: IsWhole = (key, sizeBytes) => {
        if (!home.publishing) throw new DroverError('INTERNAL', 'nothing is published')
        return home.publishing.ask('whole', { key, sizeBytes })
      }
      const area = await working().store.openStaging(asksWhole ? isWhole : undefined)
      const home: Area = { area, publishing: undefined }
      return areas.add(home)
    },

    async 'stage-add'({ area, key, bytes }, { signal }) {
      await areas.get(area).area.add(key, await windows.unpack(bytes), { signal })
      return undefined
    },

    async 'stage-drop'({ area, key }) {
      await areas.get(area).area.drop(key)
      return undefined
    },

    'stage-publish'({ area: number }, context) {
      const home = areas.get(number)
      home.publishing = context
      const { signal, alive } = context
      return home.area.publish(askedCheck(context, working().grantMs), { signal, alive })
    },

    async 'stage-discard'({ area }, { alive }) {
      await areas.get(area).area.discard({ alive })
      return undefined
    },

    probe({ step, ...how }, { signal }) {
      const { store, path, run } = working()
      return probeStep(step, { store, path, run, ...how }, signal)
    },

    async close(_given, { alive }) {
      await session?.store.close({ alive })
      session = undefined
      await leave()
      return undefined
    },
  }
  return { handlers, leave }
}

async function* partsOf(
  { first }: PutGiven,
  { ask }: CallContext,
  windows: WindowBuffers,
): AsyncGenerator<Uint8Array> {
  for (let part = first; ; part = await ask('body', {})) {
    yield await windows.unpack(part.bytes)
    if (!part.more) return
  }
}

/**
 * The port, spoken to a helper. Nothing here touches the target itself, so nothing here hangs when
 * the target does.
 */
import { throwIfAborted } from '../../lib/errors.ts'
import type { Key } from '../../backupstore/layout.ts'
import type {
  Body,
  CallOptions,
  ObjectStore,
  OpenObject,
  PutOptions,
  PutResult,
  WriteCallOptions,
} from '../../backupstore/object-store.ts'
import { BodyFeed } from './body-feed.ts'
import type { KeeperOptions } from './helper-keeper.ts'
import { HelperKeeper } from './helper-keeper.ts'
import type { HelperProcess } from './helper-process.ts'
import type { Answer, Part } from './messages.ts'
import type { Tells } from './pending-calls.ts'
import { remoteStaging } from './remote-staging.ts'
import { INLINE_BYTES, WINDOW_BYTES, lengthOf } from './windows.ts'

/** How long a permission to make a change visible lasts; the holder of a lock keeps 10 s spare. */
export const GRANT_MS = 3000

/**
 * Opens a target through a helper process of its own.
 * @throws DroverError what opening meets, or the signal's reason
 */
export async function openRemoteStore(
  options: KeeperOptions,
  signal?: AbortSignal,
): Promise<ObjectStore> {
  const keeper = new HelperKeeper(options)
  try {
    await keeper.get(signal)
  } catch (error) {
    // the helper may hang, and whoever gave up does not wait for it
    keeper.close(() => Promise.resolve()).catch(() => undefined)
    throw error
  }
  return storeOf(keeper)
}

function storeOf(keeper: HelperKeeper): ObjectStore {
  return {
    async stat(key, { signal } = {}) {
      const helper = await keeper.get(signal)
      return helper.call('stat', { key }, { signal })
    },

    async open(key, options = {}) {
      const helper = await keeper.get(options.signal)
      return openObject(helper, key, options)
    },

    async readInto(key, into, { signal } = {}) {
      throwIfAborted(signal)
      const helper = await keeper.get(signal)
      if (into.length > WINDOW_BYTES) return readPieces(helper, key, into, signal)
      const read = async (window?: number) => {
        const given = { key, room: into.length, ...(window === undefined ? {} : { window }) }
        const answer = await helper.call('read', given, { signal, window })
        if (answer?.bytes) await helper.windows.unpack(answer.bytes, into)
        return answer?.sizeBytes
      }
      return into.length <= INLINE_BYTES ? read() : helper.windows.lend(signal, read)
    },

    async *list(prefix, { signal } = {}) {
      const helper = await keeper.get(signal)
      const unwanted = ({ cursor }: Answer<'list-start'>) => letGo(helper, cursor)
      let page = await helper.call('list-start', { prefix }, { signal, unwanted })
      try {
        for (;;) {
          if (page.objects.length > 0) yield page.objects
          const { cursor } = page
          if (cursor === undefined) return
          page = await helper.call('list-on', { cursor }, { signal })
        }
      } finally {
        letGo(helper, page.cursor)
      }
    },

    async put(key, body, options = {}) {
      throwIfAborted(options.signal)
      return put(await keeper.get(options.signal), key, body, options)
    },

    openStaging: (isWhole) => Promise.resolve(remoteStaging(keeper, isWhole)),

    async remove(key, options = {}) {
      const { signal, durable = false } = options
      const helper = await keeper.get(signal)
      const given = { key, durable, asks: asks(options) }
      return helper.call('remove', given, { signal, tells: { grant: grantOf(options) } })
    },

    async removeEmptyFolders(prefix, { minAgeMs, dryRun = false, signal }) {
      const helper = await keeper.get(signal)
      return helper.call('tidy', { prefix, minAgeMs, dryRun }, { signal })
    },

    close: () => keeper.close((helper) => helper.call('close', {})),
  }
}

/** Whether a change needs a grant: nothing else keeps one from appearing after it was cancelled. */
const asks = ({ before, signal }: WriteCallOptions): boolean =>
  before !== undefined || signal !== undefined

const grantOf = ({ before, signal }: WriteCallOptions): NonNullable<Tells['grant']> => {
  return () => {
    throwIfAborted(signal)
    before?.()
  }
}

async function put(
  helper: HelperProcess,
  key: Key,
  body: Body,
  options: PutOptions,
): Promise<PutResult> {
  const { signal, durable = false, expect } = options
  const feed = new BodyFeed(body, signal)
  let part: Promise<Part> | undefined
  const write = async (window?: number): Promise<PutResult> => {
    const next = () =>
      (part = window === undefined ? feed.inline() : feed.through(helper.windows, window))
    const given = {
      key,
      sizeBytes: body.sizeBytes,
      first: await next(),
      durable,
      asks: asks(options),
      ...(expect === undefined ? {} : { expect }),
    }
    const tells = { grant: grantOf(options), body: next }
    try {
      return await helper.call('put', given, { signal, tells, window })
    } finally {
      // a part that is still being copied has the window
      await part?.catch(() => undefined)
    }
  }
  try {
    return await (body.sizeBytes <= INLINE_BYTES ? write() : helper.windows.lend(signal, write))
  } finally {
    feed.end()
  }
}

async function openObject(
  helper: HelperProcess,
  key: Key,
  { signal, firstBytes }: CallOptions & { readonly firstBytes?: number },
): Promise<OpenObject | undefined> {
  const asked = { key, ...(firstBytes === undefined ? {} : { firstBytes }) }
  const start = async (window?: number) => {
    const unwanted = (late: Answer<'read-start'>) => letGo(helper, late?.cursor)
    const given = { ...asked, ...(window === undefined ? {} : { window }) }
    const answer = await helper.call('read-start', given, { signal, window, unwanted })
    if (!answer) return undefined
    const first = Buffer.allocUnsafe(lengthOf(answer.bytes))
    await helper.windows.unpack(answer.bytes, first)
    return { ...answer, first }
  }
  const isSmall = firstBytes !== undefined && firstBytes <= INLINE_BYTES
  const started = await (isSmall ? start() : helper.windows.lend(signal, start))
  if (!started) return undefined
  const { info, first, cursor } = started
  return { info, chunks: chunksFrom(helper, first, cursor, signal) }
}

async function* chunksFrom(
  helper: HelperProcess,
  first: Buffer,
  cursor: number | undefined,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  let more = cursor !== undefined
  try {
    throwIfAborted(signal)
    if (first.length > 0) yield first
    for (;;) {
      if (!more || cursor === undefined) return
      yield await helper.windows.lend(signal, async (window) => {
        const part = await helper.call('read-on', { cursor, window }, { signal, window })
        more = part.more
        const bytes = Buffer.allocUnsafe(lengthOf(part.bytes))
        await helper.windows.unpack(part.bytes, bytes)
        return bytes
      })
    }
  } finally {
    if (more) letGo(helper, cursor)
  }
}

/** For a buffer larger than any window. */
async function readPieces(
  helper: HelperProcess,
  key: Key,
  into: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<number | undefined> {
  const object = await openObject(helper, key, signal ? { signal } : {})
  if (!object) return undefined
  let length = 0
  for await (const chunk of object.chunks) {
    if (object.info.sizeBytes > into.length) return object.info.sizeBytes
    into.set(chunk, length)
    length += chunk.length
  }
  return length
}

/** What is left open in a helper that is lost is lost with it. */
function letGo(helper: HelperProcess, cursor: number | undefined): void {
  if (cursor === undefined) return
  helper.call('let-go', { cursor }).catch(() => undefined)
}

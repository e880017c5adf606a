/**
 * A store in memory. It has no folders and no staging, like an object store of the cloud, so it
 * shows in tests that nothing relies on those; `faults` makes any call fail or wait.
 */
import { DroverError, throwIfAborted } from '../../lib/errors.ts'
import type { Clock } from '../../lib/clock.ts'
import type { Key } from '../../backupstore/layout.ts'
import type { Body, ObjectInfo, ObjectStore } from '../../backupstore/object-store.ts'

export type StoreCall = 'stat' | 'open' | 'readInto' | 'list' | 'put' | 'remove'

export interface MemoryStoreOptions {
  readonly clock: Pick<Clock, 'wallMs'>
  /** Called before each call; throws, or waits, to be a fault. */
  readonly faults?: (call: StoreCall, key: Key) => Promise<void> | void
}

export interface MemoryStore extends ObjectStore {
  /** The objects themselves, for tests to look at and to damage. */
  readonly objects: Map<Key, { bytes: Buffer; modifiedAtMs: number; generation: number }>
}

const PAGE = 1000

export function openMemoryStore({ clock, faults }: MemoryStoreOptions): MemoryStore {
  const objects: MemoryStore['objects'] = new Map()
  let generation = 0

  const infoOf = (key: Key): ObjectInfo | undefined => {
    const object = objects.get(key)
    return (
      object && {
        key,
        sizeBytes: object.bytes.length,
        modifiedAtMs: object.modifiedAtMs,
        version: String(object.generation),
      }
    )
  }

  const enter = async (call: StoreCall, key: Key, signal: AbortSignal | undefined) => {
    throwIfAborted(signal)
    const segments = (call === 'list' && key.endsWith('/') ? key.slice(0, -1) : key).split('/')
    if (segments.some((segment) => ['', '.', '..'].includes(segment) || segment.includes('\0'))) {
      throw new DroverError('UNSAFE_PATH', `${JSON.stringify(key)} is not a plain key`)
    }
    await faults?.(call, key)
    throwIfAborted(signal)
  }

  return {
    objects,

    async stat(key, options = {}) {
      await enter('stat', key, options.signal)
      return infoOf(key)
    },

    async open(key, options = {}) {
      await enter('open', key, options.signal)
      const info = infoOf(key)
      const bytes = objects.get(key)?.bytes.subarray(0, options.firstBytes)
      if (!info || !bytes) return undefined
      const chunks = async function* () {
        throwIfAborted(options.signal)
        yield bytes
      }
      return { info, chunks: chunks() }
    },

    async readInto(key, into, options = {}) {
      await enter('readInto', key, options.signal)
      const bytes = objects.get(key)?.bytes
      if (bytes && bytes.length <= into.length) into.set(bytes)
      return bytes?.length
    },

    async *list(prefix, options = {}) {
      await enter('list', prefix, options.signal)
      const keys = [...objects.keys()].filter((key) => key.startsWith(prefix)).sort()
      for (let from = 0; from < keys.length; from += PAGE) {
        if (from > 0) await enter('list', prefix, options.signal)
        yield keys
          .slice(from, from + PAGE)
          .map(infoOf)
          .filter((info) => info !== undefined)
      }
    },

    async put(key, body, options = {}) {
      await enter('put', key, options.signal)
      const { expect } = options
      const there = infoOf(key)
      if (expect === 'absent' && there) return { written: false }
      if (typeof expect === 'object' && there?.version !== expect.version) return { written: false }
      const bytes = collect(body)
      throwIfAborted(options.signal)
      options.before?.()
      objects.set(key, { bytes, modifiedAtMs: clock.wallMs(), generation: ++generation })
      const info = infoOf(key)
      if (!info) throw new DroverError('INTERNAL', 'the object just written is gone')
      return { written: true, info }
    },

    async remove(key, options = {}) {
      await enter('remove', key, options.signal)
      options.before?.()
      return objects.delete(key)
    },

    close: () => Promise.resolve(),
  }
}

function collect(body: Body): Buffer {
  const bytes = Buffer.concat([...body.chunks()])
  if (bytes.length !== body.sizeBytes) {
    throw new DroverError('INTERNAL', `a body of ${bytes.length} bytes that said ${body.sizeBytes}`)
  }
  return bytes
}

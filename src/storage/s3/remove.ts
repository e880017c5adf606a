/** Removing objects, many in one request where the server knows how. */
import { DeleteObjectCommand, DeleteObjectsCommand } from '@aws-sdk/client-s3'
import type { DeleteObjectCommandOutput, DeleteObjectsCommandOutput } from '@aws-sdk/client-s3'
import type { ErrorCode } from '../../lib/errors.ts'
import { DroverError, throwIfAborted } from '../../lib/errors.ts'
import { runLanes } from '../../lib/lanes.ts'
import type { Key } from '../../backupstore/layout.ts'
import type { RemovedMany, WriteCallOptions } from '../../backupstore/object-store.ts'
import type { Bucket } from './client.ts'
import { isAbsent, isNotImplemented, s3Error } from './errors.ts'
import { noServer } from './keys.ts'
import { beforeEachAttempt } from './put.ts'

/** Objects removed at once where the server takes one a request. */
const REMOVERS = 8
/** Fewer than a request may name: a slow server is not to be silent for so long as to be given up. */
const MOST_A_REQUEST = 250
/** After these a removal may happen yet, so of several failures one of them has to be told. */
const OPEN: readonly ErrorCode[] = ['TARGET_UNREACHABLE', 'TARGET_THROTTLED']

export function openRemovals({ client, name: Bucket, keys, where, during }: Bucket) {
  let knowsBatches = true

  /** The server says the same whether the object was there or not. */
  async function remove(key: Key, { signal, before }: WriteCallOptions = {}): Promise<boolean> {
    await during({ doing: `removing ${key}`, signal }, async (joined) => {
      const command = new DeleteObjectCommand({ Bucket, Key: keys.of(key) })
      beforeEachAttempt(command, before)
      try {
        requireRemoval(key, await client.send(command, { abortSignal: joined }))
      } catch (error) {
        if (!isAbsent(error)) throw error
      }
    })
    return true
  }

  /** The first failure ends it; what is under way by then is waited for, and counts. */
  async function removeEach(all: readonly Key[], options: WriteCallOptions): Promise<RemovedMany> {
    const gone = new Set<Key>()
    const failures: DroverError[] = []
    const removeOne = async (key: Key) => {
      try {
        await remove(key, options)
        gone.add(key)
      } catch (error) {
        failures.push(asFailure(error))
        throw error
      }
    }
    const signal = options.signal ?? new AbortController().signal
    const ended = await runLanes(Array(REMOVERS).fill(0), all.values(), signal, removeOne).then(
      () => undefined,
      asFailure,
    )
    const removed = all.filter((key) => gone.has(key))
    const failure = failures.find(({ code }) => OPEN.includes(code)) ?? ended
    return failure ? { removed, failure } : { removed }
  }

  /** Undefined when the server knows no such request. */
  async function removeBatch(all: readonly Key[], { signal, before }: WriteCallOptions) {
    const Objects = all.map((key) => ({ Key: keys.of(key) }))
    const command = new DeleteObjectsCommand({ Bucket, Delete: { Objects, Quiet: false } })
    beforeEachAttempt(command, before)
    return during({ doing: `removing ${all.length} objects`, signal }, (joined) =>
      client.send(command, { abortSignal: joined }).catch((error: unknown) => {
        if (isNotImplemented(error)) return undefined
        throw error
      }),
    )
  }

  /** Gone is only what the server says is gone. */
  function judged(all: readonly Key[], answer: DeleteObjectsCommandOutput): RemovedMany {
    const { Deleted = [], Errors = [] } = answer
    const gone = new Set(Deleted.map(({ Key }) => Key))
    const codes = new Map<string | undefined, string>()
    for (const { Key, Code = 'Unknown' } of Errors) {
      if (Code === 'NoSuchKey') gone.add(Key)
      else codes.set(Key, Code)
    }
    const isGone = (key: Key) => gone.has(keys.of(key)) && !codes.has(keys.of(key))
    const removed = all.filter(isGone)
    if (removed.length === all.length) return { removed }
    const left = all.length - removed.length
    const [code] = codes.values()
    const refused =
      code === undefined
        ? noServer('not that all objects are gone')
        : Object.assign(new Error(`${left} were refused`), { name: code })
    return { removed, failure: s3Error(refused, `removing ${left} objects`, where) }
  }

  async function removeSome(some: readonly Key[], options: WriteCallOptions): Promise<RemovedMany> {
    try {
      const answer = knowsBatches ? await removeBatch(some, options) : undefined
      knowsBatches = answer !== undefined
      return answer ? judged(some, answer) : await removeEach(some, options)
    } catch (error) {
      return { removed: [], failure: asFailure(error) }
    }
  }

  return {
    remove,

    async removeAll(all: readonly Key[], options: WriteCallOptions = {}): Promise<RemovedMany> {
      throwIfAborted(options.signal)
      const removed: Key[] = []
      for (let from = 0; from < all.length; from += MOST_A_REQUEST) {
        const some = await removeSome(all.slice(from, from + MOST_A_REQUEST), options)
        removed.push(...some.removed)
        if (some.failure) return { removed, failure: some.failure }
      }
      return { removed }
    },
  }
}

/** A failure that is told beside what was removed before it. */
function asFailure(error: unknown): DroverError {
  if (error instanceof DroverError) return error
  throw error
}

/** A page of the web is an answer of 200, too; not all servers give their answers an id. */
function requireRemoval(key: Key, { $metadata }: DeleteObjectCommandOutput): void {
  const { httpStatusCode, requestId } = $metadata
  if (httpStatusCode === 204 || (httpStatusCode === 200 && requestId !== undefined)) return
  throw noServer(`not that ${key} is gone`)
}

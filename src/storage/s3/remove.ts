/** Removing objects, many in one request where the server knows how. */
import { DeleteObjectCommand, DeleteObjectsCommand } from '@aws-sdk/client-s3'
import pLimit from 'p-limit'
import type { Key } from '../../backupstore/layout.ts'
import type { RemovedMany, WriteCallOptions } from '../../backupstore/object-store.ts'
import type { Bucket } from './client.ts'
import { isAbsent, isNotImplemented, s3Error } from './errors.ts'
import { beforeEachAttempt } from './put.ts'

/** Objects removed at once where the server takes one a request. */
const REMOVERS = 8

export function openRemovals({ client, name: Bucket, keys, where, during }: Bucket) {
  let knowsBatches = true

  /** The server says the same whether the object was there or not. */
  async function remove(key: Key, { signal, before }: WriteCallOptions = {}): Promise<boolean> {
    await during({ doing: `removing ${key}`, signal }, async (joined) => {
      const command = new DeleteObjectCommand({ Bucket, Key: keys.of(key) })
      beforeEachAttempt(command, before)
      try {
        await client.send(command, { abortSignal: joined })
      } catch (error) {
        if (!isAbsent(error)) throw error
      }
    })
    return true
  }

  async function removeEach(all: readonly Key[], options: WriteCallOptions): Promise<RemovedMany> {
    await pLimit(REMOVERS).map(all, (key) => remove(key, options))
    return { removed: all }
  }

  /** Undefined when the server knows no such request. */
  async function removeBatch(all: readonly Key[], { signal, before }: WriteCallOptions) {
    const Objects = all.map((key) => ({ Key: keys.of(key) }))
    const command = new DeleteObjectsCommand({ Bucket, Delete: { Objects, Quiet: true } })
    beforeEachAttempt(command, before)
    return during({ doing: `removing ${all.length} objects`, signal }, (joined) =>
      client.send(command, { abortSignal: joined }).catch((error: unknown) => {
        if (isNotImplemented(error)) return undefined
        throw error
      }),
    )
  }

  return {
    remove,

    async removeAll(all: readonly Key[], options: WriteCallOptions = {}): Promise<RemovedMany> {
      const answer = knowsBatches ? await removeBatch(all, options) : undefined
      knowsBatches = answer !== undefined
      if (!answer) return removeEach(all, options)
      const failed = new Map<string, string>()
      for (const { Key = '', Code = 'Unknown' } of answer.Errors ?? []) {
        if (Code !== 'NoSuchKey') failed.set(Key, Code)
      }
      const removed = all.filter((key) => !failed.has(keys.of(key)))
      const [code] = failed.values()
      if (code === undefined) return { removed }
      const refused = Object.assign(new Error(`${failed.size} were refused`), { name: code })
      return { removed, failure: s3Error(refused, `removing ${failed.size} objects`, where) }
    },
  }
}

/** What the steps share: the bucket, objects of their own in it, and what they found out. */
import { createHash, randomBytes } from 'node:crypto'
import type { PutObjectCommandInput } from '@aws-sdk/client-s3'
import { PutObjectCommand } from '@aws-sdk/client-s3'
import type { Key, RunId } from '../../../backupstore/layout.ts'
import { stagingKey } from '../../../backupstore/layout.ts'
import type { StorageSettings } from '../../settings.ts'
import type { Bucket, S3Target } from '../client.ts'
import { openBucket } from '../client.ts'
import { hintsFor } from './hints.ts'
import type { Endpoint } from './proxy.ts'
import { encryptionOf, storageClassOf } from '../put.ts'

/** A block is never larger. */
export const OBJECT_BYTES = 2 * 1024 * 1024
export const MOST_LANES = 8
/** Slower links are none that a backup gets through. */
const SLOWEST_BYTES_PER_MS = 32

/** What a step may take beyond the deadline when it transfers so much. */
export const extraMsFor = (bytes: number): number => bytes / SLOWEST_BYTES_PER_MS

export interface Bench {
  readonly target: S3Target
  readonly settings: StorageSettings
  readonly run: RunId
  readonly bucket: Bucket
  /** Where requests go; known from the first step on. */
  endpoint: Endpoint | undefined
  /** How far the server's clock is ahead of ours, ms; unknown as long as nothing was answered. */
  aheadMs: number | undefined
  /** What may be there now, and has to be removed. */
  readonly written: Set<Key>
  /** Uploads that were begun: their ids by their keys. */
  readonly uploads: Map<Key, string | undefined>
  /** How long the object took. */
  putMs: number | undefined
  readonly object: Buffer
  /** A key of our own; what is put there is removed in the end. */
  keyOf(name: string): Key
  /** The request for an object there, of all that settings and URL ask for. */
  inputOf(key: Key, bytes: Uint8Array): PutObjectCommandInput & { ContentMD5: string }
  /** Puts an object of our own as a backup puts its blocks. */
  put(name: string, bytes: Uint8Array, signal: AbortSignal): Promise<Key>
  hints(...actions: string[]): ReturnType<typeof hintsFor>
}

/** Connects nothing yet. */
export function openBench(target: S3Target, run: RunId, settings: StorageSettings): Bench {
  const concurrency = Math.max(settings.concurrency, MOST_LANES)
  const bucket = openBucket(target, { ...settings, concurrency })
  const written = new Set<Key>()
  const inputOf: Bench['inputOf'] = (key, bytes) => ({
    ...encryptionOf(settings.s3),
    ...storageClassOf(settings.s3),
    Bucket: bucket.name,
    Key: bucket.keys.of(key),
    Body: bytes,
    ContentLength: bytes.length,
    ContentMD5: md5(bytes),
  })
  const keyOf = (name: string) => {
    const key = stagingKey(run, `probe-${name}`)
    written.add(key)
    return key
  }
  return {
    target,
    settings,
    run,
    bucket,
    endpoint: undefined,
    aheadMs: undefined,
    written,
    uploads: new Map(),
    putMs: undefined,
    object: randomBytes(OBJECT_BYTES),
    keyOf,
    inputOf,
    async put(name, bytes, signal) {
      const key = keyOf(name)
      const about = { doing: `writing ${key}`, signal, bytes: bytes.length }
      const command = () => new PutObjectCommand(inputOf(key, bytes))
      await bucket.during(about, (joined) => bucket.client.send(command(), { abortSignal: joined }))
      return key
    },
    hints: (...actions) => hintsFor(target, settings, actions),
  }
}

export const md5 = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('base64')

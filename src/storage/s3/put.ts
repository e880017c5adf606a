/** Writing one object, under a condition where there is one. */
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { DeleteObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import type { PutObjectCommandInput, S3Client } from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import { DroverError, throwIfAborted } from '../../lib/errors.ts'
import type { Key, RunId } from '../../backupstore/layout.ts'
import { BLOCKS_PREFIX, stagingKey } from '../../backupstore/layout.ts'
import type {
  Body,
  CallOptions,
  ObjectInfo,
  PutOptions,
  PutResult,
} from '../../backupstore/object-store.ts'
import type { S3Settings } from '../settings.ts'
import { md5Of, outgoing } from './body.ts'
import { Cut } from './call.ts'
import type { Bucket as BucketConnection } from './client.ts'
import { timeOfAnswer } from './client.ts'
import type { ProbeObject } from './conditions.ts'
import { honoursAbsence, honoursVersion } from './conditions.ts'
import { attemptsOf, isAbsent, isContended, isPassing, isRefusedByCondition } from './errors.ts'
import { etagOf, noServer } from './keys.ts'

/** What every server takes in one PUT. */
const MAX_PUT_BYTES = 5 * 1024 ** 3
/** How long the removal of a probe may take. */
const REMOVE_MS = 5000
/** Larger bodies share the connections that are meant for blocks. */
const SMALL_BYTES = 64 * 1024

export interface PutOf {
  readonly run: RunId
  readonly settings: S3Settings
  readonly stat: (key: Key, options?: CallOptions) => Promise<ObjectInfo | undefined>
  readonly maxPutBytes?: number
}

type Condition = Pick<PutObjectCommandInput, 'IfNoneMatch' | 'IfMatch'>

/** Makes `put` of a store. */
export function openPuts(
  { client, name: Bucket, keys, during, transfers }: BucketConnection,
  { run, settings, stat, maxPutBytes = MAX_PUT_BYTES }: PutOf,
) {
  const inputOf = (key: Key): PutObjectCommandInput => ({
    Bucket,
    Key: keys.of(key),
    ...encryptionOf(settings),
    // a lock lives for minutes, and cold storage charges for a month; a config is read all the time
    ...(key.startsWith(BLOCKS_PREFIX) ? storageClassOf(settings) : {}),
  })

  /** An object that nobody else knows. */
  const probeObject = (name: string, abortSignal: AbortSignal): ProbeObject => {
    const input = inputOf(stagingKey(run, name))
    const bytes = Buffer.from('drover tries out conditional writes')
    const ContentMD5 = createHash('md5').update(bytes).digest('base64')
    return {
      put: (condition) =>
        client.send(new PutObjectCommand({ ...input, ...condition, Body: bytes, ContentMD5 }), {
          abortSignal,
        }),
      // whatever ended the probe; what stays all the same is gc's
      remove: () =>
        client
          .send(new DeleteObjectCommand({ Bucket, Key: input.Key }), {
            abortSignal: AbortSignal.timeout(REMOVE_MS),
          })
          .catch(() => undefined),
    }
  }
  const probing = (name: string, probe: (object: ProbeObject) => Promise<boolean>) =>
    once((signal) =>
      during({ doing: 'trying out conditional writes', signal }, (joined) =>
        probe(probeObject(name, joined)),
      ),
    )
  const onAbsence = probing('probe-absence', honoursAbsence)
  const onVersion = probing('probe-version', honoursVersion)

  /** Undefined when the server cannot be told the condition. */
  const conditionOf = async (
    expect: PutOptions['expect'],
    signal: AbortSignal | undefined,
  ): Promise<Condition | undefined> => {
    if (expect === undefined) return {}
    if (expect === 'absent') return (await onAbsence(signal)) ? { IfNoneMatch: '*' } : undefined
    const etag = etagOf(expect.version)
    return etag !== '' && (await onVersion(signal)) ? { IfMatch: etag } : undefined
  }

  const holds = async (key: Key, expect: PutOptions['expect'], signal?: AbortSignal) => {
    const there = await stat(key, signal ? { signal } : {})
    return typeof expect === 'object' ? there?.version === expect.version : !there
  }

  const send = async (
    key: Key,
    body: Body,
    md5: string,
    condition: Condition,
    options: PutOptions,
  ): Promise<PutResult> => {
    const check = () => {
      throwIfAborted(options.signal)
      options.before?.()
    }
    const about = { doing: `writing ${key}`, signal: options.signal, bytes: body.sizeBytes }
    return during(about, async (given, tries) => {
      const broken = new AbortController()
      const signal = AbortSignal.any([given, broken.signal])
      const Body = outgoing(body, check)
      // a request is not ended by the failure of the stream that feeds it
      if (Body instanceof Readable) Body.once('error', (error) => broken.abort(error))
      const input = { ...inputOf(key), ...condition, Body, ContentLength: body.sizeBytes }
      try {
        if (body.sizeBytes > maxPutBytes) {
          return written(key, body, await inParts(client, { ...inputOf(key), Body }, signal))
        }
        const command = new PutObjectCommand({ ...input, ContentMD5: md5 })
        beforeEachAttempt(command, check)
        return written(key, body, await client.send(command, { abortSignal: signal }))
      } catch (error) {
        if (broken.signal.aborted) throw broken.signal.reason
        const conditional = Object.keys(condition).length > 0
        if (conditional && (isRefusedByCondition(error) || isAbsent(error))) {
          if (isContended(error)) throw new Cut(contended(key, error))
          // the answer that got lost may have been to our own success
          const again = tries > 1 || attemptsOf(error) > 1
          const info = again ? await writtenByUs(key, body, md5, signal) : undefined
          return info ? { written: true, info } : { written: false }
        }
        if (isPassing(error, Body instanceof Readable)) throw new Cut(error)
        throw error
      }
    })
  }

  const writtenByUs = async (key: Key, body: Body, md5: string, signal: AbortSignal) => {
    const there = await stat(key, { signal })
    const etag = `"${Buffer.from(md5, 'base64').toString('hex')}"`
    return there?.sizeBytes === body.sizeBytes && etagOf(there.version) === etag ? there : undefined
  }

  return async (key: Key, body: Body, options: PutOptions = {}): Promise<PutResult> => {
    const { expect, signal } = options
    throwIfAborted(signal)
    keys.of(key)
    const condition = await conditionOf(expect, signal)
    if (!condition && !options.expectIfFree && !(await holds(key, expect, signal))) {
      return { written: false }
    }
    const md5 = await md5Of(body)
    const sending = async () => {
      const result = await send(key, body, md5, condition ?? {}, options)
      if (result.written || !condition?.IfMatch || !(await holds(key, expect, signal)))
        return result
      // refused although it holds: Ceph 16 compares with the bare ETag
      const IfMatch = condition.IfMatch.replaceAll('"', '')
      return send(key, body, md5, { IfMatch }, options)
    }
    return body.sizeBytes > SMALL_BYTES ? transfers(sending) : sending()
  }
}

/** Remembers the answer; a failure is none. */
function once<T>(ask: (signal: AbortSignal | undefined) => Promise<T>) {
  let answer: Promise<T> | undefined
  return (signal: AbortSignal | undefined): Promise<T> => {
    answer ??= ask(signal).catch((error: unknown) => {
      answer = undefined
      throw error
    })
    return answer
  }
}

/** What a command's own middleware is added to. */
interface Asked {
  readonly middlewareStack: {
    add(
      middleware: (next: (args: any) => Promise<any>) => (args: any) => Promise<any>,
      options: { step: 'finalizeRequest'; priority: 'low'; name: string },
    ): void
  }
}

/** Calls `before` directly before each attempt is sent, the SDK's own repetitions included. */
export function beforeEachAttempt(command: Asked, before: (() => void) | undefined): void {
  if (!before) return
  command.middlewareStack.add(
    (next) => async (args) => {
      before()
      return next(args)
    },
    { step: 'finalizeRequest', priority: 'low', name: 'beforeEachAttempt' },
  )
}

/** For a body that no server takes in one piece. */
async function inParts(
  client: S3Client,
  params: PutObjectCommandInput,
  signal: AbortSignal,
): Promise<object> {
  const stop = new AbortController()
  const upload = new Upload({ client, params, abortController: stop })
  const onAbort = () => stop.abort()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await upload.done()
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

function written(
  key: Key,
  { sizeBytes }: Body,
  answer: { readonly $metadata?: object; readonly ETag?: string | undefined },
): PutResult {
  const modifiedAtMs = timeOfAnswer(answer)
  if (Number.isNaN(modifiedAtMs)) throw noServer(`no time of its own with ${key}`)
  if (!answer.ETag) throw noServer(`no ETag of ${key}`)
  return { written: true, info: { key, sizeBytes, modifiedAtMs } }
}

const contended = (key: Key, cause: unknown) =>
  new DroverError('STORE_CHANGED', `others keep writing ${key} at the same time`, {
    retryable: true,
    cause,
  })

export function encryptionOf({ encryption }: S3Settings): Partial<PutObjectCommandInput> {
  if (!encryption) return {}
  const { kind } = encryption
  const key = kind === 'aws:kms' && encryption.keyId ? { SSEKMSKeyId: encryption.keyId } : {}
  return { ServerSideEncryption: kind, ...key }
}

export function storageClassOf({ storageClass }: S3Settings): Partial<PutObjectCommandInput> {
  // the SDK's type knows the classes of its day; servers have their own
  return storageClass === undefined
    ? {}
    : { StorageClass: storageClass as NonNullable<PutObjectCommandInput['StorageClass']> }
}

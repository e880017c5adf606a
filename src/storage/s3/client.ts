/** The one client of a target: how it connects, signs and counts. */
import { createHash } from 'node:crypto'
import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import { getCACertificates } from 'node:tls'
import type { S3ClientConfig } from '@aws-sdk/client-s3'
import { S3Client } from '@aws-sdk/client-s3'
import type { RequestCounts } from '../../backupstore/object-store.ts'
import type { TargetUrl } from '../../backupstore/target-url.ts'
import type { S3Settings, StorageSettings } from '../settings.ts'
import type { During } from './call.ts'
import { openCalls } from './call.ts'
import { statusOf } from './errors.ts'
import { BucketKeys } from './keys.ts'
import type { Pace } from './pace.ts'
import { openPace } from './pace.ts'
import { retryUntilDeadline } from './retry.ts'

/** Connections beside those that carry blocks: locks and listings never wait for a block. */
const SOCKETS_BESIDE = 4
const MAX_CONNECT_MS = 10_000
/** A server that is silent for this part of the deadline is asked once more. */
const SILENCE_PART = 3
/** Whatever the deadline: a lock that is not renewed in time to be tried again would be lost. */
const MAX_SILENCE_MS = 20_000

export type S3Target = Extract<TargetUrl, { kind: 's3' }>

/** A bucket, or a path in it, and the way to it. */
export interface Bucket {
  readonly client: S3Client
  readonly name: string
  readonly keys: BucketKeys
  /** Server and bucket, for errors. */
  readonly where: string
  readonly during: During
  /** As many at once as blocks may be. */
  readonly transfers: <T>(work: () => Promise<T>) => Promise<T>
  readonly requests: () => RequestCounts
  close(): void
}

/** Connects nothing yet. */
export function openBucket(
  { region, bucket, path }: S3Target,
  { s3, callTimeoutMs, concurrency }: StorageSettings,
): Bucket {
  const pace = openPace(concurrency)
  const met: Met = { counts: {}, answered: false, pace }
  const client = new S3Client({
    ...identity(s3, region),
    ...(s3.endpoint === undefined ? {} : { endpoint: s3.endpoint }),
    forcePathStyle: !s3.virtualHosted,
    // servers other than AWS refuse the checksums that the SDK likes to add
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // one round trip a request
    expectContinueHeader: false,
    retryStrategy: retryUntilDeadline(() => met.answered),
    requestHandler: {
      connectionTimeout: Math.min(MAX_CONNECT_MS, callTimeoutMs / SILENCE_PART),
      socketTimeout: Math.min(MAX_SILENCE_MS, callTimeoutMs / SILENCE_PART),
      ...agents(s3, concurrency + SOCKETS_BESIDE),
    },
    logger: SILENT,
  })
  observeRequests(client, met)
  sendMd5OfDeletions(client)
  signBodiesByTheirMd5(client)
  const where = `${s3.endpoint ?? 'S3'} (bucket ${bucket})`
  return {
    client,
    name: bucket,
    keys: new BucketKeys(path),
    where,
    during: openCalls({
      where,
      timeoutMs: callTimeoutMs,
      credentials: () => client.config.credentials(),
    }),
    transfers: pace.transfers,
    requests: () => ({ ...met.counts }),
    close: () => client.destroy(),
  }
}

/** What was seen of the server so far. */
interface Met {
  readonly counts: Record<string, number>
  answered: boolean
  readonly pace: Pace
}

/** The SDK writes warnings to the console where it is given no logger; what matters it throws. */
const SILENT = {
  trace: () => undefined,
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
}

function identity(s3: S3Settings, region: string | undefined): S3ClientConfig {
  // servers of one place take any region, and most say this one
  const known = region ?? s3.region ?? (s3.endpoint === undefined ? undefined : 'us-east-1')
  return {
    ...(known === undefined ? {} : { region: known }),
    ...(s3.credentials === undefined ? {} : { credentials: s3.credentials }),
  }
}

function agents({ ca, proxy }: S3Settings, maxSockets: number) {
  const options = { keepAlive: true, maxSockets, proxyEnv: { ...proxy } }
  const trusted = trustedWith(ca)
  return {
    httpAgent: new HttpAgent(options),
    httpsAgent: new HttpsAgent({ ...options, ...(trusted ? { ca: trusted } : {}) }),
  }
}

/** Certificates to trust; undefined for those that Node trusts anyway. */
export const trustedWith = (ca: string | undefined): string[] | undefined =>
  ca === undefined
    ? undefined
    : [...getCACertificates('default'), ...getCACertificates('system'), ca]

/** The server's time of each answer, by its metadata. */
const dates = new WeakMap<object, number>()

/** The server's time when it gave this answer, ms since 1970; NaN when it did not tell. */
export const timeOfAnswer = (answer: { readonly $metadata?: object }): number =>
  (answer.$metadata && dates.get(answer.$metadata)) ?? Number.NaN

/** Inside of the retries: each attempt is a request. */
function observeRequests(client: S3Client, met: Met): void {
  client.middlewareStack.add(
    (next, context) => async (args) => {
      const kind = (context.commandName ?? 'Unknown').replace(/Command$/, '')
      met.counts[kind] = (met.counts[kind] ?? 0) + 1
      try {
        const result = await next(args)
        met.answered = true
        met.pace.succeeded()
        const { headers } = result.response as { headers?: Record<string, string> }
        const metadata: object | undefined = result.output?.$metadata
        if (metadata) dates.set(metadata, Date.parse(headers?.['date'] ?? ''))
        return result
      } catch (error) {
        const status = statusOf(error)
        met.answered ||= status !== undefined
        if (status === 429 || status === 503) met.pace.throttled()
        throw error
      }
    },
    { step: 'deserialize', priority: 'high', name: 'observeRequests' },
  )
}

/** What a middleware sees of a request. */
interface Outgoing {
  headers: Record<string, string>
  body?: unknown
}

/** A batch of deletions must carry a checksum, and MD5 is the one that every server knows. */
function sendMd5OfDeletions(client: S3Client): void {
  client.middlewareStack.add(
    (next, context) => (args) => {
      const request = args.request as Outgoing
      if (context.commandName === 'DeleteObjectsCommand' && typeof request.body === 'string') {
        for (const name of Object.keys(request.headers)) {
          if (/^x-amz-(sdk-)?checksum-/i.test(name)) delete request.headers[name]
        }
        request.headers['content-md5'] = createHash('md5').update(request.body).digest('base64')
      }
      return next(args)
    },
    { step: 'build', priority: 'low', name: 'md5OfDeletions' },
  )
}

/**
 * The signature covers all headers, Content-MD5 among them, so the body need not be hashed once
 * more for it.
 */
function signBodiesByTheirMd5(client: S3Client): void {
  client.middlewareStack.add(
    (next) => (args) => {
      const { headers } = args.request as Outgoing
      const hasMd5 = Object.keys(headers).some((name) => name.toLowerCase() === 'content-md5')
      if (hasMd5) headers['x-amz-content-sha256'] = 'UNSIGNED-PAYLOAD'
      return next(args)
    },
    { step: 'build', priority: 'low', name: 'unsignedPayload' },
  )
}

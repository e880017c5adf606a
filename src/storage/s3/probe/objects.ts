/** What every backup and restore needs of a bucket: list, delete, put, get; and the server's clock. */
import { GetObjectCommand, ListObjectsV2Command, PutObjectCommand } from '@aws-sdk/client-s3'
import { formatDuration } from '../../../lib/duration.ts'
import { DroverError } from '../../../lib/errors.ts'
import { IMAGES_PREFIX, STORE_PREFIX, stagingKey } from '../../../backupstore/layout.ts'
import { rateOf } from '../../doctor/speed.ts'
import type { Finding, Step } from '../../doctor/steps.ts'
import { readBody } from '../body.ts'
import { statusOf } from '../errors.ts'
import { aheadBy } from './answers.ts'
import type { Bench } from './bench.ts'
import { OBJECT_BYTES, extraMsFor, md5 } from './bench.ts'
import { openReads } from '../read.ts'
import { openRemovals } from '../remove.ts'

const CLOCK_WARNING_MS = 5000
/** Servers refuse what is signed at another time. */
const CLOCK_FAILURE_MS = 15 * 60_000

export const objectSteps = (bench: Bench): Step[] => [
  {
    name: 'list',
    needs: ['connection', 'credentials'],
    hintFor: bench.hints('s3:ListBucket'),
    // who may not list may still be allowed the rest
    hinders: ({ code }) => code !== 'TARGET_FORBIDDEN',
    run: (signal) => list(bench, signal),
  },
  {
    name: 'clock',
    needs: ['connection'],
    hintFor: bench.hints(),
    run: () => Promise.resolve(clock(bench)),
  },
  {
    name: 'delete',
    needs: ['list'],
    hintFor: bench.hints('s3:DeleteObject'),
    run: (signal) => remove(bench, signal),
  },
  {
    name: 'put',
    // nothing is written that could not be removed
    needs: ['delete'],
    extraMs: extraMsFor(OBJECT_BYTES),
    hintFor: bench.hints('s3:PutObject'),
    run: (signal) => put(bench, signal),
  },
  {
    name: 'get',
    needs: ['put'],
    extraMs: extraMsFor(OBJECT_BYTES),
    hintFor: bench.hints('s3:GetObject'),
    run: (signal) => get(bench, signal),
  },
  {
    name: 'upload check',
    needs: ['put'],
    hintFor: bench.hints('s3:PutObject'),
    run: (signal) => uploadCheck(bench, signal),
  },
]

async function list(bench: Bench, signal: AbortSignal): Promise<Finding> {
  const { bucket } = bench
  const Prefix = bucket.keys.ofPrefix(IMAGES_PREFIX)
  const command = new ListObjectsV2Command({ Bucket: bucket.name, Prefix, MaxKeys: 1 })
  const answer = await bucket.during({ doing: `listing ${STORE_PREFIX}`, signal }, (joined) =>
    bucket.client.send(command, { abortSignal: joined }).catch((error: unknown) => {
      bench.aheadMs = aheadBy(error)
      throw error
    }),
  )
  bench.aheadMs = aheadBy(answer)
  const hasImages = (answer.Contents?.length ?? 0) > 0
  const message = hasImages ? 'a store with images is there' : 'no image is there yet'
  return { verdict: 'ok', message, details: { hasImages } }
}

function clock({ aheadMs }: Bench): Finding {
  if (aheadMs === undefined) {
    return { verdict: 'skipped', message: "no answer told the server's time" }
  }
  const apartMs = Math.abs(aheadMs)
  const details = { aheadSeconds: Math.round(aheadMs / 1000) }
  if (apartMs <= CLOCK_WARNING_MS) {
    return { verdict: 'ok', message: 'differs by no more than a few seconds', details }
  }
  const side = aheadMs < 0 ? 'ahead of' : 'behind'
  return {
    verdict: apartMs > CLOCK_FAILURE_MS ? 'failed' : 'warning',
    message: `the clock of this machine is ${formatDuration(apartMs)} ${side} the server's`,
    hint: 'set the clocks of both, best by NTP: locks are judged by their age, and signatures by their time',
    details,
  }
}

/** An object that is not there: who may not delete is told so all the same. */
async function remove(bench: Bench, signal: AbortSignal): Promise<Finding> {
  await openRemovals(bench.bucket).remove(stagingKey(bench.run, 'probe-absent'), { signal })
  return { verdict: 'ok', message: 'is allowed' }
}

async function put(bench: Bench, signal: AbortSignal): Promise<Finding> {
  const { bucket, object, settings } = bench
  const key = bench.keyOf('object')
  const startMs = performance.now()
  const about = { doing: `writing ${key}`, signal, bytes: object.length }
  const answer = await bucket.during(about, (joined) =>
    bucket.client.send(new PutObjectCommand(bench.inputOf(key, object)), { abortSignal: joined }),
  )
  const ms = performance.now() - startMs
  bench.putMs = ms
  const message = `${object.length} bytes with their MD5, ${rateOf({ bytes: object.length, ms })}`
  const wanted = settings.s3.encryption?.kind
  const details = { encryption: answer.ServerSideEncryption ?? null }
  if (wanted !== undefined && answer.ServerSideEncryption !== wanted) {
    return {
      verdict: 'warning',
      message: `${message}; the server does not say that it encrypts with ${wanted}`,
      hint: 'unset DROVER_S3_SSE, or use a server that encrypts: what is stored there may be readable',
      details,
    }
  }
  if (answer.VersionId !== undefined && answer.VersionId !== 'null') {
    return {
      verdict: 'warning',
      message: `${message}; the bucket keeps old versions of what is deleted`,
      hint: 'give the bucket a lifecycle rule that removes old versions, or they fill it',
      details: { ...details, versioned: true },
    }
  }
  return { verdict: 'ok', message, details }
}

async function get(bench: Bench, signal: AbortSignal): Promise<Finding> {
  const { bucket, object } = bench
  const key = bench.keyOf('object')
  const into = Buffer.alloc(object.length)
  const startMs = performance.now()
  const length = await openReads(bucket).readInto(key, into, { signal })
  const ms = performance.now() - startMs
  if (length !== object.length || !into.equals(object)) {
    throw new DroverError(
      'TARGET_UNREACHABLE',
      `what was read is not what was written: expected the same ${object.length} bytes, got ${length ?? 0}`,
    )
  }
  const message = `the same bytes, ${rateOf({ bytes: object.length, ms })}`
  if (await honoursRange(bench, signal)) return { verdict: 'ok', message }
  return {
    verdict: 'warning',
    message: `${message}; a part of it cannot be asked for`,
    hint: 'look for a proxy on the way that drops Range: looking at an object transfers all of it',
  }
}

async function honoursRange(bench: Bench, signal: AbortSignal): Promise<boolean> {
  const { bucket, object } = bench
  const Key = bucket.keys.of(bench.keyOf('object'))
  const command = new GetObjectCommand({ Bucket: bucket.name, Key, Range: 'bytes=0-0' })
  const about = { doing: 'reading the first byte', signal, bytes: object.length }
  return bucket.during(about, async (joined) => {
    const { Body, ContentLength } = await bucket.client.send(command, { abortSignal: joined })
    const bytes: number[] = []
    await readBody(Body, ContentLength, joined, (chunk) => bytes.push(...chunk.subarray(0, 2)))
    return ContentLength === 1 && bytes[0] === object[0]
  })
}

/** An object whose MD5 is another one must not be taken. */
async function uploadCheck(bench: Bench, signal: AbortSignal): Promise<Finding> {
  const { bucket } = bench
  const bytes = Buffer.from('drover tries out whether uploads are checked')
  const key = bench.keyOf('wrong-md5')
  const ContentMD5 = md5(Buffer.from('of other bytes'))
  const command = new PutObjectCommand({ ...bench.inputOf(key, bytes), ContentMD5 })
  const isTaken = await bucket.during({ doing: `writing ${key}`, signal }, async (joined) => {
    try {
      await bucket.client.send(command, { abortSignal: joined })
      return true
    } catch (error) {
      if (isRefusedDigest(error)) return false
      throw error
    }
  })
  if (!isTaken) return { verdict: 'ok', message: 'what was changed on the way is refused' }
  return {
    verdict: 'warning',
    message: 'the server takes an object whose MD5 is another one: it does not check uploads',
    hint: 'use https://, and verify backups: bytes that change on the way are found out then only',
  }
}

const isRefusedDigest = (error: unknown): boolean =>
  [400, 412, 422].includes(statusOf(error) ?? 0) ||
  (error instanceof Error && error.name.includes('Digest'))

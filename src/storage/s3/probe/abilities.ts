/** What servers differ in, and what is done without it. */
import { DeleteObjectCommand, DeleteObjectsCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import type { Finding, Step } from '../../doctor/steps.ts'
import type { ProbeObject } from '../conditions.ts'
import { honoursAbsence, honoursVersion } from '../conditions.ts'
import { isNotImplemented, s3Error } from '../errors.ts'
import type { Bench } from './bench.ts'
import { extraMsFor } from './bench.ts'
import { openReads } from '../read.ts'

const PART_BYTES = 5 * 1024 * 1024
const UPLOAD_BYTES = 6 * 1024 * 1024

export const abilitySteps = (bench: Bench): Step[] => [
  {
    name: 'create once',
    needs: ['put'],
    hintFor: bench.hints('s3:PutObject', 's3:DeleteObject'),
    run: (signal) => createOnce(bench, signal),
  },
  {
    name: 'replace known',
    needs: ['put'],
    hintFor: bench.hints('s3:PutObject', 's3:DeleteObject'),
    run: (signal) => replaceKnown(bench, signal),
  },
  {
    name: 'batch delete',
    needs: ['put'],
    hintFor: bench.hints('s3:DeleteObject'),
    run: (signal) => batchDelete(bench, signal),
  },
  {
    name: 'multipart',
    needs: ['put'],
    extraMs: extraMsFor(UPLOAD_BYTES),
    hintFor: bench.hints('s3:PutObject', 's3:AbortMultipartUpload'),
    run: (signal) => multipart(bench, signal),
  },
]

async function createOnce(bench: Bench, signal: AbortSignal): Promise<Finding> {
  if (await tried(bench, 'create', honoursAbsence, signal)) {
    return { verdict: 'ok', message: 'only what is not there yet is written (If-None-Match)' }
  }
  return {
    verdict: 'warning',
    message:
      'the server does not honour If-None-Match: two racing backups of one name may overwrite each other',
    hint: 'never let two backups of one name run at the same time, or use a server with conditional writes',
  }
}

async function replaceKnown(bench: Bench, signal: AbortSignal): Promise<Finding> {
  if (await tried(bench, 'replace', honoursVersion, signal)) {
    return { verdict: 'ok', message: 'only the version that is known is replaced (If-Match)' }
  }
  return {
    verdict: 'warning',
    message:
      'the server does not honour If-Match: two racing runs with --replace may overwrite each other',
    hint: 'never let two backups of one name run at the same time, or use a server with conditional writes',
  }
}

function tried(
  bench: Bench,
  name: string,
  probe: (object: ProbeObject) => Promise<boolean>,
  signal: AbortSignal,
): Promise<boolean> {
  const { bucket } = bench
  const key = bench.keyOf(name)
  const input = bench.inputOf(key, Buffer.from('drover tries out conditional writes'))
  return bucket.during({ doing: 'trying out conditional writes', signal }, (abortSignal) => {
    const { Bucket, Key } = input
    return probe({
      put: (condition) =>
        bucket.client.send(new PutObjectCommand({ ...input, ...condition }), { abortSignal }),
      remove: () => bucket.client.send(new DeleteObjectCommand({ Bucket, Key }), { abortSignal }),
    })
  })
}

async function batchDelete(bench: Bench, signal: AbortSignal): Promise<Finding> {
  const { bucket } = bench
  const names = ['batch-1', 'batch-2', 'batch-3']
  const keys = names.map((name) => bench.keyOf(name))
  for (const name of names) await bench.put(name, Buffer.from(name), signal)
  const Objects = keys.map((key) => ({ Key: bucket.keys.of(key) }))
  const command = new DeleteObjectsCommand({
    Bucket: bucket.name,
    Delete: { Objects, Quiet: true },
  })
  const doing = `removing ${keys.length} objects`
  const answer = await bucket.during({ doing, signal }, (joined) =>
    bucket.client.send(command, { abortSignal: joined }).catch((error: unknown) => {
      if (isNotImplemented(error)) return undefined
      throw error
    }),
  )
  const [refused] = answer?.Errors ?? []
  if (refused) {
    const error = Object.assign(new Error('refused'), { name: refused.Code ?? 'Unknown' })
    throw s3Error(error, doing, bucket.where)
  }
  if (!answer) {
    return {
      verdict: 'warning',
      message: 'the server has no DeleteObjects: objects are removed one by one, which is slower',
      hint: 'nothing needs doing; gc and delete take more requests',
    }
  }
  const left = await openReads(bucket).stat(keys[0] ?? '', { signal })
  if (!left) return { verdict: 'ok', message: `${keys.length} objects went in one request` }
  return {
    verdict: 'failed',
    message: 'the server says that objects are removed, and they are there',
    hint: 'see whether the bucket has a lock or legal hold, or whether the server is broken',
  }
}

/** Other servers fail at it in many ways, and none of them matters for blocks and configs. */
async function multipart(bench: Bench, signal: AbortSignal): Promise<Finding> {
  try {
    await uploadInParts(bench, signal)
    return { verdict: 'ok', message: `${UPLOAD_BYTES} bytes went in two parts` }
  } catch (error) {
    if (signal.aborted) throw error
    const { message } = s3Error(error, 'uploading in parts', bench.bucket.where)
    return {
      verdict: 'warning',
      message: `uploads in parts do not work: ${message}`,
      hint: 'nothing needs doing: Drover needs this for objects above 5 GiB only, and makes none',
    }
  }
}

async function uploadInParts(bench: Bench, signal: AbortSignal): Promise<void> {
  const { bucket } = bench
  const key = bench.keyOf('multipart')
  const {
    ContentMD5: _,
    ContentLength: __,
    ...params
  } = bench.inputOf(key, Buffer.alloc(UPLOAD_BYTES))
  // the library has no way to cancel a request that is under way
  const client: typeof bucket.client = Object.create(bucket.client)
  const send = (command: Parameters<typeof bucket.client.send>[0]) =>
    bucket.client.send(command, { abortSignal: signal })
  Object.assign(client, { send })
  const upload = new Upload({ client, params, partSize: PART_BYTES, queueSize: 1 })
  bench.uploads.set(key, undefined)
  try {
    await upload.done()
    bench.uploads.delete(key)
  } catch (error) {
    bench.uploads.set(key, upload.uploadId)
    throw error
  }
}

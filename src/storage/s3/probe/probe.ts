/** The steps in which a bucket is looked over, from its name to its speed. */
import {
  AbortMultipartUploadCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
} from '@aws-sdk/client-s3'
import { DroverError, isDroverError } from '../../../lib/errors.ts'
import type { RunId } from '../../../backupstore/layout.ts'
import { stagingKey } from '../../../backupstore/layout.ts'
import type { StorageSettings } from '../../settings.ts'
import type { Finding, Probe } from '../../doctor/steps.ts'
import type { S3Target } from '../client.ts'
import { isAbsent } from '../errors.ts'
import { abilitySteps } from './abilities.ts'
import type { Bench } from './bench.ts'
import { openBench } from './bench.ts'
import { connectionSteps } from './connection.ts'
import { objectSteps } from './objects.ts'
import { speedSteps } from './speed.ts'
import { openRemovals } from '../remove.ts'

/** Connects nothing before the first step. */
export function s3Probe(target: S3Target, run: RunId, settings: StorageSettings): Probe {
  const bench = openBench(target, run, settings)
  const steps = [
    ...connectionSteps(bench),
    ...objectSteps(bench),
    ...abilitySteps(bench),
    ...speedSteps(bench),
  ]
  const tell = bench.hints('s3:DeleteObject', 's3:AbortMultipartUpload')
  const cleanUp = {
    name: 'clean-up',
    always: true,
    hintFor: (error: DroverError) => `${tell(error)}; drover gc removes what is left, too`,
    run: (signal: AbortSignal) => tidy(bench, signal),
  } as const
  return {
    steps: [...steps, cleanUp],
    requests: bench.bucket.requests,
    close: () => bench.bucket.close(),
  }
}

async function tidy(bench: Bench, signal: AbortSignal): Promise<Finding> {
  const { written, uploads } = bench
  if (written.size === 0 && uploads.size === 0) {
    return { verdict: 'skipped', message: 'nothing was written' }
  }
  for (const [key, id] of await leftUploads(bench, signal)) await abort(bench, key, id, signal)
  const there = await leftObjects(bench, signal)
  const keys = [...new Set([...written, ...(there ?? [])])]
  const { failure } = await openRemovals(bench.bucket).removeAll(keys, { signal })
  if (failure) throw failure
  const left = there && (await leftObjects(bench, signal))
  if (left && left.length > 0) {
    throw new DroverError(
      'STORE_CHANGED',
      `${left.length} objects below ${folderOf(bench)} are still there, as ${left[0]}`,
    )
  }
  return { verdict: 'ok', message: 'all that was written is removed' }
}

const folderOf = ({ run }: Bench): string => stagingKey(run, '')

/** Keys below the folder of this run; undefined for who may not list. */
async function leftObjects(bench: Bench, signal: AbortSignal): Promise<string[] | undefined> {
  const { bucket } = bench
  const folder = folderOf(bench)
  const Prefix = bucket.keys.ofPrefix(folder)
  const command = new ListObjectsV2Command({ Bucket: bucket.name, Prefix, EncodingType: 'url' })
  try {
    const page = await bucket.during({ doing: `listing ${folder}`, signal }, (joined) =>
      bucket.client.send(command, { abortSignal: joined }),
    )
    return bucket.keys.pageOf(page, folder).map(({ key }) => key)
  } catch (error) {
    if (isDroverError(error, 'TARGET_FORBIDDEN')) return undefined
    throw error
  }
}

/** Uploads that were begun and not ended, by their keys in the bucket. */
async function leftUploads(
  { bucket, uploads, run }: Bench,
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  if (uploads.size === 0) return found
  for (const [key, id] of uploads) if (id !== undefined) found.set(bucket.keys.of(key), id)
  const Prefix = bucket.keys.ofPrefix(stagingKey(run, ''))
  const command = new ListMultipartUploadsCommand({ Bucket: bucket.name, Prefix })
  try {
    const { Uploads = [] } = await bucket.during({ doing: 'listing uploads', signal }, (joined) =>
      bucket.client.send(command, { abortSignal: joined }),
    )
    for (const { Key, UploadId } of Uploads) {
      if (Key?.startsWith(Prefix) && UploadId !== undefined) found.set(Key, UploadId)
    }
  } catch (error) {
    // not every server has this, and not everybody may ask
    if (signal.aborted) throw error
  }
  return found
}

async function abort(
  { bucket }: Bench,
  Key: string,
  UploadId: string,
  signal: AbortSignal,
): Promise<void> {
  const command = new AbortMultipartUploadCommand({ Bucket: bucket.name, Key, UploadId })
  await bucket.during({ doing: `giving up the upload of ${Key}`, signal }, (joined) =>
    bucket.client.send(command, { abortSignal: joined }).catch((error: unknown) => {
      if (!isGone(error)) throw error
    }),
  )
}

const isGone = (error: unknown): boolean =>
  isAbsent(error) || (error instanceof Error && error.name === 'NoSuchUpload')

/**
 * A bucket, or a path in it, as a store. Objects appear whole by themselves here, so nothing is
 * staged: a block is one PUT of known length, and a config is one, too.
 *
 * What is asked for is counted, because it is paid for. Facts about an object are asked for by a
 * GET of its first byte instead of a HEAD: the answer to a HEAD has no body, so that a wrong key, a
 * wrong clock and a missing bucket would all look the same.
 */
import { ListObjectsV2Command } from '@aws-sdk/client-s3'
import type { RunId } from '../../backupstore/layout.ts'
import type { ObjectStore } from '../../backupstore/object-store.ts'
import type { StorageSettings } from '../settings.ts'
import type { S3Target } from './client.ts'
import { openBucket } from './client.ts'
import { senseless } from './keys.ts'
import { openPuts } from './put.ts'
import { openReads } from './read.ts'
import { openRemovals } from './remove.ts'

/** Connects nothing before it is asked for something. */
export function openS3Store(target: S3Target, run: RunId, settings: StorageSettings): ObjectStore {
  const bucket = openBucket(target, settings)
  const { client, name: Bucket, keys, during } = bucket
  const reads = openReads(bucket)
  return {
    sendsMd5: true,
    requests: bucket.requests,
    ...reads,
    ...openRemovals(bucket),
    put: openPuts(bucket, { run, settings: settings.s3, stat: reads.stat }),

    async *list(prefix, options = {}) {
      const Prefix = keys.ofPrefix(prefix)
      for (let token: string | undefined, more = true; more;) {
        const asked = token === undefined ? {} : { ContinuationToken: token }
        const command = new ListObjectsV2Command({ Bucket, Prefix, EncodingType: 'url', ...asked })
        const about = { doing: `listing ${prefix}`, signal: options.signal }
        const page = await during(about, (signal) => client.send(command, { abortSignal: signal }))
        const infos = keys.pageOf(page, prefix)
        if (infos.length > 0) yield infos
        const next = page.NextContinuationToken
        // who names a next page has one, whatever else is left out
        more = page.IsTruncated ?? next !== undefined
        if (more && (next === undefined || next === token)) throw senseless('no next page')
        token = next
      }
    },

    close: () => Promise.resolve(bucket.close()),
  }
}

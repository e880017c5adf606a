/** S3 targets as Drover is told of them: settings for the driver, environments for the program. */
import { randomBytes } from 'node:crypto'
import type { RunId } from '../../../src/backupstore/layout.ts'
import type { ObjectStore } from '../../../src/backupstore/object-store.ts'
import { parseTargetUrl } from '../../../src/backupstore/target-url.ts'
import { openS3Store } from '../../../src/storage/s3/s3-store.ts'
import type { S3Settings, StorageSettings } from '../../../src/storage/settings.ts'
import type { S3Keys } from './admin.ts'

export interface Server {
  readonly url: string
  readonly keys: S3Keys
}

export type Overrides = Partial<S3Settings> & {
  readonly callTimeoutMs?: number
  readonly concurrency?: number
}

export function settingsFor(
  { url, keys }: Server,
  { callTimeoutMs = 20_000, concurrency = 8, ...s3 }: Overrides = {},
): StorageSettings {
  return {
    callTimeoutMs,
    concurrency,
    s3: {
      credentials: keys,
      region: undefined,
      endpoint: url,
      ca: undefined,
      proxy: {},
      virtualHosted: false,
      encryption: undefined,
      storageClass: undefined,
      ...s3,
    },
    nfs: { mountDir: '/nowhere' },
  }
}

/** @param target as `s3://bucket@region/path` */
export function openTarget(target: string, server: Server, overrides?: Overrides): ObjectStore {
  const url = parseTargetUrl(target)
  if (url.kind !== 's3') throw new Error(`${target} is no S3 target`)
  const run = randomBytes(8).toString('hex') as RunId
  return openS3Store(url, run, settingsFor(server, overrides))
}

/** Variables that would make a run depend on the machine of the test. */
const FOREIGN = /^(AWS_|HTTPS?_PROXY$|NO_PROXY$|VIRTUAL_HOSTED_STYLE$|DROVER_S3_)/i

/** An environment for a run of the program: this server's, and nothing of the surroundings. */
export function environmentFor(
  server: Server,
  more: Record<string, string | undefined> = {},
): Record<string, string | undefined> {
  return {
    ...withoutForeign(),
    AWS_ENDPOINTS: server.url,
    AWS_ACCESS_KEY_ID: server.keys.accessKeyId,
    AWS_SECRET_ACCESS_KEY: server.keys.secretAccessKey,
    ...more,
  }
}

/** Takes away what the machine of the test says of AWS, its files and its metadata included. */
export function withoutForeign(): Record<string, string | undefined> {
  const foreign = Object.keys(process.env).filter((name) => FOREIGN.test(name))
  return {
    ...Object.fromEntries(foreign.map((name) => [name, undefined])),
    AWS_EC2_METADATA_DISABLED: 'true',
    AWS_CONFIG_FILE: '/dev/null',
    AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
  }
}

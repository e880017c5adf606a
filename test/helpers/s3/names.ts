/** What the servers of tests and the proxies before them agree on. */
import type { S3Keys } from './admin.ts'

/** Buckets are also found at `<bucket>.s3.localhost`. */
export const DNS_NAME = 's3.localhost'

/** Of the user who may do everything. */
export const KEYS: S3Keys = { accessKeyId: 'AKTEST', secretAccessKey: 'SKTEST' }

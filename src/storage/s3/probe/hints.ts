/** What to do about an error of a step, as exactly as it can be said. */
import type { DroverError, ErrorCode } from '../../../lib/errors.ts'
import type { S3Settings, StorageSettings } from '../../settings.ts'
import type { S3Target } from '../client.ts'
import { headerOf } from './answers.ts'

const HINTS: Partial<Record<ErrorCode, string>> = {
  INVALID_CONFIG: 'name the region in the URL, as in s3://bucket@region/path, or in AWS_REGION',
  TARGET_NOT_FOUND:
    'make the bucket first, or check its name in the URL, and AWS_ENDPOINTS: it may be another server',
  TARGET_CREDENTIALS:
    'check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the role that this machine has',
  TARGET_SIGNATURE:
    'check AWS_SECRET_ACCESS_KEY; if it is right, see whether a proxy on the way changes requests',
  TARGET_CLOCK_SKEW: 'set the clock of this machine, best by NTP',
  TARGET_UNTRUSTED:
    "put the certificate of the server's authority into AWS_CERT, as PEM or base64 of it, and check that the endpoint's name is one of the certificate's",
  TARGET_THROTTLED: 'try later, or ask for higher limits; use a low --concurrency',
  TARGET_UNREACHABLE:
    'check AWS_ENDPOINTS and the network between, and HTTPS_PROXY where a proxy is needed',
  TARGET_UNSUPPORTED: 'use a server that has this, or a newer version of it',
  NO_SPACE: 'make room at the server, or raise the quota of the user or bucket',
  OBJECT_UNREADABLE: 'take a DROVER_S3_STORAGE_CLASS whose objects can be read at once',
  STORE_CHANGED: 'run it again',
}

/**
 * @param actions what the user or role must be allowed, as `s3:PutObject`; on the bucket for those
 * that list, else on the objects of the store
 */
export function hintsFor(target: S3Target, { s3 }: StorageSettings, actions: readonly string[]) {
  return (error: DroverError): string => {
    const region = headerOf(error, 'x-amz-bucket-region')
    if (error.code === 'TARGET_WRONG_REGION') {
      return `name the bucket's region in the URL: s3://${target.bucket}@${region ?? '<region>'}/${target.path}`
    }
    if (error.code === 'TARGET_FORBIDDEN') {
      const key = s3.encryption?.kind === 'aws:kms' ? KMS : ''
      return `allow ${actions.join(' and ')} on ${resourceOf(target, actions)}, in the policy of the user or role, and in that of the bucket if it has one${key}`
    }
    if (error.code === 'TARGET_UNREACHABLE' && isRefusal(error)) return refusalHint(s3)
    return HINTS[error.code] ?? 'run it again with --debug, and report what it says'
  }
}

/** The server answered, and did not want the request for a reason that only it knows. */
const isRefusal = ({ details: { status } }: DroverError): boolean =>
  typeof status === 'number' && status >= 400 && status < 500

function refusalHint({ encryption, storageClass }: S3Settings): string {
  const asked = [
    ...(encryption ? ['DROVER_S3_SSE'] : []),
    ...(storageClass === undefined ? [] : ['DROVER_S3_STORAGE_CLASS']),
  ]
  return asked.length > 0
    ? `unset ${asked.join(' and ')}, or see what the server takes there`
    : "the log of the server tells why it refuses this; see also whether AWS_ENDPOINTS is an S3 server's"
}

const KMS = '; and kms:GenerateDataKey and kms:Decrypt on the key'

function resourceOf({ bucket, path }: S3Target, actions: readonly string[]): string {
  const ofBucket = actions.some((action) => action.startsWith('s3:List'))
  if (ofBucket) return `arn:aws:s3:::${bucket}`
  return `arn:aws:s3:::${bucket}/${path === '' ? '' : `${path}/`}backupstore/*`
}

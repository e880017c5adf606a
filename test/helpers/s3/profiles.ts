/**
 * Servers that cannot be had here, as far as they differ from the one behind the proxy. Each says
 * what it refuses, or what it does to the headers on their way.
 */
import type { Fault } from './faults.ts'
import type { S3Request } from './operation.ts'

export interface Profile {
  /** What is refused, before anything else. */
  readonly answer?: (request: S3Request) => Fault | undefined
  /** Headers as the server behind gets them: names and values in turns. */
  readonly headers?: (raw: readonly string[]) => readonly string[]
  /** The server accepts the request all the same: what is left of it is signed again. */
  readonly signsAgain?: true
}

const refuse = (status: number, code: string): Fault => ({ kind: 'answer', status, code })

const isConditional = ({ operation, headers }: S3Request): boolean =>
  (operation === 'PutObject' || operation === 'CompleteMultipartUpload') &&
  (headers['if-none-match'] !== undefined || headers['if-match'] !== undefined)

const hasNewChecksum = ({ headers }: S3Request): boolean =>
  Object.keys(headers).some((name) => /^x-amz-(checksum-|trailer$|sdk-checksum-)/.test(name))

export const profiles = {
  /** Older Ceph, and many look-alikes: they know no checksum but Content-MD5. */
  'no-trailer-checksums': {
    answer(request) {
      if (request.headers['content-encoding']?.includes('aws-chunked')) {
        return refuse(411, 'MissingContentLength')
      }
      return hasNewChecksum(request) ? refuse(400, 'InvalidRequest') : undefined
    },
  },

  /** Google's, and some proxies: a signature that covers Accept-Encoding does not fit any more. */
  'altered-accept-encoding': {
    headers: (raw) => replaced(raw, 'accept-encoding', 'gzip, identity;q=0.9'),
  },

  /** Google's: no batch deletes. */
  'no-delete-objects': {
    answer: ({ operation }) =>
      operation === 'DeleteObjects' ? refuse(501, 'NotImplemented') : undefined,
  },

  /** Many look-alikes: they write all the same. */
  'no-conditional-writes-ignored': {
    headers: (raw) => without(raw, /^if-(none-)?match$/),
    signsAgain: true,
  },

  'no-conditional-writes-refused': {
    answer: (request) => (isConditional(request) ? refuse(501, 'NotImplemented') : undefined),
  },

  /** Older MinIO and Ceph: nothing is removed by a body that could have been changed. */
  'needs-content-md5-on-delete': {
    answer: ({ operation, headers }) =>
      operation === 'DeleteObjects' && headers['content-md5'] === undefined
        ? refuse(400, 'MissingContentMD5')
        : undefined,
  },
} as const satisfies Record<string, Profile>

export type ProfileName = keyof typeof profiles

function pairs(raw: readonly string[]): Array<readonly [name: string, value: string]> {
  return raw.flatMap((name, at) => (at % 2 === 0 ? [[name, raw[at + 1] ?? ''] as const] : []))
}

const replaced = (raw: readonly string[], name: string, value: string): string[] =>
  pairs(raw).flatMap(([key, old]) => [key, key.toLowerCase() === name ? value : old])

const without = (raw: readonly string[], names: RegExp): string[] =>
  pairs(raw).flatMap(([key, value]) => (names.test(key.toLowerCase()) ? [] : [key, value]))

/** What each word of a server, and of the system, means, and what a person can do about it. */
import type { ErrorCode } from '../../lib/errors.ts'

export type Meaning = readonly [code: ErrorCode, meaning: string]

const CREDENTIALS: Meaning = [
  'TARGET_CREDENTIALS',
  'the server does not know these credentials: check AWS_ACCESS_KEY_ID, or the role',
]
const EXPIRED: Meaning = [
  'TARGET_CREDENTIALS',
  'the credentials are out of date: get new ones (a session token lives for hours only)',
]
const REGION: Meaning = [
  'TARGET_WRONG_REGION',
  'the bucket is in another region: name it in the URL, as in s3://bucket@region/path',
]
const THROTTLED: Meaning = [
  'TARGET_THROTTLED',
  'the server asks for fewer requests: use a lower concurrency, or try later',
]
const FORBIDDEN: Meaning = [
  'TARGET_FORBIDDEN',
  'access is denied: check the policy of the user or role, and of the bucket',
]
const FULL: Meaning = ['NO_SPACE', 'the target has no space left, or its quota is used up']

/** By the server's own code of an error. */
export const BY_NAME: Readonly<Record<string, Meaning>> = {
  NoSuchBucket: ['TARGET_NOT_FOUND', 'the bucket does not exist: expected an existing one'],
  InvalidBucketName: ['TARGET_NOT_FOUND', 'the server does not take this name of a bucket'],
  AccessDenied: FORBIDDEN,
  AllAccessDisabled: FORBIDDEN,
  AccountProblem: FORBIDDEN,
  InvalidAccessKeyId: CREDENTIALS,
  InvalidClientTokenId: CREDENTIALS,
  InvalidToken: CREDENTIALS,
  XAdminUserNotFound: CREDENTIALS,
  Unauthorized: CREDENTIALS,
  ExpiredToken: EXPIRED,
  TokenRefreshRequired: EXPIRED,
  CredentialsProviderError: [
    'TARGET_CREDENTIALS',
    'no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run with a role',
  ],
  SignatureDoesNotMatch: [
    'TARGET_SIGNATURE',
    'the server computes another signature: check AWS_SECRET_ACCESS_KEY, and whether a proxy on the way changes requests',
  ],
  RequestTimeTooSkewed: [
    'TARGET_CLOCK_SKEW',
    'the clocks here and there differ by too much: set the clock of this machine',
  ],
  RequestExpired: ['TARGET_CLOCK_SKEW', 'the request was too old when it came: check the clock'],
  PermanentRedirect: REGION,
  AuthorizationHeaderMalformed: REGION,
  IllegalLocationConstraintException: REGION,
  SlowDown: THROTTLED,
  Throttling: THROTTLED,
  ThrottlingException: THROTTLED,
  RequestLimitExceeded: THROTTLED,
  TooManyRequests: THROTTLED,
  QuotaExceeded: FULL,
  XMinioStorageFull: FULL,
  EntityTooLarge: ['TARGET_UNSUPPORTED', 'the server takes no object as large as this one'],
  InvalidObjectState: [
    'OBJECT_UNREADABLE',
    'the object is in an archive: get it back from there first',
  ],
  BadDigest: ['TARGET_UNREACHABLE', 'bytes were changed on the way to the server'],
  NotImplemented: ['TARGET_UNSUPPORTED', 'the server does not implement this request'],
}

export const TLS: Meaning = [
  'TARGET_UNTRUSTED',
  "the server's certificate is not trusted: give its authority in AWS_CERT (PEM)",
]

/** What to look at where an answer is none of S3. */
export const NO_SERVER = 'is it an S3 server that answers there? Check the endpoint and the proxy'

/** By Node's code of a system error. */
export const BY_SYSTEM: Readonly<Record<string, Meaning>> = {
  ENOTFOUND: ['TARGET_UNREACHABLE', 'its name is not known: check the endpoint and the DNS'],
  EAI_AGAIN: ['TARGET_UNREACHABLE', 'its name could not be looked up: the DNS does not answer'],
  ECONNREFUSED: ['TARGET_UNREACHABLE', 'nothing listens there: check the endpoint and its port'],
  EHOSTUNREACH: ['TARGET_UNREACHABLE', 'there is no way to it: check the network'],
  ENETUNREACH: ['TARGET_UNREACHABLE', 'there is no way to it: check the network'],
  ECONNRESET: ['TARGET_UNREACHABLE', 'the connection was cut'],
  EPIPE: ['TARGET_UNREACHABLE', 'the connection was cut'],
  EPROTO: ['TARGET_UNREACHABLE', 'it speaks no TLS: is the endpoint an http:// one?'],
  ERR_SSL_WRONG_VERSION_NUMBER: [
    'TARGET_UNREACHABLE',
    'it speaks no TLS: is the endpoint an http:// one?',
  ],
  CERT_HAS_EXPIRED: ['TARGET_UNTRUSTED', "the server's certificate is out of date"],
  ERR_TLS_CERT_ALTNAME_INVALID: [
    'TARGET_UNTRUSTED',
    "the server's certificate is for another name: check the endpoint, and VIRTUAL_HOSTED_STYLE",
  ],
  DEPTH_ZERO_SELF_SIGNED_CERT: TLS,
  SELF_SIGNED_CERT_IN_CHAIN: TLS,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: TLS,
  UNABLE_TO_GET_ISSUER_CERT: TLS,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: TLS,
  CERT_UNTRUSTED: TLS,
}

/** What only a program says, and no server. */
export const MISTAKES = ['TypeError', 'ReferenceError', 'RangeError']

/** Where the server gave no code, or one of its own. */
export const BY_STATUS: Readonly<Record<number, Meaning>> = {
  301: REGION,
  307: REGION,
  401: CREDENTIALS,
  403: FORBIDDEN,
  429: THROTTLED,
  507: FULL,
}

/**
 * What a server, the network or the SDK said, in our words: what is the matter, and what a person
 * can do about it. The server's own text stays in the cause.
 */
import { DroverError, systemCode } from '../../lib/errors.ts'
import type { ErrorCode } from '../../lib/errors.ts'

type Meaning = readonly [code: ErrorCode, meaning: string]

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
const BY_NAME: Readonly<Record<string, Meaning>> = {
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

const TLS: Meaning = [
  'TARGET_UNTRUSTED',
  "the server's certificate is not trusted: give its authority in AWS_CERT (PEM)",
]

/** By Node's code of a system error. */
const BY_SYSTEM: Readonly<Record<string, Meaning>> = {
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
const MISTAKES = ['TypeError', 'ReferenceError', 'RangeError']

/** Where the server gave no code, or one of its own. */
const BY_STATUS: Readonly<Record<number, Meaning>> = {
  301: REGION,
  307: REGION,
  401: CREDENTIALS,
  403: FORBIDDEN,
  429: THROTTLED,
  507: FULL,
}

const RETRYABLE: readonly ErrorCode[] = ['TARGET_UNREACHABLE', 'TARGET_THROTTLED', 'NO_SPACE']

/** The facts of an error of the SDK; nothing of it is certain. */
interface Said {
  readonly name?: string
  readonly status?: number | undefined
  readonly requestId?: string | undefined
}

function saidBy(error: unknown): Said {
  if (!(error instanceof Error)) return {}
  const metadata = '$metadata' in error ? (error.$metadata as Record<string, unknown>) : {}
  const { httpStatusCode, requestId } = metadata
  return {
    name: error.name,
    status: typeof httpStatusCode === 'number' ? httpStatusCode : undefined,
    requestId: typeof requestId === 'string' ? requestId : undefined,
  }
}

/** The HTTP status that the server answered with. */
export const statusOf = (error: unknown): number | undefined => saidBy(error).status

/**
 * Whether the server said that there is no such object, in a bucket that is there. Some say 404 for
 * a user they do not know, too; what has no code of its own is the answer to a HEAD.
 */
export function isAbsent(error: unknown): boolean {
  const { name, status } = saidBy(error)
  return name === 'NoSuchKey' || (status === 404 && NAMELESS.includes(name ?? ''))
}

/** What the SDK calls an error of which the server told the status only. */
const NAMELESS = ['NotFound', 'UnknownError', 'Unknown']

/** Whether a condition of a request did not hold, or somebody changes the object at this moment. */
export const isRefusedByCondition = (error: unknown): boolean =>
  [409, 412].includes(saidBy(error).status ?? 0) && saidBy(error).name !== 'NoSuchBucket'

/** Whether somebody else is at the same object at this moment. */
export const isContended = (error: unknown): boolean => saidBy(error).status === 409

/**
 * Whether a PUT is worth another try of ours.
 * @param streamed the SDK cannot repeat a stream by itself
 */
export function isPassing(error: unknown, streamed: boolean): boolean {
  if (error instanceof DroverError) return false
  const { name, status } = saidBy(error)
  if (name === 'BadDigest') return true
  const passes =
    status === undefined ? systemOf(error) !== undefined : status >= 500 || status === 429
  return streamed && (passes || name === 'TimeoutError' || name === 'RequestTimeout')
}

/** Whether the server does not know what it was asked for. */
export function isNotImplemented(error: unknown): boolean {
  const { name, status } = saidBy(error)
  return name === 'NotImplemented' || status === 501 || status === 405
}

/** The range that was asked for is not in the object: it is empty. */
export const isEmptyRange = (error: unknown): boolean => saidBy(error).status === 416

/** How often a call was tried, as far as is known. */
export function attemptsOf(error: unknown): number {
  const metadata = error instanceof Error && '$metadata' in error ? error.$metadata : undefined
  const { attempts } = (metadata ?? {}) as { attempts?: unknown }
  return typeof attempts === 'number' ? attempts : 1
}

/**
 * Any error of a call in our words.
 * @param where what cannot be reached, for a person: host and bucket
 */
export function s3Error(error: unknown, doing: string, where: string): DroverError {
  if (error instanceof DroverError) return error
  const said = saidBy(error)
  const system = systemOf(error)
  const [code, meaning] = meaningOf(error, said, system)
  return new DroverError(code, `${doing} at ${where}: ${meaning}`, {
    details: {
      ...(said.status === undefined ? {} : { status: said.status }),
      ...(said.name === undefined || system !== undefined ? {} : { said: said.name }),
      ...(said.requestId === undefined ? {} : { requestId: said.requestId }),
      ...(system === undefined ? {} : { system }),
    },
    retryable: RETRYABLE.includes(code),
    cause: error,
  })
}

function meaningOf(error: unknown, said: Said, system: string | undefined): Meaning {
  const known = BY_NAME[said.name ?? ''] ?? BY_SYSTEM[system ?? '']
  if (known) return known
  if (system?.startsWith('ERR_SSL') || /^(CERT|UNABLE_TO)_/.test(system ?? '')) return TLS
  if (system === undefined && said.status === undefined && MISTAKES.includes(said.name ?? '')) {
    return ['INTERNAL', `a mistake in Drover or in the SDK (${String(error)})`]
  }
  const byStatus = BY_STATUS[said.status ?? 0]
  if (byStatus) return byStatus
  if (said.name === 'TimeoutError' || said.name === 'AbortError') {
    return ['TARGET_UNREACHABLE', 'there was no answer in time']
  }
  if (error instanceof Error && error.message.startsWith('Region is missing')) {
    return ['INVALID_CONFIG', 'no region is known: name it in the URL, or set AWS_REGION']
  }
  const what = said.status === undefined ? (system ?? said.name) : `${said.status} ${said.name}`
  return ['TARGET_UNREACHABLE', `it answered ${what ?? 'something that is no answer'}`]
}

/** Node's code of an error or of what caused it; several addresses may have failed together. */
function systemOf(error: unknown): string | undefined {
  const own = systemCode(error)
  if (own !== undefined) return own
  if (error instanceof AggregateError) return systemOf(error.errors[0])
  return error instanceof Error && error.cause !== undefined ? systemOf(error.cause) : undefined
}

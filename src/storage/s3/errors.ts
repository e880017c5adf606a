/**
 * What a server, the network or the SDK said, in our words: what is the matter, and what a person
 * can do about it. The server's own text stays in the cause.
 */
import { DroverError, systemCode } from '../../lib/errors.ts'
import type { ErrorCode } from '../../lib/errors.ts'
import type { Meaning } from './meanings.ts'
import { BY_NAME, BY_STATUS, BY_SYSTEM, MISTAKES, NO_SERVER, TLS } from './meanings.ts'

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
 * Whether the server said that there is no such object, in a bucket that is there. Only its code
 * says so: some answer 404 for a user they do not know, and a front-end for any path it has not.
 */
export const isAbsent = (error: unknown): boolean => saidBy(error).name === 'NoSuchKey'

/** The same of the answer to a HEAD, which has no body that a code could stand in. */
export function isAbsentForHead(error: unknown): boolean {
  const { name, status } = saidBy(error)
  return isAbsent(error) || (status === 404 && NAMELESS.includes(name ?? ''))
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

/** What kept credentials from coming, in our words: a service other than the target may be it. */
export function credentialsError(error: unknown, doing: string, where: string): DroverError {
  const said = s3Error(error, doing, where)
  if (said.code === 'TARGET_CREDENTIALS' || said.code === 'INVALID_CONFIG') return said
  const system = systemOf(error)
  const why = said.code === 'INTERRUPTED' ? 'in time' : `(${system ?? saidBy(error).name})`
  return new DroverError(
    'TARGET_CREDENTIALS',
    `${doing} at ${where}: who gives out the credentials does not answer ${why}: check the role, the metadata service and the proxy`,
    { details: system === undefined ? {} : { system }, retryable: true, cause: error },
  )
}

function meaningOf(error: unknown, said: Said, system: string | undefined): Meaning {
  if (isOfCredentials(error)) {
    return [
      'TARGET_CREDENTIALS',
      `the role or session was refused (${said.name}): check its trust policy and its token`,
    ]
  }
  const known = BY_NAME[said.name ?? ''] ?? BY_SYSTEM[system ?? '']
  if (known) return known
  if (system?.startsWith('ERR_SSL') || /^(CERT|UNABLE_TO)_/.test(system ?? '')) return TLS
  if (system === undefined && said.status === undefined && MISTAKES.includes(said.name ?? '')) {
    return ['INTERNAL', `a mistake in Drover or in the SDK (${String(error)})`]
  }
  if (said.status === 404)
    return ['TARGET_UNREACHABLE', `it answered 404 ${said.name}: ${NO_SERVER}`]
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

/** Said by a service that gives credentials out, not by the target. */
function isOfCredentials(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = Object.getPrototypeOf(at)) {
    if (/^(STS|SSO|SSOOIDC|Signin)ServiceException$/.test(at.constructor.name)) return true
  }
  return false
}

/** Node's code of an error or of what caused it; several addresses may have failed together. */
function systemOf(error: unknown): string | undefined {
  const own = systemCode(error)
  if (own !== undefined) return own
  if (error instanceof AggregateError) return systemOf(error.errors[0])
  return error instanceof Error && error.cause !== undefined ? systemOf(error.cause) : undefined
}

/**
 * The one error class of the project and the words it uses.
 *
 * A code is a promise to scripts and to other programs: it keeps its meaning once released. The
 * message is for a person; `details` carries the facts behind it in a form a program can read.
 */

const CODES = {
  // The request itself is wrong.
  USAGE: 'the command line is wrong',
  INVALID_URL: 'a target or backup URL is not well formed',
  INVALID_NAME: 'a backup name is not allowed',
  INVALID_CONFIG: 'a setting in the environment is not valid',
  // The image file.
  SOURCE_NOT_FOUND: 'the image file does not exist',
  SOURCE_UNREADABLE: 'the image file cannot be read',
  SOURCE_EMPTY: 'the image file has no bytes',
  SOURCE_CHANGED: 'the image file changed while it was read',
  FILE_EXISTS: 'the file to restore to exists',
  FILE_UNWRITABLE: 'the file to restore to cannot be written',
  NO_SPACE: 'not enough free space',
  // The target as a whole.
  TARGET_UNSUPPORTED: 'this kind of target is not supported',
  TARGET_NOT_FOUND: 'the target does not exist',
  TARGET_CREDENTIALS: 'the credentials for the target are missing, unknown or out of date',
  TARGET_SIGNATURE: 'the target does not accept the signature of a request',
  TARGET_CLOCK_SKEW: 'the clocks here and at the target differ too much',
  TARGET_WRONG_REGION: 'the target is in another region',
  TARGET_UNTRUSTED: 'the certificate of the target is not trusted',
  TARGET_FORBIDDEN: 'access to the target is denied',
  TARGET_READ_ONLY: 'the target cannot be written',
  TARGET_THROTTLED: 'the target asks for fewer requests',
  TARGET_UNREACHABLE: 'the target does not answer, or not sensibly',
  STORE_BUSY: 'another operation holds the lock',
  STORE_CHANGED: 'the store changed during the operation',
  LOCK_LOST: 'the lock was lost during the operation',
  OBJECT_UNREADABLE: 'an object of the store cannot be read, although the target can',
  UNSAFE_PATH: 'a path inside the store leads out of it',
  // A backup.
  BACKUP_NOT_FOUND: 'the backup does not exist',
  BACKUP_INCOMPLETE: 'the backup was never completed',
  BACKUP_IN_PROGRESS: 'the backup is being made by someone else',
  NAME_CONFLICT: 'the name is taken by other content',
  CODEC_CONFLICT: 'stored blocks do not fit the compression asked for',
  CHECKSUM_MISMATCH: 'the image is not the expected one',
  CONFIG_INVALID: 'the config of a backup is damaged',
  BLOCK_MISSING: 'a block is missing',
  BLOCK_CORRUPT: 'a block is damaged',
  IMAGE_CORRUPT: 'the restored image does not match its checksum',
  // The run.
  INTERRUPTED: 'the operation was interrupted',
  INTERNAL: 'an error in Drover itself',
} as const

export type ErrorCode = keyof typeof CODES

/** What each code means, for documents and help. */
export const errorMeanings: Readonly<Record<ErrorCode, string>> = CODES

export interface ErrorFacts {
  /** Facts for programs; never a secret. */
  details?: Readonly<Record<string, unknown>>
  /** Whether the same call may succeed later without anyone changing anything. */
  retryable?: boolean
  cause?: unknown
}

export class DroverError extends Error {
  override readonly name = 'DroverError'
  readonly code: ErrorCode
  readonly details: Readonly<Record<string, unknown>>
  readonly retryable: boolean

  constructor(code: ErrorCode, message: string, facts: ErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause })
    this.code = code
    this.details = facts.details ?? {}
    this.retryable = facts.retryable ?? false
  }
}

export const isDroverError = (error: unknown, ...codes: ErrorCode[]): error is DroverError =>
  error instanceof DroverError && (codes.length === 0 || codes.includes(error.code))

/** Node's own code of a system error (`ENOENT`, `EACCES` …), or undefined. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  // a number that Node has no name for
  if ('errno' in error && error.errno === -116) return 'ESTALE'
  return typeof error.code === 'string' ? error.code : undefined
}

export const interrupted = (): DroverError =>
  new DroverError('INTERRUPTED', 'interrupted', { retryable: true })

/** The reason of an aborted signal as an error of ours. */
export function abortReason(signal: AbortSignal): DroverError {
  return signal.reason instanceof DroverError ? signal.reason : interrupted()
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortReason(signal)
}

import { DroverError, systemCode } from '../../lib/errors.ts'
import type { ErrorCode } from '../../lib/errors.ts'

const CODES: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  EACCES: ['TARGET_FORBIDDEN', 'access is denied'],
  EPERM: ['TARGET_FORBIDDEN', 'the operation is not permitted'],
  EROFS: ['TARGET_READ_ONLY', 'the file system is read-only'],
  ENOSPC: ['NO_SPACE', 'the target has no space left'],
  EDQUOT: ['NO_SPACE', 'the quota of the target is used up'],
  ELOOP: ['UNSAFE_PATH', 'it is a link; expected plain files and folders inside the store'],
  ENOTDIR: ['UNSAFE_PATH', 'a file stands where a folder is expected'],
  EISDIR: ['UNSAFE_PATH', 'a folder stands where a file is expected'],
}

/**
 * One bad sector, not a bad target. (Where a whole share is gone, looking at its folder fails as
 * well, and that is told instead.)
 */
const READ_CODES: typeof CODES = {
  EIO: ['OBJECT_UNREADABLE', 'the disk reports an error'],
  EBADMSG: ['OBJECT_UNREADABLE', 'the disk reports a damaged block'],
  EUCLEAN: ['OBJECT_UNREADABLE', 'the file system is damaged there'],
}

/** An error while one object was read. */
export function readError(error: unknown, key: string): DroverError {
  return targetError(error, `reading ${key}`, READ_CODES)
}

/** A file-system error in the target, in our words. */
export function targetError(error: unknown, doing: string, first: typeof CODES = {}): DroverError {
  if (error instanceof DroverError) return error
  const system = systemCode(error) ?? 'unknown error'
  const [code, meaning] = first[system] ??
    CODES[system] ?? ['TARGET_UNREACHABLE', `the file system said ${system}`]
  return new DroverError(code, `${doing}: ${meaning}`, {
    details: { system },
    retryable: code === 'TARGET_UNREACHABLE' || code === 'NO_SPACE',
    cause: error,
  })
}

export const isAbsent = (error: unknown): boolean => systemCode(error) === 'ENOENT'

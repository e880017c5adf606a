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

/** A file-system error in the target, in our words. */
export function targetError(error: unknown, doing: string): DroverError {
  if (error instanceof DroverError) return error
  const system = systemCode(error) ?? 'unknown error'
  const [code, meaning] = CODES[system] ?? ['TARGET_UNREACHABLE', `the file system said ${system}`]
  return new DroverError(code, `${doing}: ${meaning}`, {
    details: { system },
    retryable: code === 'TARGET_UNREACHABLE' || code === 'NO_SPACE',
    cause: error,
  })
}

export const isAbsent = (error: unknown): boolean => systemCode(error) === 'ENOENT'

import type { ErrorCode } from '../lib/errors.ts'

/** What a script sees: 0 done, 1 failed, 2 wrong usage, 3 stored data missing or corrupt, 130. */
export const EXIT = { done: 0, failed: 1, usage: 2, badData: 3, interrupted: 130 } as const

const BY_CODE: Partial<Record<ErrorCode, number>> = {
  USAGE: EXIT.usage,
  INVALID_URL: EXIT.usage,
  INVALID_NAME: EXIT.usage,
  INVALID_CONFIG: EXIT.usage,
  BACKUP_NOT_FOUND: EXIT.badData,
  BACKUP_INCOMPLETE: EXIT.badData,
  CONFIG_INVALID: EXIT.badData,
  BLOCK_MISSING: EXIT.badData,
  BLOCK_CORRUPT: EXIT.badData,
  IMAGE_CORRUPT: EXIT.badData,
  UNSAFE_PATH: EXIT.badData,
  OBJECT_UNREADABLE: EXIT.badData,
  INTERRUPTED: EXIT.interrupted,
}

export const exitCodeOf = (code: ErrorCode): number => BY_CODE[code] ?? EXIT.failed

/** Lock files: what one says, which of two comes first, and which of them keep somebody out. */
import pLimit from 'p-limit'
import { isDroverError } from '../lib/errors.ts'
import type { Key } from './layout.ts'
import { LOCKS_PREFIX, isLockKey, nameOfLockKey } from './layout.ts'
import type { ObjectInfo, ReadStore } from './object-store.ts'
import { readSmall } from './object-store.ts'

/** A lock older than this, by the server's clock, does not count any more. */
export const LOCK_EXPIRY_MS = 150_000
const MAX_LOCK_FILE_BYTES = 4096
/** Lock files read at once: a store may hold thousands that nobody tidied up. */
const READERS = 16

export type LockType = 'shared' | 'deletion'
export const TYPE_NUMBER = { shared: 1, deletion: 2 } as const

/** Another's lock, or what is left of one. */
export interface LockFile {
  readonly name: string
  /** `unknown`: it could not be parsed; it counts as the other type until it expires. */
  readonly type: LockType | 'unknown'
  readonly acquired: boolean
  readonly modifiedAtMs: number
}

export const isOther = (lock: LockFile, type: LockType): boolean => lock.type !== type

export const isExpired = (
  { modifiedAtMs }: Pick<LockFile, 'modifiedAtMs'>,
  serverNowMs: number,
): boolean => serverNowMs - modifiedAtMs > LOCK_EXPIRY_MS

/** The lock that keeps `own` out, if any: of the other type, not expired, and first in order. */
export function keepsOut(
  own: LockFile,
  type: LockType,
  locks: readonly LockFile[],
  serverNowMs: number,
): LockFile | undefined {
  return locks
    .filter((lock) => lock.name !== own.name)
    .filter((lock) => isOther(lock, type) && !isExpired(lock, serverNowMs))
    .filter((lock) => compareLocks(lock, own) < 0)
    .sort(compareLocks)[0]
}

/** Acquired first, then the older by the server's time, then by name. */
export function compareLocks(a: LockFile, b: LockFile): number {
  if (a.acquired !== b.acquired) return a.acquired ? -1 : 1
  if (a.modifiedAtMs !== b.modifiedAtMs) return a.modifiedAtMs - b.modifiedAtMs
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0
}

/**
 * All locks of a store. One that vanishes meanwhile is absent; a failed listing is an error.
 * @param nowMs the server's time: what has expired by then is told without being opened
 * @param own a lock of ours, which is known, as it was written last
 */
export async function readLocks(
  store: Pick<ReadStore, 'list' | 'open'>,
  signal?: AbortSignal,
  nowMs = Number.NEGATIVE_INFINITY,
  own?: OwnLock,
): Promise<LockFile[]> {
  const infos: ObjectInfo[] = []
  for await (const page of store.list(LOCKS_PREFIX, signal ? { signal } : {})) {
    for (const info of page) if (isLockKey(info.key)) infos.push(info)
  }
  const locks = await pLimit(READERS).map(infos, (info) =>
    info.key === own?.key
      ? { ...own.file, name: nameOfLockKey(info.key), modifiedAtMs: info.modifiedAtMs }
      : isExpired(info, nowMs)
        ? unopened(info)
        : readLock(store, info, signal),
  )
  return locks.filter((lock) => lock !== undefined)
}

export interface OwnLock {
  readonly key: Key
  readonly file: Pick<LockFile, 'type' | 'acquired'>
}

const unopened = ({ key, modifiedAtMs }: ObjectInfo): LockFile => ({
  name: nameOfLockKey(key),
  type: 'unknown',
  acquired: false,
  modifiedAtMs,
})

async function readLock(
  store: Pick<ReadStore, 'open'>,
  { key, modifiedAtMs }: ObjectInfo,
  signal?: AbortSignal,
): Promise<LockFile | undefined> {
  const name = nameOfLockKey(key)
  const unreadable: LockFile = { name, type: 'unknown', acquired: true, modifiedAtMs }
  let bytes
  try {
    bytes = await readSmall(store, key, MAX_LOCK_FILE_BYTES, signal ? { signal } : {})
  } catch (error) {
    if (isDroverError(error, 'OBJECT_UNREADABLE', 'TARGET_FORBIDDEN', 'UNSAFE_PATH'))
      return unreadable
    throw error
  }
  if (bytes === undefined) return undefined
  if (bytes === 'too-large') return unreadable
  try {
    const { Type: type, Acquired: acquired } = JSON.parse(bytes.toString('utf8'))
    if (type !== 1 && type !== 2) return unreadable
    return {
      name,
      type: type === 1 ? 'shared' : 'deletion',
      acquired: acquired === true,
      modifiedAtMs,
    }
  } catch {
    return unreadable
  }
}

/**
 * A soft mount that waited too long for its server says EIO, as a bad disk does. A bad disk says so
 * sooner than the mount would have asked the server a second time.
 */
import { DroverError, isDroverError } from '../../lib/errors.ts'

/** As in nfs(5), for TCP. */
const DEFAULT_TIMEO = 600

/** How long the client waits for a first answer, by its mount options. */
export const firstWaitMs = (options: string): number =>
  100 * Number(/(?:^|,)timeo=(\d+)/.exec(options)?.[1] ?? DEFAULT_TIMEO)

/** Reads an object, and tells a server that did not answer from an object that is damaged. */
export async function readInTime<T>(waitMs: number, read: () => Promise<T>): Promise<T> {
  const sinceMs = performance.now()
  try {
    return await read()
  } catch (error) {
    const isSlow = performance.now() - sinceMs >= waitMs
    const isVague = isDroverError(error, 'OBJECT_UNREADABLE') && error.details['system'] === 'EIO'
    if (!isSlow || !isVague) throw error
    throw new DroverError('TARGET_UNREACHABLE', 'the server did not answer in time', {
      details: error.details,
      retryable: true,
      cause: error,
    })
  }
}

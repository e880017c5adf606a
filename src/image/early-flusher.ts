import type { FileHandle } from 'node:fs/promises'

const FLUSH_EVERY_BYTES = 64 * 1024 * 1024

/**
 * Flushes in the background while the file is written, so that the disk does not begin its work
 * only when everything else is done. One flush at a time; a failure comes out of `settled`.
 */
export function earlyFlusher(handle: FileHandle): {
  wrote(bytes: number): void
  settled(): Promise<void>
} {
  let unflushed = 0
  let flush: Promise<void> | undefined
  let failure: { error: unknown } | undefined
  return {
    wrote(bytes) {
      unflushed += bytes
      if (flush || unflushed < FLUSH_EVERY_BYTES) return
      unflushed = 0
      flush = handle
        .datasync()
        .catch((error: unknown) => {
          failure = { error }
        })
        .finally(() => {
          flush = undefined
        })
    },
    async settled() {
      await flush
      if (failure) throw failure.error
    },
  }
}

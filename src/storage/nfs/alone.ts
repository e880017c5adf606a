/**
 * One attempt at a time to mount or unmount a target, among all helpers of this machine. The lock is
 * one on a file beside the mount point; it goes with the process that holds it, however that ends.
 */
import type { FileHandle } from 'node:fs/promises'
import { open, stat, unlink } from 'node:fs/promises'
import { DroverError } from '../../lib/errors.ts'
import { runProgram } from './run-program.ts'

/** What the program that waits for the lock may take to say that it waited too long. */
const MARGIN_MS = 2000

const lockPath = (mountPoint: string): string => `${mountPoint}.lock`

/** Runs `work` while no other helper does there. */
export async function alone<T>(
  mountPoint: string,
  { source, stepMs }: { readonly source: string; readonly stepMs: number },
  { alive, signal }: { readonly alive: () => void; readonly signal: AbortSignal },
  work: () => Promise<T>,
): Promise<T> {
  for (;;) {
    alive()
    const file = await open(lockPath(mountPoint), 'a', 0o600)
    try {
      const args = ['-w', String(stepMs / 1000), '3']
      const options = { timeoutMs: stepMs + MARGIN_MS, signal, file: file.fd }
      const outcome = await runProgram('flock', args, options)
      // Without that program two may mount at once. That is seen, and costs another try.
      if (outcome.kind !== 'missing' && !(outcome.kind === 'ended' && outcome.code === 0)) {
        throw new DroverError(
          'TARGET_UNREACHABLE',
          `another process has been mounting ${source} for too long`,
          { details: { target: source }, retryable: true },
        )
      }
      if (await isAt(lockPath(mountPoint), file)) return await work()
      // its holder removed it, and others may hold a new one
    } finally {
      await file.close()
    }
  }
}

/** For the holder, when the mount point is gone as well. */
export async function forgetLock(mountPoint: string): Promise<void> {
  await unlink(lockPath(mountPoint)).catch(() => undefined)
}

async function isAt(path: string, file: FileHandle): Promise<boolean> {
  const there = await stat(path).catch(() => undefined)
  return there?.ino === (await file.stat()).ino
}

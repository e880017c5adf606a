/**
 * One attempt at a time to mount or unmount a target, among all helpers of this machine. The lock is
 * one on a file beside the mount point; it goes with the process that holds it, however that ends.
 * The file stays: another process may be waiting for the lock on it.
 */
import { constants } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { open } from 'node:fs/promises'
import { DroverError, systemCode } from '../../lib/errors.ts'
import { runProgram } from './run-program.ts'

const { O_WRONLY, O_CREAT, O_NOFOLLOW } = constants

/** Runs `work` while no other helper does there. */
export async function alone<T>(
  mountPoint: string,
  { source, stepMs }: { readonly source: string; readonly stepMs: number },
  { alive, signal }: { readonly alive: () => void; readonly signal: AbortSignal },
  work: () => Promise<T>,
): Promise<T> {
  alive()
  const file = await openLock(`${mountPoint}.lock`)
  try {
    // Our deadline and not one of its own: BusyBox has none. Without that program, or with one that
    // cannot do it, two may mount at once; that is seen, and costs another try.
    const outcome = await runProgram('flock', ['3'], { timeoutMs: stepMs, signal, file: file.fd })
    if (outcome.kind === 'too-late') {
      throw new DroverError(
        'TARGET_UNREACHABLE',
        `another process has been mounting ${source} for too long`,
        { details: { target: source }, retryable: true },
      )
    }
    return await work()
  } finally {
    await file.close()
  }
}

async function openLock(path: string): Promise<FileHandle> {
  try {
    return await open(path, O_WRONLY | O_CREAT | O_NOFOLLOW, 0o600)
  } catch (cause) {
    throw new DroverError(
      'INVALID_CONFIG',
      `${path} cannot be used as a lock (${systemCode(cause) ?? String(cause)}): expected a plain file of ours in DROVER_MOUNT_DIR`,
      { details: { path }, cause },
    )
  }
}

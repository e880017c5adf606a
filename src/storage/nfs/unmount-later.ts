/**
 * What a helper leaves mounted that could not leave by itself. To unmount a dead server's share may
 * take as long as anything else about it, so a process of its own tries it, and nobody waits. The
 * kernel refuses where another helper stands in the mounted folder.
 */
import { spawn } from 'node:child_process'
import { realpath } from 'node:fs/promises'
import { join } from 'node:path'
import type { Place } from './messages.ts'
import { mountedAt } from './mountinfo.ts'
import { programEnvironment } from './run-program.ts'

export async function unmountLater(place: Place): Promise<void> {
  if (place.kind !== 'nfs') return
  const mountDir = await realpath(place.mountDir).catch(() => place.mountDir)
  const mountPoint = join(mountDir, place.name)
  if ((await mountedAt(mountPoint))?.source !== place.source) return
  const options = { cwd: '/', env: programEnvironment(), stdio: 'ignore', detached: true } as const
  spawn('umount', [mountPoint], options)
    .on('error', () => undefined) // there is no such program
    .unref()
}

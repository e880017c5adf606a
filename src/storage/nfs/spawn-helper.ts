/** The start of a helper's process. */
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'

/** What a helper gets of the environment: no secret, and nothing that changes what it does. */
const PASSED_ON = [
  'PATH',
  'HOME',
  'LD_LIBRARY_PATH',
  'MALLOC_MMAP_THRESHOLD_',
  'MALLOC_TRIM_THRESHOLD_',
  'MALLOC_TOP_PAD_',
]
/** Most of a helper's threads wait for the server. */
const MIN_THREADS = 8
const MOST_THREADS = 40

export function spawnHelper(windows: number, concurrency: number): ChildProcess {
  // from sources and from the build alike
  const file = new URL(`./nfs-helper${extname(import.meta.filename)}`, import.meta.url)
  const threads = Math.min(Math.max(concurrency + MIN_THREADS, MIN_THREADS), MOST_THREADS)
  return spawn(process.execPath, [fileURLToPath(file)], {
    // A session of its own: what a terminal sends to us does not reach it, and it can be killed
    // together with the mount program it runs.
    detached: true,
    cwd: '/',
    env: { ...environment(), UV_THREADPOOL_SIZE: String(threads) },
    serialization: 'advanced',
    // no output of ours is held open by a helper that cannot end
    stdio: ['ignore', 'ignore', 'pipe', 'ipc', windows], // the last is WINDOWS_FD
  })
}

function environment(): Record<string, string> {
  const entries = PASSED_ON.map((name) => [name, process.env[name]] as const)
  return Object.fromEntries(
    entries.filter((entry): entry is [string, string] => entry[1] !== undefined),
  )
}

/** Runs a script in a process of its own and tells how much memory it took. */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const MiB = 1024 * 1024

/** Runs a script of this folder, which prints one JSON document. */
export async function measure<T>(script: string, ...args: string[]): Promise<T> {
  const path = fileURLToPath(new URL(script, import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [path, ...args])
  return JSON.parse(stdout) as T
}

export interface Memory {
  /** The most that was ever in memory. */
  readonly residentMiB: number
  /** The most that was ever asked for, used or not. */
  readonly virtualMiB: number
}

/** The peaks of this process so far; they never go down. */
export function peakMemory(): Memory {
  const status = readFileSync('/proc/self/status', 'utf8')
  const virtualKiB = Number(/^VmPeak:\s+(\d+) kB$/m.exec(status)?.[1])
  return {
    residentMiB: (process.resourceUsage().maxRSS * 1024) / MiB,
    virtualMiB: (virtualKiB * 1024) / MiB,
  }
}

export const growthSince = (before: Memory): Memory => {
  const now = peakMemory()
  return {
    residentMiB: Math.round(now.residentMiB - before.residentMiB),
    virtualMiB: Math.round(now.virtualMiB - before.virtualMiB),
  }
}

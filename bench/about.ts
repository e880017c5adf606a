import { execFileSync } from 'node:child_process'
import { availableParallelism, cpus, release, totalmem } from 'node:os'

export interface About {
  readonly date: string
  readonly processor: string
  readonly memoryGiB: number
  readonly kernel: string
  readonly node: string
  readonly commit: string
  /** Settings of the allocator as they stand outside the launcher, which has its own. */
  readonly settings: string
}

/** What a result depends on besides the program. */
export function about(): About {
  return {
    date: new Date().toISOString().slice(0, 10),
    processor: `${cpus()[0]?.model.trim() ?? 'unknown'}, ${availableParallelism()} available`,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    node: process.version,
    commit: execFileSync('git', ['describe', '--always', '--dirty']).toString().trim(),
    settings:
      Object.entries(process.env)
        .filter(([key]) => /^(MALLOC_|MIMALLOC_|UV_|NODE_OPTIONS)/.test(key))
        .map(([key, value]) => `${key}=${value}`)
        .join(' ') || 'as bin/drover sets them',
  }
}

export function versionOf(tool: string, flag = '--version'): string | undefined {
  try {
    return execFileSync(tool, [flag], { stdio: ['ignore', 'pipe', 'ignore'] })
      .toString()
      .split('\n')[0]
  } catch {
    return undefined
  }
}

/** Runs a whole command and tells what it took, by the operating system's own account. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Figures {
  readonly wallSeconds: number
  readonly userSeconds: number
  readonly systemSeconds: number
  /** The largest single process. */
  readonly peakMiB: number
  readonly stdout: string
}

export interface CommandLine {
  readonly argv: readonly string[]
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
  /** 0 unless given. */
  readonly expectCode?: number
}

/**
 * Needs GNU time (package `time`).
 * @throws Error with what the command said when it fails
 */
export async function measure({ argv, env, cwd, expectCode = 0 }: CommandLine): Promise<Figures> {
  const folder = mkdtempSync(join(tmpdir(), 'drover-bench-'))
  const report = join(folder, 'time')
  try {
    const child = spawn('/usr/bin/time', ['-q', '-f', '%e %U %S %M', '-o', report, ...argv], {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let said = ''
    let stdout = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-2000)
    })
    const code = await new Promise<number | null>((resolve, reject) => {
      child.on('error', reject)
      child.on('close', resolve)
    })
    if (code !== expectCode) throw new Error(`${argv.join(' ')} ended with ${code}: ${said}`)
    const [wall, user, system, peak] = readFileSync(report, 'utf8').trim().split(' ').map(Number)
    return {
      wallSeconds: wall ?? Number.NaN,
      userSeconds: user ?? Number.NaN,
      systemSeconds: system ?? Number.NaN,
      peakMiB: (peak ?? Number.NaN) / 1024,
      stdout,
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  const lower = sorted.length % 2 === 1 ? upper : (sorted[middle - 1] ?? Number.NaN)
  return {
    median: (lower + upper) / 2,
    min: sorted[0] ?? Number.NaN,
    max: sorted.at(-1) ?? Number.NaN,
  }
}

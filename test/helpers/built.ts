/**
 * The program as users run it: compiled. Sources run directly need memory for stripping their
 * types, so limits are measured on this.
 */
import { spawn } from 'node:child_process'
import { cp, mkdir, readFile, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildTo } from '../../build.ts'
import type { Measured } from './preloads.ts'
import { measuredIn } from './preloads.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

export interface Built {
  /** Runs a command with `--json`; fails unless it ends with the code expected. */
  run(args: readonly string[], options?: RunOptions): Promise<Ran>
}

export interface RunOptions {
  /** Kills the process, as when a test takes too long. */
  readonly signal?: AbortSignal
  /** A program and its arguments that starts ours. */
  readonly under?: readonly string[]
  /** 0 unless given. */
  readonly expectCode?: number
}

export interface Ran {
  readonly json: any
  readonly measured: Measured
}

/** Compiles the checkout into an empty folder; the checkout's own build stays as it is. */
export async function build(folder: string): Promise<Built> {
  const root = join(folder, 'drover')
  await mkdir(root)
  await buildTo(join(root, 'dist'))
  for (const path of ['bin', 'package.json']) {
    await cp(join(ROOT, path), join(root, path), { recursive: true })
  }
  await symlink(join(ROOT, 'node_modules'), join(root, 'node_modules'))
  let runs = 0
  return {
    async run(args, { signal, under = [], expectCode = 0 } = {}) {
      const report = join(folder, `measured-${++runs}.json`)
      const [program = '', ...rest] = [...under, join(root, 'bin/drover'), ...args]
      const { code, stdout, stderr } = await runToEnd(
        program,
        [...rest, '--json', '--quiet'],
        report,
        signal,
      )
      if (code !== expectCode) {
        throw new Error(`drover ${args.join(' ')} ended with ${code}: ${stderr}`)
      }
      return {
        json: JSON.parse(stdout),
        measured: JSON.parse(await readFile(report, 'utf8')) as Measured,
      }
    },
  }
}

function runToEnd(
  program: string,
  args: readonly string[],
  report: string,
  signal: AbortSignal | undefined,
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      env: { ...process.env, ...measuredIn(report) },
      stdio: ['ignore', 'pipe', 'pipe'],
      killSignal: 'SIGKILL',
      ...(signal ? { signal } : {}),
    })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, stdout, stderr }))
  })
}

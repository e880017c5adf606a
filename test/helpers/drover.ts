/** Runs the real command line as a user would. */
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export const DROVER = fileURLToPath(new URL('../../bin/drover', import.meta.url))

export interface Outcome {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
  /** Stdout as JSON; throws when it is not exactly one document. */
  json(): any
}

export interface Running {
  readonly child: ChildProcess
  readonly done: Promise<Outcome>
}

export interface StartOptions {
  readonly env?: Record<string, string | undefined>
  readonly cwd?: string
}

export function startDrover(args: readonly string[], options: StartOptions = {}): Running {
  const child = spawn(DROVER, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  const done = new Promise<Outcome>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) =>
      resolve({ code, signal, stdout, stderr, json: () => JSON.parse(stdout) }),
    )
  })
  return { child, done }
}

export const drover = (...args: string[]): Promise<Outcome> => startDrover(args).done

/** Runs with `--json` and fails the test unless the command succeeds. */
export async function droverJson<T = any>(...args: string[]): Promise<T> {
  const outcome = await drover(...args, '--json', '--quiet')
  if (outcome.code !== 0) {
    throw new Error(`drover ${args.join(' ')} ended with ${outcome.code}: ${outcome.stderr}`)
  }
  return outcome.json() as T
}

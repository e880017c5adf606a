/** Runs a system program with a deadline, never through a shell. */
import { spawn } from 'node:child_process'
import { abortReason, systemCode } from '../../lib/errors.ts'

/** As much as is kept of what a program says. */
const MOST_OUTPUT = 8000

export type Outcome =
  | { readonly kind: 'ended'; readonly code: number; readonly output: string }
  | { readonly kind: 'too-late'; readonly output: string }
  /** There is no such program. */
  | { readonly kind: 'missing' }

export interface RunOptions {
  readonly timeoutMs: number
  readonly signal?: AbortSignal
  /** A file that the program finds as its descriptor 3. */
  readonly file?: number
}

/** Its words are understood in English only; mount programs often lie where users' paths do not. */
export const programEnvironment = (): NodeJS.ProcessEnv => ({
  PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin`,
  LC_ALL: 'C',
})

export function runProgram(
  program: string,
  args: readonly string[],
  { timeoutMs, signal, file }: RunOptions,
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(abortReason(signal))
    const child = spawn(program, args, {
      cwd: '/',
      env: programEnvironment(),
      stdio: ['ignore', 'pipe', 'pipe', ...(file === undefined ? [] : [file])],
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        output = (output + text).slice(-MOST_OUTPUT)
      })
    }
    const settle = (settled: () => void) => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
      settled()
    }
    /** One that hangs in the kernel cannot end yet: nobody waits for that. */
    const kill = () => {
      child.kill('SIGKILL')
      child.stdout?.destroy()
      child.stderr?.destroy()
      child.unref()
    }
    const onAbort = () => {
      kill()
      settle(() => signal && reject(abortReason(signal)))
    }
    const timer = setTimeout(() => {
      kill()
      settle(() => resolve({ kind: 'too-late', output }))
    }, timeoutMs)
    signal?.addEventListener('abort', onAbort, { once: true })
    child.on('error', (error) => {
      const isMissing = systemCode(error) === 'ENOENT'
      settle(() => (isMissing ? resolve({ kind: 'missing' }) : reject(error)))
    })
    child.on('close', (code) => settle(() => resolve({ kind: 'ended', code: code ?? -1, output })))
  })
}

/** A server as a child process of the test: it ends with the test's process, whatever ends that. */
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { unlessThere } from '../command.ts'

export interface ServerProcess {
  readonly alive: () => boolean
  readonly signal: (signal: NodeJS.Signals) => void
  /** SIGKILL; settles when the process is gone. */
  readonly kill: () => Promise<void>
  /** SIGTERM, and SIGKILL for one that takes its time. */
  readonly stop: () => Promise<void>
  /** The end of what it wrote. */
  readonly lastWords: () => string
}

const GRACE_MS = 3000

export function startProcess(
  program: string,
  args: readonly string[],
  logFile: string,
  env: Record<string, string | undefined> = {},
): ServerProcess {
  const log = openSync(logFile, 'a')
  // the kernel ends the server when the test's process dies, be it by SIGKILL
  const guard = canGuard() ? ['setpriv', '--pdeathsig', 'KILL', '--'] : []
  const [command = program, ...rest] = [...guard, program, ...args]
  const child = spawn(command, rest, {
    stdio: ['ignore', log, log],
    env: { ...process.env, ...env },
  })
  closeSync(log)
  const gone = ended(child)
  const alive = () =>
    child.exitCode === null && child.signalCode === null && child.pid !== undefined
  const endWithUs = () => void child.kill('SIGKILL')
  process.once('exit', endWithUs)
  void gone.then(() => process.off('exit', endWithUs))

  const kill = async () => {
    child.kill('SIGKILL')
    await gone
  }
  return {
    alive,
    signal: (signal) => void child.kill(signal),
    kill,
    async stop() {
      if (!alive()) return
      child.kill('SIGCONT')
      child.kill('SIGTERM')
      const hurry = setTimeout(() => void child.kill('SIGKILL'), GRACE_MS)
      await gone
      clearTimeout(hurry)
    },
    lastWords: () => readFileSync(logFile, 'utf8').slice(-3000),
  }
}

const ended = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    child.once('exit', () => resolve())
    child.once('error', () => resolve()) // there is no such program
  })

let guarded: boolean | undefined
const canGuard = (): boolean => (guarded ??= unlessThere('setpriv') === false)

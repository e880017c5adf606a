/** The command line: arguments in, an answer and an exit code out. */
import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { DroverError, interrupted } from '../lib/errors.ts'
import { defineBackup } from './backup.ts'
import type { Context } from './context.ts'
import { jsonText, print } from './context.ts'
import { defineDelete } from './delete.ts'
import { defineDoctor } from './doctor.ts'
import { EXIT, exitCodeOf } from './exit-codes.ts'
import { printable } from './format.ts'
import { defineGc } from './gc.ts'
import { defineInspect } from './inspect.ts'
import { defineList } from './list.ts'
import { defineRestore } from './restore.ts'
import { defineVerify } from './verify.ts'

/** Runs one command line and returns its exit code. */
export async function runCli(argv: readonly string[]): Promise<number> {
  const stop = new AbortController()
  const unlisten = listenForSignals(stop)
  // a reader that went away (`| head`) is no reason for a stack trace
  process.stdout.on('error', () => process.exit(EXIT.failed))
  // and one that does not want to see the progress is no reason to stop the work
  process.stderr.on('error', () => undefined)
  const context: Context = { signal: stop.signal, answered: undefined }
  // known before parsing, because a command line that cannot be parsed is answered in JSON, too
  const ends = argv.indexOf('--')
  const flags = ends === -1 ? argv : argv.slice(0, ends)
  const answerAs = { json: flags.includes('--json'), debug: flags.includes('--debug') }
  try {
    await define(context).parseAsync([...argv], { from: 'user' })
    return context.answered?.exitCode ?? EXIT.done
  } catch (error) {
    return await fail(error, answerAs)
  } finally {
    unlisten()
  }
}

function define(context: Context): Command {
  const program = new Command('drover')
    .description(
      'Moves images of virtual machines to Longhorn backupstores and back, and proves it.',
    )
    .version(packageVersion(), '--version')
    .exitOverride()
    .configureOutput({ writeErr: () => undefined })
    .showSuggestionAfterError()
    .addHelpText(
      'after',
      `
Exit codes:
  0 done   1 failed   2 wrong usage   3 the stored data is missing or corrupt   130 interrupted

Example:
  drover backup ubuntu.qcow2 --target vfs:///mnt/store
  drover restore 'vfs:///mnt/store?backingImage=ubuntu' ubuntu-again.qcow2`,
    )
  for (const defineCommand of [
    defineBackup,
    defineRestore,
    defineList,
    defineInspect,
    defineVerify,
    defineDelete,
    defineGc,
    defineDoctor,
  ]) {
    defineCommand(program, context)
  }
  return program
}

/** SIGHUP: the connection to the terminal was lost. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** Wrappers such as `timeout` signal the process and then its group: that is one signal. */
const SAME_SIGNAL_MS = 250

/** The first signal stops the work and lets it clean up; the second ends the process at once. */
function listenForSignals(stop: AbortController): () => void {
  let firstMs = 0
  const onSignal = () => {
    const nowMs = performance.now()
    if (!stop.signal.aborted) {
      firstMs = nowMs
      stop.abort(interrupted())
    } else if (nowMs - firstMs > SAME_SIGNAL_MS) process.exit(EXIT.interrupted)
  }
  for (const signal of SIGNALS) process.on(signal, onSignal)
  return () => {
    for (const signal of SIGNALS) process.off(signal, onSignal)
  }
}

async function fail(
  error: unknown,
  { json, debug }: { readonly json: boolean; readonly debug: boolean },
): Promise<number> {
  if (error instanceof CommanderError && error.exitCode === 0) return EXIT.done // help, version
  const known = asDroverError(error)
  const { code, message, details } = known
  if (json) await print(process.stdout, `${jsonText({ error: { code, message, details } })}\n`)
  await print(process.stderr, `drover: ${code}: ${printable(message)}\n`)
  const stack = stackOf(known).split('\n').map(printable).join('\n')
  if (debug) await print(process.stderr, `${stack}\n`)
  return exitCodeOf(code)
}

function asDroverError(error: unknown): DroverError {
  if (error instanceof DroverError) return error
  if (error instanceof CommanderError) {
    const message = error.message.replace(/^error: /, '').replaceAll('\n', ' ')
    const text = error.code === 'commander.help' ? 'a command is missing' : message
    return new DroverError('USAGE', `${text} (see drover --help)`, { cause: error })
  }
  const message = error instanceof Error ? error.message : String(error)
  return new DroverError('INTERNAL', `an error in Drover itself: ${message}`, { cause: error })
}

function stackOf(error: Error): string {
  const cause = error.cause instanceof Error ? `\ncaused by ${stackOf(error.cause)}` : ''
  return `${error.stack ?? error.message}${cause}`
}

function packageVersion(): string {
  // one folder up from dist, two from src/cli
  for (const up of ['../package.json', '../../package.json']) {
    try {
      const { name, version } = JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8'))
      if (name === 'drover') return String(version)
    } catch {
      // not there: the next one
    }
  }
  return 'unknown'
}

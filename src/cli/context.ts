/** What a command is given to work with, and how it answers. */
import type { Command } from 'commander'
import type { RunOptions } from '../app.ts'
import { EXIT } from './exit-codes.ts'
import { printable } from './format.ts'
import type { Progress } from './progress.ts'
import { openProgress } from './progress.ts'

export interface CommonOptions {
  readonly json?: boolean
  readonly quiet?: boolean
  readonly debug?: boolean
}

export interface Answer {
  /** The one document of `--json`. */
  readonly document: object
  /** The same for a person. */
  readonly lines: readonly string[]
  readonly exitCode?: number
}

export interface Context {
  readonly signal: AbortSignal
  /** Set by the command that ran. */
  answered: { exitCode: number } | undefined
}

/** Adds the options that every command has. */
export const withCommonOptions = (command: Command): Command =>
  command
    .option('--json', 'print one JSON document on stdout and nothing else')
    .option('-q, --quiet', 'no progress on stderr')
    .option('--debug', 'show the stack of an error')

/** Runs a command with progress, and prints its answer. */
export async function answer(
  context: Context,
  options: CommonOptions,
  work: (run: RunOptions) => Promise<Answer>,
): Promise<void> {
  const progress: Progress = openProgress({ quiet: options.quiet ?? false, stream: process.stderr })
  let result: Answer
  try {
    result = await work({ signal: context.signal, observer: progress })
  } finally {
    progress.end()
  }
  const text = options.json ? jsonText(result.document) : result.lines.join('\n')
  await print(process.stdout, text === '' ? '' : `${text}\n`)
  context.answered = { exitCode: result.exitCode ?? EXIT.done }
}

/** JSON that is safe on a terminal, too: what JSON leaves as it is is escaped. */
export const jsonText = (document: object): string => printable(JSON.stringify(document))

/** Settles when the text is out: an exit before that would cut it off in a pipe. */
export function print(stream: NodeJS.WriteStream, text: string): Promise<void> {
  return new Promise((resolve) => {
    stream.write(text, () => resolve())
  })
}

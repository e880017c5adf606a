/** What a command is given to work with, and how it answers. */
import type { Command } from 'commander'
import type { RunOptions } from '../app.ts'
import type { RequestCounts } from '../backupstore/object-store.ts'
import { EXIT } from './exit-codes.ts'
import { plural, printable } from './format.ts'
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
  /** The same for a person; taken only when it is printed. */
  readonly lines: Iterable<string>
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
  let requests: RequestCounts | undefined
  try {
    result = await work({
      signal: context.signal,
      observer: progress,
      onRequests: (counts) => {
        requests = counts
      },
    })
  } finally {
    progress.end()
  }
  const { document, lines } = result
  const asked = requests ? { requests: withTotal(requests) } : {}
  await printPieces(
    process.stdout,
    options.json ? jsonPieces({ ...document, ...asked }) : ended(lines, describe(requests)),
  )
  context.answered = { exitCode: result.exitCode ?? EXIT.done }
}

/** JSON that is safe on a terminal, too: what JSON leaves as it is is escaped. */
export const jsonText = (value: unknown): string => printable(JSON.stringify(value))

/**
 * One JSON document, its lists element by element: half a million bad blocks are never one text in
 * memory.
 */
function* jsonPieces(document: object): Generator<string, void, undefined> {
  let before = '{'
  for (const [key, value] of Object.entries(document)) {
    if (value === undefined) continue
    yield `${before}${jsonText(key)}:`
    before = ','
    if (!Array.isArray(value)) {
      yield jsonText(value)
      continue
    }
    yield '['
    for (const [at, element] of value.entries()) yield `${at > 0 ? ',' : ''}${jsonText(element)}`
    yield ']'
  }
  yield before === '{' ? '{}\n' : '}\n'
}

function* ended(...texts: Array<Iterable<string>>): Generator<string, void, undefined> {
  for (const lines of texts) for (const line of lines) yield `${line}\n`
}

function withTotal(requests: RequestCounts): RequestCounts {
  const total = Object.values(requests).reduce((sum, count) => sum + count, 0)
  return { total, ...requests }
}

/** Nothing for a target that is no server. */
function describe(requests: RequestCounts | undefined): string[] {
  if (!requests) return []
  const { total = 0, ...kinds } = withTotal(requests)
  const parts = Object.entries(kinds).map(
    ([kind, count]) => `${count.toLocaleString('en-US')} ${kind}`,
  )
  return [`${plural(total, 'request')}: ${parts.join(', ')}`]
}

const PRINT_CHARS = 64 * 1024

async function printPieces(stream: NodeJS.WriteStream, pieces: Iterable<string>): Promise<void> {
  let text = ''
  for (const piece of pieces) {
    text += piece
    if (text.length < PRINT_CHARS) continue
    await print(stream, text)
    text = ''
  }
  await print(stream, text)
}

/** Settles when the text is out: an exit before that would cut it off in a pipe. */
export function print(stream: NodeJS.WriteStream, text: string): Promise<void> {
  return new Promise((resolve) => {
    stream.write(text, () => resolve())
  })
}

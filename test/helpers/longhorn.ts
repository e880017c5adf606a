/** Longhorn's own code, as a program: see test/longhorn. */
import { fileURLToPath } from 'node:url'
import type { CommandResult } from './command.ts'
import { runCommand } from './command.ts'

const BUILD = fileURLToPath(new URL('../longhorn/build.sh', import.meta.url))
const GO_IS_MISSING = 3

export interface Longhorn {
  /** The program's path. */
  readonly tool: string
  /** Runs a command; throws unless it succeeds. Returns its answer. */
  readonly run: (...args: string[]) => Promise<any>
  /** Runs a command that may fail. */
  readonly attempt: (...args: string[]) => Promise<CommandResult>
}

/** Builds the program. Returns the reason when that is impossible here and may be. */
export async function buildLonghorn(): Promise<Longhorn | string> {
  const { code, stdout, stderr } = await runCommand(BUILD, [])
  if (code === GO_IS_MISSING && !process.env['CI']) return 'go is missing'
  if (code !== 0) throw new Error(`building longhorn-tool failed with ${code}: ${stderr}`)
  const tool = stdout.toString().trim()
  const attempt = (...args: string[]) => runCommand(tool, args)
  const run = async (...args: string[]) => {
    const result = await attempt(...args)
    if (result.code !== 0) {
      throw new Error(`longhorn-tool ${args.join(' ')} ended with ${result.code}: ${result.stderr}`)
    }
    return JSON.parse(result.stdout.toString())
  }
  return { tool, run, attempt }
}

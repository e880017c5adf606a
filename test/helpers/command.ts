/** Runs any program to its end. */
import { spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { join } from 'node:path'

export interface CommandResult {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: Buffer
  readonly stderr: string
}

export interface CommandOptions {
  readonly cwd?: string
  readonly env?: Record<string, string | undefined>
  readonly input?: Uint8Array
}

export function runCommand(
  program: string,
  args: readonly string[],
  { cwd, env, input }: CommandOptions = {},
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, env: { ...process.env, ...env } })
    const stdout: Buffer[] = []
    let stderr = ''
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    child.on('error', reject)
    child.on('close', (code, signal) =>
      resolve({ code, signal, stdout: Buffer.concat(stdout), stderr }),
    )
    child.stdin.on('error', () => undefined) // it may not want all of its input
    child.stdin.end(input)
  })
}

/** As `runCommand`; throws unless the program succeeds. Returns its stdout. */
export async function output(
  program: string,
  args: readonly string[],
  options?: CommandOptions,
): Promise<Buffer> {
  const { code, stdout, stderr } = await runCommand(program, args, options)
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}: ${stderr}`)
  return stdout
}

const onPath = (program: string): boolean =>
  (process.env['PATH'] ?? '').split(':').some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })

/**
 * For a test's `skip`: the reason when a program is missing. Where all tests have to run (CI is
 * set) nothing is skipped, and the test fails for want of the program.
 */
export const unlessThere = (...programs: string[]): string | false => {
  const missing = programs.filter((program) => !onPath(program))
  return missing.length > 0 && !process.env['CI'] ? `${missing.join(', ')} is missing` : false
}

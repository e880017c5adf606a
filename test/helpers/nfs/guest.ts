/** For tests that run in a guest: its host's servers as targets, its mounts, and timed runs. */
import { readFile } from 'node:fs/promises'
import type { RemoteServer } from './control.ts'
import { remoteServer } from './control.ts'
import type { Outcome, Running } from '../drover.ts'
import { startDrover } from '../drover.ts'
import { CONTROL, HOST } from './uml.ts'

export const serverNamed = (name: string): RemoteServer =>
  remoteServer(process.env[CONTROL] ?? '', name)

/** Mount options with which errors come soon. */
export const QUICK = ['soft', 'timeo=10', 'retrans=1', 'actimeo=1']

/** @param path below the export, with a slash at its start */
export function targetOf(
  server: RemoteServer,
  path = '',
  options: readonly string[] = QUICK,
): string {
  const all = [...options, `port=${server.port}`].join(',')
  return `nfs://${HOST}:/export${path}?nfsOptions=${all}`
}

export const urlOf = (target: string, backup: string): string =>
  `${target}${target.includes('?') ? '&' : '?'}backingImage=${backup}`

export interface Mount {
  readonly source: string
  readonly folder: string
  readonly options: readonly string[]
}

/** Shares that are mounted now. */
export async function nfsMounts(): Promise<Mount[]> {
  const lines = (await readFile('/proc/self/mounts', 'utf8')).split('\n')
  return lines
    .map((line) => line.split(' '))
    .filter(([, , type]) => type === 'nfs4')
    .map(([source = '', folder = '', , options = '']) => ({
      source,
      folder,
      options: options.split(','),
    }))
}

export interface Timed extends Outcome {
  readonly seconds: number
}

export interface TimedRun extends Running {
  readonly done: Promise<Timed>
}

/** Starts a command with `--json`. */
export function startTimed(args: readonly string[], env: Record<string, string> = {}): TimedRun {
  const start = performance.now()
  const { child, done } = startDrover([...args, '--json', '--quiet'], { env })
  return {
    child,
    done: done.then((outcome) => ({ ...outcome, seconds: (performance.now() - start) / 1000 })),
  }
}

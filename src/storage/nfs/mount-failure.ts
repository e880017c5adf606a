/** What the mount program's words mean. They are those of nfs-utils, and of the C library. */
import { formatDuration } from '../../lib/duration.ts'
import type { ErrorCode } from '../../lib/errors.ts'
import { DroverError } from '../../lib/errors.ts'
import type { Outcome } from './run-program.ts'

export interface MountFailure {
  readonly error: DroverError
  /** Another version of the protocol may do. */
  readonly otherVersion: boolean
}

type Failed = Exclude<Outcome, { kind: 'missing' }>

const ELSE = 'or mount the share yourself and use vfs:///the/mount/point'

/** In order: the first that fits counts. */
const MEANINGS: ReadonlyArray<readonly [RegExp, ErrorCode, string]> = [
  [
    /protocol (family )?not supported|requested NFS version|NFS version .*not supported/i,
    'TARGET_UNSUPPORTED',
    'the server does not speak that version of NFS',
  ],
  [
    /incorrect mount option|invalid argument/i,
    'TARGET_UNSUPPORTED',
    'the mount options do not suit this kernel or the server',
  ],
  [/security flavor/i, 'TARGET_FORBIDDEN', 'the server wants another security flavor (sec=)'],
  [
    /access denied|permission denied/i,
    'TARGET_FORBIDDEN',
    'the server does not export it to this machine',
  ],
  [
    /must be superuser|only root|fstab options/i,
    'TARGET_UNSUPPORTED',
    `mounting needs root: run Drover as root, ${ELSE}`,
  ],
  [
    /operation not permitted/i,
    'TARGET_FORBIDDEN',
    `the server does not permit it, or this process may not mount: ${ELSE.slice(3)} if that is so`,
  ],
  [
    /no such device|unknown filesystem/i,
    'TARGET_UNSUPPORTED',
    `this kernel has no NFS client: load its nfsv4 module, ${ELSE}`,
  ],
  [/given by server: no such file/i, 'TARGET_NOT_FOUND', 'the server has no such export'],
  [/not a directory/i, 'TARGET_NOT_FOUND', 'the export is no folder'],
  [/failed to resolve/i, 'TARGET_UNREACHABLE', "the server's name is not known"],
  [/connection refused/i, 'TARGET_UNREACHABLE', 'no NFS server answers there'],
]

export function mountFailure(outcome: Failed, source: string, deadlineMs: number): MountFailure {
  const said = lastWords(outcome.output)
  const details = { target: source, said }
  if (outcome.kind === 'too-late') {
    const during = said === '' ? '' : ` (last: ${said})`
    return {
      otherVersion: false,
      error: new DroverError(
        'TARGET_UNREACHABLE',
        `${source} could not be mounted within ${formatDuration(deadlineMs)}${during}`,
        { details, retryable: true },
      ),
    }
  }
  const found = MEANINGS.find(([pattern]) => pattern.test(said))
  const [, code, meaning] = found ?? ([undefined, 'TARGET_UNREACHABLE', undefined] as const)
  const words = said === '' ? `mount.nfs4 ended with code ${outcome.code}` : said
  return {
    otherVersion: found !== undefined && MEANINGS.indexOf(found) < 2,
    error: new DroverError(
      code,
      `${source} cannot be mounted: ${meaning === undefined ? words : `${meaning} (${words})`}`,
      { details, retryable: code === 'TARGET_UNREACHABLE' },
    ),
  }
}

/** Somebody else has just mounted the same there. */
export const isMountedAlready = (outcome: Failed): boolean =>
  outcome.kind === 'ended' &&
  /busy or already mounted|resource busy/i.test(lastWords(outcome.output))

export const noMountProgram = (source: string): DroverError =>
  new DroverError(
    'TARGET_UNSUPPORTED',
    `${source} cannot be mounted: there is no mount.nfs4 here; install nfs-common (nfs-utils), ${ELSE}`,
  )

export const mayNotMount = (source: string): DroverError =>
  new DroverError(
    'TARGET_UNSUPPORTED',
    `${source} cannot be mounted: mounting needs root; run Drover as root, in a container with CAP_SYS_ADMIN, ${ELSE}`,
  )

/** The last line that is about the outcome. */
function lastWords(output: string): string {
  const lines = output
    .split('\n')
    .map((line) => line.replace(/^mount\.nfs4?: /, '').trim())
    .filter((line) => line !== '' && !/^(trying text-based options|timeout set for)/.test(line))
  return (lines.at(-1) ?? '').slice(0, 300)
}

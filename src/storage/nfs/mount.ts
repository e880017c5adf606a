/** Mounting, holding and unmounting a share; in the helper, because any of it may hang. */
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { DroverError, systemCode } from '../../lib/errors.ts'
import { targetError } from '../fs/fs-errors.ts'
import { alone } from './alone.ts'
import type { Place } from './messages.ts'
import { isMountedAlready, mayNotMount, mountFailure, noMountProgram } from './mount-failure.ts'
import { makeMountDir, makeMountPoint } from './mount-folders.ts'
import { deviceName, isShare, mountedAt } from './mountinfo.ts'
import { runProgram } from './run-program.ts'

export interface Opening {
  /** Tells that one more step is taken. */
  readonly alive: () => void
  readonly signal: AbortSignal
}

export interface Share {
  readonly path: string
  /** Unmounts it unless somebody else uses it. */
  close(): Promise<void>
}

type NfsPlace = Extract<Place, { kind: 'nfs' }>

/** Others may unmount what we are about to enter. */
const TRIES = 4
/** An unmount that nobody waits for is not worth more. */
const TIDY_MS = 5000
const CAP_SYS_ADMIN = 21n

type Entered = 'in' | 'stale' | 'gone'

/** @throws DroverError TARGET_*, INVALID_CONFIG */
export async function mountShare(place: NfsPlace, opening: Opening): Promise<Share> {
  if (!(await mayMount())) throw mayNotMount(place.source)
  const mountPoint = join(await makeMountDir(place.mountDir), place.name)
  let entered: Entered = 'gone'
  for (let tries = 1; entered === 'gone' && tries <= TRIES; tries++) {
    entered = await alone(mountPoint, place, opening, () => repaired(place, mountPoint, opening))
  }
  if (entered === 'in') return { path: mountPoint, close: () => leave(place, mountPoint) }
  throw new DroverError(
    'TARGET_UNREACHABLE',
    entered === 'stale'
      ? `${place.source} is not the share any more that was mounted, each time it is mounted`
      : `${place.source} was mounted and is not there: is somebody else unmounting it?`,
    { details: { target: place.source }, retryable: true },
  )
}

/** In the section in which it was found stale: nobody else mounts or enters it in between. */
async function repaired(place: NfsPlace, mountPoint: string, opening: Opening): Promise<Entered> {
  const entered = await mountAndEnter(place, mountPoint, opening)
  if (entered !== 'stale') return entered
  // those who stand in the old one keep it
  if (await isMounted(place, mountPoint)) {
    await runProgram('umount', ['-l', mountPoint], { timeoutMs: place.stepMs })
  }
  return mountAndEnter(place, mountPoint, opening)
}

async function mountAndEnter(
  place: NfsPlace,
  mountPoint: string,
  opening: Opening,
): Promise<Entered> {
  let entered: Entered = 'gone'
  try {
    const wasMounted = await mountUnlessMounted(place, mountPoint, opening)
    return (entered = await enter(place, mountPoint, opening, wasMounted))
  } finally {
    if (entered !== 'in') await unmount(place, mountPoint, TIDY_MS)
  }
}

async function leave(place: NfsPlace, mountPoint: string): Promise<void> {
  process.chdir('/')
  const opening = { alive: () => undefined, signal: new AbortController().signal }
  await alone(mountPoint, place, opening, () => unmount(place, mountPoint, place.stepMs))
}

/** @returns whether it was mounted already */
async function mountUnlessMounted(
  place: NfsPlace,
  mountPoint: string,
  opening: Opening,
): Promise<boolean> {
  if (await isMounted(place, mountPoint)) return true
  const there = await mountedAt(mountPoint)
  if (there) {
    throw new DroverError(
      'TARGET_UNSUPPORTED',
      `${place.source} cannot be mounted: ${there.source} is mounted at ${mountPoint}`,
    )
  }
  await makeMountPoint(mountPoint, place.mountDir)
  await mount(place, mountPoint, opening)
  return false
}

async function mount(
  { source, attempts, stepMs }: NfsPlace,
  mountPoint: string,
  { alive, signal }: Opening,
): Promise<void> {
  for (const [index, options] of attempts.entries()) {
    alive()
    // The program of this type itself: one process, that ends when it is killed.
    const args = [source, mountPoint, '-v', '-o', options]
    const outcome = await runProgram('mount.nfs4', args, { timeoutMs: stepMs, signal })
    if (outcome.kind === 'missing') throw noMountProgram(source)
    if (outcome.kind === 'ended' && outcome.code === 0) return
    if (isMountedAlready(outcome)) return // `enter` looks whether it is
    const { error, otherVersion } = mountFailure(outcome, source, stepMs)
    if (!otherVersion || index === attempts.length - 1) throw error
  }
}

/** Stands in the mounted folder from now on, which keeps others from unmounting it. */
async function enter(
  place: NfsPlace,
  mountPoint: string,
  { alive }: Opening,
  wasMounted: boolean,
): Promise<Entered> {
  alive()
  try {
    process.chdir(mountPoint)
    const { dev } = await stat('.', { bigint: true })
    const mounted = await mountedAt(mountPoint)
    if (mounted?.source === place.source && mounted.device === deviceName(dev)) return 'in'
    process.chdir('/')
    return 'gone'
  } catch (error) {
    process.chdir('/')
    // what the kernel says of a share that was replaced depends on how it finds out
    const code = systemCode(error)
    if (code === 'ESTALE' || (code === 'EIO' && wasMounted)) return 'stale'
    if (code === 'ENOENT') return 'gone'
    throw targetError(error, `entering ${place.source}`)
  }
}

/**
 * A mount that is used by others stays: the last one to leave it succeeds. The empty folder stays as
 * well: removing it would take down what is mounted there in other mount namespaces.
 */
async function unmount(place: NfsPlace, mountPoint: string, timeoutMs: number): Promise<void> {
  if (await isMounted(place, mountPoint)) await runProgram('umount', [mountPoint], { timeoutMs })
}

async function isMounted({ source }: NfsPlace, mountPoint: string): Promise<boolean> {
  const there = await mountedAt(mountPoint)
  return there !== undefined && isShare(there) && there.source === source
}

async function mayMount(): Promise<boolean> {
  const status = await readFile('/proc/self/status', 'utf8')
  const capabilities = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'
  return ((BigInt(`0x${capabilities}`) >> CAP_SYS_ADMIN) & 1n) === 1n
}

/** Mounting, holding and unmounting a share; in the helper, because any of it may hang. */
import { mkdir, readFile, realpath, rmdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { DroverError, systemCode } from '../../lib/errors.ts'
import { targetError } from '../fs/fs-errors.ts'
import { alone, forgetLock } from './alone.ts'
import type { Place } from './messages.ts'
import { mayNotMount, mountFailure, noMountProgram } from './mount-failure.ts'
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

/** @throws DroverError TARGET_* */
export async function mountShare(place: NfsPlace, opening: Opening): Promise<Share> {
  const mountPoint = join(await makeMountDir(place.mountDir), place.name)
  let isStale = false
  for (let tries = 1; tries <= TRIES; tries++) {
    const entered = await alone(mountPoint, place, opening, async () => {
      if (isStale) await runProgram('umount', ['-l', mountPoint], { timeoutMs: place.stepMs })
      let how: 'in' | 'stale' | 'gone' = 'gone'
      try {
        await mountUnlessMounted(place, mountPoint, opening)
        how = await enter(place, mountPoint, opening)
        return how
      } finally {
        if (how !== 'in') await unmount(mountPoint, TIDY_MS)
      }
    })
    if (entered === 'in') return { path: mountPoint, close: () => leave(place, mountPoint) }
    if (entered === 'stale' && isStale) break
    isStale = entered === 'stale'
  }
  throw new DroverError(
    'TARGET_UNREACHABLE',
    isStale
      ? `${place.source} is not the share any more that was mounted, each time it is mounted`
      : `${place.source} was mounted and is not there: is somebody else unmounting it?`,
    { details: { target: place.source }, retryable: true },
  )
}

async function leave(place: NfsPlace, mountPoint: string): Promise<void> {
  process.chdir('/')
  const opening = { alive: () => undefined, signal: AbortSignal.timeout(place.stepMs) }
  await alone(mountPoint, place, opening, () => unmount(mountPoint, place.stepMs))
}

async function makeMountDir(folder: string): Promise<string> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    // the kernel lists mounts by their real paths
    return await realpath(folder)
  } catch (cause) {
    throw new DroverError(
      'INVALID_CONFIG',
      `${folder} cannot be made to mount shares in (${systemCode(cause) ?? String(cause)}): expected a place for a folder in DROVER_MOUNT_DIR`,
      { details: { folder }, cause },
    )
  }
}

async function mountUnlessMounted(
  place: NfsPlace,
  mountPoint: string,
  opening: Opening,
): Promise<void> {
  const there = await mountedAt(mountPoint)
  if (there && isShare(there) && there.source === place.source) return
  if (there) {
    throw new DroverError(
      'TARGET_UNSUPPORTED',
      `${place.source} cannot be mounted: ${there.source} is mounted at ${mountPoint}`,
    )
  }
  if (!(await mayMount())) throw mayNotMount(place.source)
  await mkdir(mountPoint, { recursive: true, mode: 0o700 })
  await mount(place, mountPoint, opening)
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
    const { error, otherVersion } = mountFailure(outcome, source, stepMs)
    if (!otherVersion || index === attempts.length - 1) throw error
  }
}

/** Stands in the mounted folder from now on, which keeps others from unmounting it. */
async function enter(
  place: NfsPlace,
  mountPoint: string,
  { alive }: Opening,
): Promise<'in' | 'stale' | 'gone'> {
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
    if (systemCode(error) === 'ESTALE') return 'stale'
    if (systemCode(error) === 'ENOENT') return 'gone'
    throw targetError(error, `entering ${place.source}`)
  }
}

/** A mount that is used by others stays: the last one to leave it succeeds. */
async function unmount(mountPoint: string, timeoutMs: number): Promise<void> {
  if (await mountedAt(mountPoint)) await runProgram('umount', [mountPoint], { timeoutMs })
  if (await mountedAt(mountPoint)) return
  await rmdir(mountPoint).catch(() => undefined)
  await forgetLock(mountPoint)
}

async function mayMount(): Promise<boolean> {
  const status = await readFile('/proc/self/status', 'utf8')
  const capabilities = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'
  return ((BigInt(`0x${capabilities}`) >> CAP_SYS_ADMIN) & 1n) === 1n
}

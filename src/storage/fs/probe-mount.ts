/** What a folder lies on, as the kernel tells it without touching the folder. */
import { readFile } from 'node:fs/promises'
import type { Mounted } from '../nfs/mountinfo.ts'
import { isShare, parseMountinfo } from '../nfs/mountinfo.ts'
import type { Finding } from '../doctor/steps.ts'

const IN_MEMORY = ['tmpfs', 'ramfs', 'rootfs']
const IN_CONTAINER = ['overlay', 'aufs']

/** How long a client may answer from its memory, s, by the names of its options. */
const CACHE_DEFAULTS = { acregmin: 3, acregmax: 60, acdirmin: 30, acdirmax: 60 } as const
const MOST_CACHED_S = 1

export async function mountOf(path: string): Promise<Mounted | undefined> {
  const all = parseMountinfo(await readFile('/proc/self/mountinfo', 'utf8'))
  const around = all.filter(({ mountPoint }) => isBelow(path, mountPoint))
  const longest = Math.max(...around.map(({ mountPoint }) => mountPoint.length))
  // of several at one point the one on top
  return around.findLast(({ mountPoint }) => mountPoint.length === longest)
}

const isBelow = (path: string, folder: string): boolean =>
  path === folder || path.startsWith(folder === '/' ? '/' : `${folder}/`)

export function judgeFileSystem(mounted: Mounted | undefined): Finding {
  if (!mounted) {
    const hint = 'see what mount says of the folder'
    return { verdict: 'warning', message: 'the kernel does not tell what it is', hint }
  }
  const { type, mountPoint, source } = mounted
  const details = { type, mountPoint, source }
  const message = `${type}, ${source} at ${mountPoint}`
  if (IN_MEMORY.includes(type)) {
    return {
      verdict: 'warning',
      message: `${message}: it is memory, and gone with the next start of this machine`,
      hint: 'take a folder on a disk or a share, unless this is a test',
      details,
    }
  }
  if (IN_CONTAINER.includes(type)) {
    return {
      verdict: 'warning',
      message: `${message}: it is a container's own, and gone with the container`,
      hint: 'mount a volume for the backups',
      details,
    }
  }
  return { verdict: 'ok', message, details }
}

export function judgeMountOptions(mounted: Mounted | undefined): Finding {
  if (!mounted || !isShare(mounted)) return { verdict: 'skipped', message: 'it is no NFS share' }
  const { options } = mounted
  const values = new Map(options.map((option) => nameAndValue(option)))
  const version = values.get('vers') ?? '?'
  const cachedS = values.has('noac') ? 0 : Math.max(...cacheTimes(values))
  const waits = values.has('hard') ? 'hard' : 'soft'
  const details = { version, cachedSeconds: cachedS, waits, options }
  const message = `NFS ${version}, ${waits}, answers from memory for up to ${cachedS} s`
  if (cachedS <= MOST_CACHED_S) return { verdict: 'ok', message, details }
  return {
    verdict: 'warning',
    message,
    hint: 'mount it with actimeo=1: a listing from memory may name blocks that somebody else deleted',
    details,
  }
}

const cacheTimes = (values: ReadonlyMap<string, string | undefined>): number[] =>
  Object.entries(CACHE_DEFAULTS).map(([name, seconds]) => Number(values.get(name) ?? seconds))

function nameAndValue(option: string): [name: string, value: string | undefined] {
  const [name = '', value] = option.split('=', 2)
  return [name, value]
}

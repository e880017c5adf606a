/** What is mounted, as the kernel tells it without asking any server. */
import { readFile } from 'node:fs/promises'

export interface Mounted {
  readonly mountPoint: string
  readonly type: string
  /** `server:/path` of a share. */
  readonly source: string
  /** `major:minor`, as in the device of its files. */
  readonly device: string
  readonly options: readonly string[]
}

/** What is seen at a mount point: of several the one on top. */
export async function mountedAt(mountPoint: string): Promise<Mounted | undefined> {
  const text = await readFile('/proc/self/mountinfo', 'utf8')
  return parseMountinfo(text).findLast((mounted) => mounted.mountPoint === mountPoint)
}

export const isShare = ({ type }: Mounted): boolean => type === 'nfs4' || type === 'nfs'

/** See proc_pid_mountinfo(5); lines that say something else are skipped. */
export function parseMountinfo(text: string): Mounted[] {
  return text.split('\n').flatMap((line) => {
    const [before = '', after = ''] = line.split(' - ', 2)
    const [, , device, , mountPoint, own = ''] = before.split(' ')
    const [type, source, shared = ''] = after.split(' ')
    if (!device || !mountPoint || !type || source === undefined) return []
    const options = [...own.split(','), ...shared.split(',')]
    return [{ device, mountPoint: unescape(mountPoint), type, source: unescape(source), options }]
  })
}

/** The kernel writes blanks and backslashes as three octal digits. */
function unescape(text: string): string {
  const bytes: Buffer[] = []
  for (let at = 0; at < text.length;) {
    const octal = /^\\([0-7]{3})/.exec(text.slice(at, at + 4))?.[1]
    const piece = octal === undefined ? text.slice(at).split('\\', 1)[0] || '\\' : ''
    bytes.push(octal === undefined ? Buffer.from(piece) : Buffer.of(Number.parseInt(octal, 8)))
    at += octal === undefined ? piece.length : 4
  }
  return Buffer.concat(bytes).toString()
}

/** `major:minor` of the number that `stat` gives. */
export function deviceName(dev: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn)
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn & 0xffffffffn)
  return `${major}:${minor}`
}

/**
 * Names of files being restored: `.<file>.drover-<machine>-<pid>-<start>.partial` beside the file.
 * The name says who writes it, so that the next restore can tell a dead one's remains from the
 * work of a run that lives.
 */
import { createHash } from 'node:crypto'
import { readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'

const PATTERN = /^\.(.+)\.drover-([0-9a-f]{8})-(\d+)-(\d+)\.partial$/s
/** File systems allow 255 bytes for a name; ours adds up to 60. */
const LONGEST_STEM_BYTES = 180
/** A writer elsewhere touches its file at least every minute. */
export const FOREIGN_DEAD_AFTER_MS = 10 * 60_000

/** The stem under which all temporary files of one target file go. */
function stemOf(base: string): string {
  if (Buffer.byteLength(base) <= LONGEST_STEM_BYTES) return base
  return `long-${createHash('sha256').update(base).digest('hex').slice(0, 32)}`
}

export function tempNameFor(base: string): string {
  return `.${stemOf(base)}.drover-${machine()}-${process.pid}-${startOf(process.pid) ?? 0}.partial`
}

/** Whether a name is one of `tempNameFor(base)` whose writer is dead. */
export function isDeadTemp(name: string, base: string, ageMs: number): boolean {
  const found = PATTERN.exec(name)
  if (!found || found[1] !== stemOf(base)) return false
  if (found[2] !== machine()) return ageMs > FOREIGN_DEAD_AFTER_MS
  const start = startOf(Number(found[3]))
  return start === undefined || String(start) !== found[4]
}

let known: string | undefined

/** This boot of this machine, as seen from this container: pids mean something only within it. */
function machine(): string {
  known ??= createHash('sha256')
    .update(
      [
        attempt(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')),
        attempt(() => readlinkSync('/proc/self/ns/pid')),
        hostname(),
      ].join('\n'),
    )
    .digest('hex')
    .slice(0, 8)
  return known
}

/** When a process started, in clock ticks since boot; undefined when there is none. */
function startOf(pid: number): number | undefined {
  const stat = attempt(() => readFileSync(`/proc/${pid}/stat`, 'utf8'))
  if (stat === '') return isAlive(pid) ? 0 : undefined
  // the second field, the program's name, may hold spaces and parentheses
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields[0] === 'Z' ? undefined : Number(fields[19])
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

function attempt(read: () => string): string {
  try {
    return read()
  } catch {
    return ''
  }
}

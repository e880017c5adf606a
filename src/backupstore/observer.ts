/** What a long operation tells about itself while it runs. Nothing decides anything by it. */
import type { LockEvent } from './lock-events.ts'

export interface Observer {
  /** A named step begins; with a length when its progress can be counted. */
  phase(name: string, totalBytes?: number): void
  /** So many bytes of the step are done. */
  advance(bytes: number): void
  /** Something worth a look. */
  note(message: string): void
  /** Something a person should know and that does not stop the work. */
  warn(message: string): void
  lock(event: LockEvent): void
}

export const silentObserver: Observer = {
  phase: () => undefined,
  advance: () => undefined,
  note: () => undefined,
  warn: () => undefined,
  lock: () => undefined,
}

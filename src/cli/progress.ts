/** Progress on stderr: a bar on a terminal, plain lines elsewhere, nothing when quiet. */
import type { LockEvent } from '../backupstore/lock-events.ts'
import type { Observer } from '../backupstore/observer.ts'
import { formatDuration } from '../lib/duration.ts'
import { bytes, printable, rate } from './format.ts'

export interface Progress extends Observer {
  /** Leaves the terminal as a person expects it. */
  end(): void
}

export interface ProgressOptions {
  readonly quiet: boolean
  readonly stream: NodeJS.WriteStream
}

interface Phase {
  readonly name: string
  readonly totalBytes: number | undefined
  readonly startedMs: number
  doneBytes: number
}

const BAR_WIDTH = 28
const REDRAW_MS = 100
/** Elsewhere than on a terminal: a line for each quarter, or each half minute. */
const LINE_FRACTION = 0.25
const LINE_MS = 30_000

export function openProgress({ quiet, stream }: ProgressOptions): Progress {
  const say = (line: string) => void stream.write(`${printable(line)}\n`)
  const lines = quiet ? silentLines : stream.isTTY ? terminalLines(stream) : plainLines(say)
  let phase: Phase | undefined

  return {
    phase(name, totalBytes) {
      if (phase) lines.done(phase)
      phase = { name, totalBytes, startedMs: performance.now(), doneBytes: 0 }
      lines.begin(phase)
    },
    advance(count) {
      if (!phase) return
      phase.doneBytes += count
      lines.update(phase)
    },
    note(message) {
      if (quiet) return
      lines.clear()
      say(message)
    },
    warn(message) {
      lines.clear()
      say(`warning: ${message}`)
    },
    lock(event) {
      const message = describeLock(event)
      if (message === undefined || quiet) return
      lines.clear()
      say(message)
    },
    end() {
      if (phase) lines.done(phase)
      phase = undefined
    },
  }
}

function describeLock(event: LockEvent): string | undefined {
  switch (event.kind) {
    case 'busy': {
      const type = event.holder.type === 'deletion' ? 'a deletion' : 'a backup or restore'
      return `waiting for ${event.holder.name} (${type}, ${formatDuration(Math.max(0, event.ageMs))} old)`
    }
    case 'clock-skew':
      return `warning: the target's clock and this machine's differ by ${formatDuration(Math.abs(event.skewMs))}`
    case 'not-removed':
      return 'warning: the lock file could not be removed; it expires by itself in 150 s'
    case 'left':
      return 'warning: the target did not answer a change that it may still make, so the lock stays until it expires, in 150 s'
    case 'acquired':
      return undefined
  }
}

interface Lines {
  begin(phase: Phase): void
  update(phase: Phase): void
  done(phase: Phase): void
  clear(): void
}

const silentLines: Lines = {
  begin: () => undefined,
  update: () => undefined,
  done: () => undefined,
  clear: () => undefined,
}

function plainLines(say: (line: string) => void): Lines {
  let nextFraction = LINE_FRACTION
  let saidMs = 0
  return {
    begin(phase) {
      nextFraction = LINE_FRACTION
      saidMs = phase.startedMs
      const size = phase.totalBytes === undefined ? '' : ` ${bytes(phase.totalBytes)}`
      say(`${phase.name}${size}`)
    },
    update(phase) {
      const { totalBytes = 0, doneBytes } = phase
      const now = performance.now()
      if (totalBytes === 0) return
      if (doneBytes < totalBytes * nextFraction && now - saidMs < LINE_MS) return
      while (doneBytes >= totalBytes * nextFraction) nextFraction += LINE_FRACTION
      saidMs = now
      say(describe(phase))
    },
    done: () => undefined,
    clear: () => undefined,
  }
}

function terminalLines(stream: NodeJS.WriteStream): Lines {
  let drawnMs = 0
  const clear = () => void stream.write('\r\u001b[K')
  const draw = (phase: Phase) => {
    const text = phase.totalBytes ? `${bar(phase)} ${describe(phase)}` : `${phase.name} …`
    stream.write(`\r\u001b[K${text.slice(0, Math.max(20, stream.columns - 1))}`)
    drawnMs = performance.now()
  }
  return {
    begin: draw,
    update(phase) {
      if (performance.now() - drawnMs >= REDRAW_MS) draw(phase)
    },
    done: clear,
    clear,
  }
}

function bar({ doneBytes, totalBytes = 1 }: Phase): string {
  const filled = Math.round((Math.min(doneBytes, totalBytes) / totalBytes) * BAR_WIDTH)
  return `[${'█'.repeat(filled)}${'·'.repeat(BAR_WIDTH - filled)}]`
}

function describe({ name, doneBytes, totalBytes = 0, startedMs }: Phase): string {
  const seconds = (performance.now() - startedMs) / 1000
  const percent = totalBytes > 0 ? Math.floor((doneBytes / totalBytes) * 100) : 100
  const leftMs = doneBytes > 0 ? ((totalBytes - doneBytes) / doneBytes) * seconds * 1000 : 0
  const left =
    doneBytes < totalBytes && doneBytes > 0
      ? `, ${formatDuration(Math.ceil(leftMs / 1000) * 1000)} left`
      : ''
  return `${name} ${percent}% ${bytes(doneBytes)} of ${bytes(totalBytes)}, ${rate(doneBytes, seconds)}${left}`
}

/** Keeps a target's one helper: starts it, and another one when it was lost. */
import { DroverError } from '../../lib/errors.ts'
import { orAborted } from '../../lib/lanes.ts'
import type { RunId } from '../../backupstore/layout.ts'
import type { HelperOptions } from './helper-process.ts'
import { HelperProcess } from './helper-process.ts'
import type { Place } from './messages.ts'
import { unmountLater } from './unmount-later.ts'

/** Killed helpers that a server may hold up before no more are started. */
const MOST_LINGERING = 3
/** Each step of an opening ends a little before we stop waiting for it, to tell what it was. */
const OPENING_PATIENCE = 1.25
/** A busy machine takes a while to start a process, and a short deadline is not about that. */
const LEAST_OPENING_MS = 15_000

export interface KeeperOptions extends HelperOptions {
  readonly place: Place
  readonly run: RunId
}

export class HelperKeeper {
  readonly #options: KeeperOptions
  readonly #lost: HelperProcess[] = []
  #started = 0
  #current: HelperProcess | undefined
  #opening: Promise<HelperProcess> | undefined
  #closed = false
  /** Whether a helper was lost that may have left a mount. */
  #hasStrayed = false

  constructor(options: KeeperOptions) {
    this.#options = options
  }

  /** @throws DroverError what opening meets, or the signal's reason */
  async get(signal?: AbortSignal): Promise<HelperProcess> {
    if (this.#closed) throw new DroverError('INTERNAL', 'the target was closed')
    if (!this.#opening && this.#current && !this.#current.gone) return this.#current
    this.#opening ??= this.#open().finally(() => (this.#opening = undefined))
    return signal ? orAborted(this.#opening, signal) : this.#opening
  }

  /** The one that works, if any. */
  get working(): HelperProcess | undefined {
    return this.#opening || this.#current?.gone ? undefined : this.#current
  }

  /** @param last what the helper that works is asked before it ends */
  async close(last: (helper: HelperProcess) => Promise<void>): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    const { working } = this
    try {
      if (working) await last(working)
    } finally {
      await this.#current?.end()
      this.#forgetEnded()
      if (this.#hasStrayed) await unmountLater(this.#options.place)
    }
  }

  async #open(): Promise<HelperProcess> {
    this.#forgetEnded()
    const { place, run, grantMs, label, callTimeoutMs } = this.#options
    if (this.#lost.length >= MOST_LINGERING) {
      throw new DroverError(
        'TARGET_UNREACHABLE',
        `${label} does not answer, and holds up ${this.#lost.length} processes that asked it before`,
        { details: { target: label }, retryable: true },
      )
    }
    const helper = await HelperProcess.start(this.#options)
    this.#current = helper
    const predecessors = this.#started++
    try {
      if (this.#closed) throw new DroverError('INTERNAL', 'the target was closed')
      // a server that let one hang has had its patience, and who calls now wants to get away
      const isNext = this.#hasStrayed
      const startingPatience = LEAST_OPENING_MS / callTimeoutMs
      if (isNext) await helper.call('hello', {}, { patience: Math.max(1, startingPatience) })
      const opening = { place, run, predecessors, windows: helper.windows.count, grantMs }
      const patience = isNext ? 1 : Math.max(OPENING_PATIENCE, startingPatience)
      await helper.call('open', opening, { patience, inAll: isNext })
      return helper
    } catch (error) {
      await helper.end()
      throw error
    }
  }

  #forgetEnded(): void {
    if (this.#current) this.#lost.push(this.#current)
    if (this.#current?.strayed) this.#hasStrayed = true
    this.#current = undefined
    this.#lost.splice(0, this.#lost.length, ...this.#lost.filter(({ lingers }) => lingers))
  }
}

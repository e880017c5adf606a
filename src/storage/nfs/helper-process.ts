/**
 * One helper as the store sees it. A helper that lets a deadline pass is killed, and nobody waits
 * for its end: what touches a hung mount ends only when the server answers.
 */
import type { ChildProcess } from 'node:child_process'
import { formatDuration } from '../../lib/duration.ts'
import { DroverError } from '../../lib/errors.ts'
import type { Answer, CallName, FromHelper, Given, ToHelper } from './messages.ts'
import type { CallSettings } from './pending-calls.ts'
import { PendingCalls } from './pending-calls.ts'
import { spawnHelper } from './spawn-helper.ts'
import { WindowPool, windowsFor } from './window-pool.ts'

/** How long a helper may take to end by itself. */
const ENDING_MS = 2000
/** As much as is kept of what a helper says in its last moments. */
const MOST_LAST_WORDS = 2000

export interface HelperOptions {
  /** The target, for messages. */
  readonly label: string
  readonly callTimeoutMs: number
  /** Blocks read or written at once. */
  readonly concurrency: number
  /** How long a grant may be used. */
  readonly grantMs: number
}

export class HelperProcess {
  readonly windows: WindowPool
  readonly #options: HelperOptions
  readonly #child: ChildProcess
  readonly #calls: PendingCalls
  readonly #exit: Promise<void>
  #exited = false
  #gone: DroverError | undefined
  #lastWords = ''
  #strayed = false

  static async start(options: HelperOptions): Promise<HelperProcess> {
    return new HelperProcess(await WindowPool.open(windowsFor(options.concurrency)), options)
  }

  private constructor(windows: WindowPool, options: HelperOptions) {
    this.windows = windows
    this.#options = options
    const child = spawnHelper(windows.file, options.concurrency)
    this.#child = child
    const exit = Promise.withResolvers<void>()
    this.#exit = exit.promise
    const exited = (how: string) => {
      this.#exited = true
      if (!this.#gone) this.#strayed = true
      this.#lose(this.#ended(how))
      exit.resolve()
    }
    child.once('exit', (code, signal) => exited(signal ?? `code ${code}`))
    child.on('error', (error) => {
      // of a message that cannot be sent the exit tells more
      if (child.pid === undefined) exited(error.message)
    })
    child.on('message', (message: FromHelper) => this.#calls.receive(message))
    this.#calls = new PendingCalls({
      send: (message) => this.#send(message),
      callTimeoutMs: options.callTimeoutMs,
      grantMs: options.grantMs,
      onOverdue: () => this.kill(this.#overdue()),
      // nobody waits for a helper that nobody waits for an answer of
      onWaiting: (waiting) => (waiting ? child.channel?.ref() : child.channel?.unref()),
    })
    this.#collectLastWords()
    child.unref()
    child.channel?.unref()
  }

  /** Why it takes no more calls. */
  get gone(): DroverError | undefined {
    return this.#gone
  }

  /** Whether it ended, or will, without letting go of its place. */
  get strayed(): boolean {
    return this.#strayed
  }

  /** Whether it was killed and could not end yet. */
  get lingers(): boolean {
    return this.#gone !== undefined && !this.#exited
  }

  /**
   * @param settings a window is one that the helper uses for this call
   * @throws DroverError TARGET_UNREACHABLE, the signal's reason, or what the helper met
   */
  async call<Name extends CallName>(
    name: Name,
    given: Given<Name>,
    settings: CallSettings<Name> & { readonly window?: number | undefined } = {},
  ): Promise<Answer<Name>> {
    if (this.#gone) throw this.#gone
    const { answer, over } = this.#calls.send(name, given, settings)
    if (settings.window !== undefined) this.windows.keepUntil(settings.window, over)
    return answer
  }

  /** Ends it at once, with everything that is waited for. */
  kill(why: DroverError): void {
    this.#lose(why)
    this.#killGroup()
    if (this.#child.connected) this.#child.disconnect()
    this.#child.stderr?.destroy()
  }

  /** Lets it end by itself, as it does when its channel closes; kills it if it does not. */
  async end(): Promise<void> {
    if (this.#gone) return
    this.#lose(new DroverError('INTERNAL', 'the target was closed'))
    if (this.#child.connected) this.#child.disconnect()
    const late = setTimeout(() => this.#killGroup(), ENDING_MS)
    const tooLate = Promise.withResolvers<void>()
    const leave = setTimeout(tooLate.resolve, ENDING_MS + 500)
    await Promise.race([this.#exit, tooLate.promise])
    clearTimeout(late)
    clearTimeout(leave)
    this.#child.stderr?.destroy()
  }

  #lose(why: DroverError): void {
    if (this.#gone) return
    this.#gone = why
    this.#calls.failAll(why)
    this.windows.close(why)
  }

  #send(message: ToHelper): void {
    // a message that is lost was to a helper that is lost
    if (this.#child.connected) this.#child.send(message, () => undefined)
  }

  #killGroup(): void {
    if (this.#exited || this.#child.pid === undefined) return
    this.#strayed = true
    try {
      process.kill(-this.#child.pid, 'SIGKILL')
    } catch {
      this.#child.kill('SIGKILL')
    }
  }

  #collectLastWords(): void {
    const { stderr } = this.#child
    stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#lastWords = (this.#lastWords + text).slice(-MOST_LAST_WORDS)
    })
    if (stderr && 'unref' in stderr && typeof stderr.unref === 'function') stderr.unref()
  }

  #overdue(): DroverError {
    const { label, callTimeoutMs } = this.#options
    return new DroverError(
      'TARGET_UNREACHABLE',
      `${label} did not answer within ${formatDuration(callTimeoutMs)}`,
      { details: { target: label, timeoutMs: callTimeoutMs }, retryable: true },
    )
  }

  #ended(how: string): DroverError {
    const { label } = this.#options
    return new DroverError(
      'TARGET_UNREACHABLE',
      `the process that works on ${label} ended: ${how}`,
      { details: { target: label, lastWords: this.#lastWords }, retryable: true },
    )
  }
}

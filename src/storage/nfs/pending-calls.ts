/**
 * Calls that were sent to a helper and not answered yet: their deadlines, what the helper asks in
 * the middle of them, and their cancellation.
 */
import { DroverError, abortReason, throwIfAborted } from '../../lib/errors.ts'
import type {
  Answer,
  Asked,
  CallName,
  FromHelper,
  Given,
  Part,
  QuestionName,
  ToHelper,
  Told,
  WireError,
} from './messages.ts'
import { fromWire } from './wire-error.ts'

/** A deadline is counted in turns, so that time in which we were frozen ourselves does not count. */
const TURNS = 8

/** Answers to what a helper may ask in the middle of a call. */
export interface Tells {
  /** Throws when the change must not become visible. */
  readonly grant?: () => void
  readonly body?: () => Promise<Part>
  readonly whole?: (asked: Asked<'whole'>) => boolean
}

export interface CallSettings<Name extends CallName = CallName> {
  readonly signal?: AbortSignal | undefined
  readonly tells?: Tells
  /** Gets an answer that came when nobody waited for it any more. */
  readonly unwanted?: (answer: Answer<Name>) => void
  /** How many deadlines it may take. */
  readonly patience?: number
  /** Signs of life do not give it more time. */
  readonly inAll?: boolean
}

export interface PendingCallsOptions {
  readonly send: (message: ToHelper) => void
  readonly callTimeoutMs: number
  /** How long a grant may be used. */
  readonly grantMs: number
  /** A call was not answered in time. */
  readonly onOverdue: () => void
  /** Whether anybody waits for an answer. */
  readonly onWaiting: (waiting: boolean) => void
}

interface Pending {
  readonly tells: Tells
  readonly turns: number
  turnsLeft: number
  readonly inAll: boolean
  readonly done: (answer: unknown) => void
  readonly fail: (error: WireError | Error) => void
  /** Nothing is told and nothing allowed any more. */
  givenUp: boolean
  /** When a change was last allowed. */
  grantedMs: number
  /** What an answer of ours failed with; it tells more than what the helper makes of that. */
  failure: { readonly error: unknown } | undefined
}

export class PendingCalls {
  readonly #options: PendingCallsOptions
  readonly #pending = new Map<number, Pending>()
  #tickets = 0
  #waiting = 0
  #timer: NodeJS.Timeout | undefined

  constructor(options: PendingCallsOptions) {
    this.#options = options
  }

  /** @returns the answer, and a promise that settles when the helper is done with the call */
  send<Name extends CallName>(
    name: Name,
    given: Given<Name>,
    { signal, tells = {}, patience = 1, inAll = false, unwanted }: CallSettings<Name>,
  ): { readonly answer: Promise<Answer<Name>>; readonly over: Promise<void> } {
    const ticket = this.#tickets++
    const over = Promise.withResolvers<void>()
    const answer = Promise.withResolvers<Answer<Name>>()
    const turns = Math.ceil(TURNS * patience)
    const isOver = () => {
      this.#pending.delete(ticket)
      if (this.#pending.size === 0) clearInterval(this.#timer)
      signal?.removeEventListener('abort', onAbort)
      over.resolve()
    }
    const pending: Pending = {
      tells,
      turns,
      turnsLeft: turns,
      inAll,
      givenUp: false,
      grantedMs: -Infinity,
      failure: undefined,
      done(value) {
        isOver()
        if (pending.givenUp) unwanted?.(value as Answer<Name>)
        answer.resolve(value as Answer<Name>)
      },
      fail(error) {
        isOver()
        answer.reject(whyFailed(error, pending.failure, signal))
      },
    }
    const onAbort = () => {
      if (!signal) return
      pending.givenUp = true
      this.#options.send({ kind: 'cancel', ticket })
      // What was allowed a moment ago may be happening now: its outcome is waited for, as long as
      // the permission can be used.
      const waitMs = pending.grantedMs + this.#options.grantMs - performance.now()
      if (waitMs > 0) setTimeout(() => answer.reject(abortReason(signal)), waitMs).unref()
      else answer.reject(abortReason(signal))
    }
    throwIfAborted(signal)
    signal?.addEventListener('abort', onAbort, { once: true })
    if (this.#pending.size === 0) this.#startTimer()
    this.#pending.set(ticket, pending)
    this.#countWaiting(answer.promise)
    this.#options.send({ kind: 'call', ticket, name, given })
    return { answer: answer.promise, over: over.promise }
  }

  receive(message: FromHelper): void {
    const pending = this.#pending.get(message.ticket)
    if (pending && !pending.inAll) pending.turnsLeft = pending.turns
    switch (message.kind) {
      case 'done':
        return pending?.done(message.answer)
      case 'failed':
        return pending?.fail(message.error)
      case 'question':
        return this.#tell(message, pending)
      case 'alive':
    }
  }

  failAll(error: DroverError): void {
    for (const pending of this.#pending.values()) pending.fail(error)
  }

  #tell(message: Extract<FromHelper, { kind: 'question' }>, pending: Pending | undefined): void {
    const { question, name, asked } = message
    const notTold = () => this.#options.send({ kind: 'not-told', question })
    if (!pending || pending.givenUp || pending.failure) return notTold()
    const failed = (error: unknown) => {
      pending.failure ??= { error }
      notTold()
    }
    const told = (answer: Told<QuestionName>) => {
      if (pending.givenUp) notTold()
      else this.#options.send({ kind: 'told', question, answer })
    }
    try {
      // without a turn in between: what is refused once is refused from then on
      const answer = tell(pending, name, asked)
      if (answer instanceof Promise) answer.then(told, failed)
      else told(answer)
    } catch (error) {
      failed(error)
    }
  }

  #countWaiting(answer: Promise<unknown>): void {
    if (this.#waiting++ === 0) this.#options.onWaiting(true)
    const settled = () => {
      if (--this.#waiting === 0) this.#options.onWaiting(false)
    }
    answer.then(settled, settled)
  }

  #startTimer(): void {
    const turn = () => {
      for (const pending of this.#pending.values()) pending.turnsLeft -= 1
      if ([...this.#pending.values()].some(({ turnsLeft }) => turnsLeft < 0)) {
        this.#options.onOverdue()
      }
    }
    this.#timer = setInterval(turn, this.#options.callTimeoutMs / TURNS).unref()
  }
}

function tell(
  pending: Pending,
  name: QuestionName,
  asked: unknown,
): Told<QuestionName> | Promise<Part> {
  const { tells } = pending
  switch (name) {
    case 'grant': {
      // the time from before, so that it never looks younger than it is
      const granted = { monotonicNs: process.hrtime.bigint(), wallMs: Date.now() }
      tells.grant?.()
      pending.grantedMs = performance.now()
      return granted
    }
    case 'body':
      if (!tells.body) break
      return tells.body()
    case 'whole':
      if (!tells.whole) break
      return tells.whole(asked as Asked<'whole'>)
  }
  throw new DroverError('INTERNAL', `nobody answers the question for ${name}`)
}

function whyFailed(
  error: WireError | Error,
  failure: { readonly error: unknown } | undefined,
  signal: AbortSignal | undefined,
): unknown {
  if (failure) return failure.error
  if (error instanceof Error) return error
  if (signal?.aborted && error.code === 'INTERRUPTED') return abortReason(signal)
  return fromWire(error)
}

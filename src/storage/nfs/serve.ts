/** The loop of a helper: takes calls, all at once, and answers each; asks back where it must. */
import { DroverError, interrupted } from '../../lib/errors.ts'
import type {
  Answer,
  Asked,
  CallName,
  FromHelper,
  Given,
  QuestionName,
  ToHelper,
  Told,
} from './messages.ts'
import { toWire } from './wire-error.ts'

/** Signs of life are not worth more messages than this. */
const ALIVE_EVERY_MS = 100

export interface CallContext {
  /** Aborted when the caller gave up. */
  readonly signal: AbortSignal
  /** Asks the caller; rejects when it does not want to tell. */
  readonly ask: <Name extends QuestionName>(name: Name, asked: Asked<Name>) => Promise<Told<Name>>
  /** Tells the caller that a long call goes on. */
  readonly alive: () => void
}

export type Handlers = {
  readonly [Name in CallName]: (
    given: Given<Name>,
    context: CallContext,
  ) => Promise<Answer<Name>> | Answer<Name>
}

export interface Server {
  receive(message: ToHelper): void
  /** Cancels everything; nothing is answered any more. */
  stop(): void
}

export function serve(handlers: Handlers, send: (message: FromHelper) => void): Server {
  const running = new Map<number, AbortController>()
  const asked = new Map<number, PromiseWithResolvers<unknown>>()
  let questions = 0
  let stopped = false

  const contextOf = (ticket: number, signal: AbortSignal): CallContext => {
    let lastSignMs = performance.now()
    return {
      signal,
      async ask(name, what) {
        if (signal.aborted || stopped) throw interrupted()
        const question = questions++
        const answer = Promise.withResolvers<unknown>()
        asked.set(question, answer)
        send({ kind: 'question', question, ticket, name, asked: what })
        return answer.promise as Promise<Told<typeof name>>
      },
      alive() {
        if (performance.now() - lastSignMs < ALIVE_EVERY_MS) return
        lastSignMs = performance.now()
        send({ kind: 'alive', ticket })
      },
    }
  }

  const run = async ({ ticket, name, given }: Extract<ToHelper, { kind: 'call' }>) => {
    const abort = new AbortController()
    running.set(ticket, abort)
    try {
      const answer = await answerOf(handlers, name, given, contextOf(ticket, abort.signal))
      if (!stopped) send({ kind: 'done', ticket, answer })
    } catch (error) {
      if (!stopped) send({ kind: 'failed', ticket, error: toWire(error) })
    } finally {
      running.delete(ticket)
    }
  }

  const told = (question: number): PromiseWithResolvers<unknown> | undefined => {
    const answer = asked.get(question)
    asked.delete(question)
    return answer
  }

  return {
    receive(message) {
      switch (message.kind) {
        case 'call':
          void run(message)
          return
        case 'cancel':
          return running.get(message.ticket)?.abort(interrupted())
        case 'told':
          return told(message.question)?.resolve(message.answer)
        case 'not-told':
          return told(message.question)?.reject(interrupted())
      }
    },
    stop() {
      stopped = true
      for (const abort of running.values()) abort.abort(interrupted())
      for (const answer of asked.values()) answer.reject(interrupted())
      asked.clear()
    },
  }
}

function answerOf(
  handlers: Handlers,
  name: CallName,
  given: unknown,
  context: CallContext,
): unknown {
  if (!Object.hasOwn(handlers, name)) {
    throw new DroverError('INTERNAL', `a helper has no answer to ${JSON.stringify(name)}`)
  }
  const handler = handlers[name] as (given: unknown, context: CallContext) => unknown
  return handler(given, context)
}

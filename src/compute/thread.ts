/** A thread as the pool sees it: tasks go in, answers come back. */
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import { DroverError } from '../lib/errors.ts'
import type { Answers, Reply, Request, Task, ThreadData } from './messages.ts'

export interface Thread<Kinds extends keyof Answers> {
  /** Tasks given and not answered. */
  waiting(): number
  run<Kind extends Kinds>(task: Task<Kind>): Promise<Answers[Kind]>
  close(): Promise<void>
}

interface Waiter {
  readonly resolve: (value: Answers[keyof Answers]) => void
  readonly reject: (error: Error) => void
}

/** @param entry the thread's own file in this folder, without its extension */
export function startThread<Kinds extends keyof Answers>(
  entry: string,
  data: ThreadData,
): Thread<Kinds> {
  // from sources and from the build alike
  const file = new URL(`./${entry}${extname(import.meta.filename)}`, import.meta.url)
  const worker = new Worker(file, { workerData: data })
  const pending = new Map<number, Waiter>()
  let tickets = 0
  let failed: Error | undefined

  const fail = (error: Error) => {
    failed ??= error
    for (const { reject } of pending.values()) reject(error)
    pending.clear()
  }
  worker.on('message', (reply: Reply) => {
    const waiter = pending.get(reply.ticket)
    pending.delete(reply.ticket)
    if (pending.size === 0) worker.unref()
    if ('error' in reply) waiter?.reject(asInternal(reply.error))
    else waiter?.resolve(reply.value)
  })
  worker.on('error', (error) => fail(asInternal(error)))
  worker.on('exit', (code) => fail(asInternal(new Error(`a thread ended with code ${code}`))))
  worker.unref()

  return {
    waiting: () => pending.size,
    run<Kind extends Kinds>(task: Task<Kind>) {
      return new Promise<Answers[Kind]>((resolve, reject) => {
        if (failed) return reject(failed)
        const ticket = tickets++
        pending.set(ticket, { resolve: resolve as Waiter['resolve'], reject })
        if (pending.size === 1) worker.ref()
        const request: Request<Kind> = { ticket, task }
        worker.postMessage(request)
      })
    },
    async close() {
      failed ??= new DroverError('INTERNAL', 'the thread was closed')
      await worker.terminate()
    },
  }
}

const asInternal = (cause: Error): DroverError =>
  new DroverError('INTERNAL', `a compute thread failed: ${cause.message}`, { cause })

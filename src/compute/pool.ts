/**
 * Threads that hash and (de)compress. Blocks never travel: main thread and threads look at the
 * same memory, cut into slots, and only small messages go back and forth.
 *
 * One thread has the hash of the whole file to itself, because that hash is serial and, with
 * SHA-512 at about 1 GB/s, what a run waits for in the end. The others share the blocks.
 */
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import { DroverError, abortReason } from '../lib/errors.ts'
import type { BlockCompute, FileHash } from '../backupstore/compute.ts'
import type { Answers, Reply, Request, Task, ThreadData } from './messages.ts'
import { slotMemory, slotsOf } from './slots.ts'

export interface ComputeOptions {
  /** Threads for blocks; the file's hash has one of its own besides. */
  readonly blockThreads: number
  /** Pairs of buffers; 4 MiB each, touched only when used. */
  readonly slots: number
}

export interface Compute extends BlockCompute {
  close(): Promise<void>
}

type TaskOf<Kind> = Extract<Task, { kind: Kind }>

export function openCompute(options: ComputeOptions): Compute {
  const memory = slotMemory(options.slots)
  const slots = slotsOf(memory, options.slots)
  const data: ThreadData = { memory, slots: options.slots }
  const blockThreads = Array.from({ length: options.blockThreads }, () => startThread(data))
  const hashThread = startThread(data)

  const onBlocks = <Kind extends keyof Answers>(task: TaskOf<Kind>): Promise<Answers[Kind]> => {
    const idlest = blockThreads.reduce((a, b) => (b.waiting() < a.waiting() ? b : a))
    return idlest.run(task)
  }

  return {
    slots,
    identify: ({ index }, length) =>
      onBlocks<'identify'>({ kind: 'identify', slot: index, length }),
    encode: ({ index }, length, compression) =>
      onBlocks<'encode'>({ kind: 'encode', slot: index, length, compression }),
    decode: ({ index }, storedLength, block) =>
      onBlocks<'decode'>({ kind: 'decode', slot: index, storedLength, ...block }),
    openFileHash: (signal) => inOrder(hashThread, signal),
    async close() {
      await Promise.all([hashThread, ...blockThreads].map((thread) => thread.close()))
    },
  }
}

interface Thread {
  /** Tasks given and not answered. */
  waiting(): number
  run<Kind extends keyof Answers>(task: TaskOf<Kind>): Promise<Answers[Kind]>
  close(): Promise<void>
}

function startThread(data: ThreadData): Thread {
  // from sources and from the build alike
  const entry = new URL(`./thread${extname(import.meta.filename)}`, import.meta.url)
  const worker = new Worker(entry, { workerData: data })
  const pending = new Map<
    number,
    { resolve: (value: Answers[keyof Answers]) => void; reject: (error: Error) => void }
  >()
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
    run<Kind extends keyof Answers>(task: TaskOf<Kind>) {
      return new Promise<Answers[Kind]>((resolve, reject) => {
        if (failed) return reject(failed)
        const ticket = tickets++
        pending.set(ticket, { resolve: resolve as (value: Answers[keyof Answers]) => void, reject })
        worker.ref()
        const request: Request = { ticket, task }
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

/** Pieces in any order become tasks in file order; a thread answers them in the order it got them. */
function inOrder(thread: Thread, signal: AbortSignal): FileHash {
  const early = new Map<number, () => void>()
  let next = 0
  const started = thread.run<'hash-start'>({ kind: 'hash-start' })
  started.catch(() => undefined)

  const add = (order: number, send: () => Promise<undefined>): Promise<void> =>
    new Promise<void>((resolve, reject) => {
      if (signal.aborted) return reject(abortReason(signal))
      const onAbort = () => reject(abortReason(signal))
      signal.addEventListener('abort', onAbort, { once: true })
      early.set(order, () => {
        send()
          .then(resolve, reject)
          .finally(() => signal.removeEventListener('abort', onAbort))
      })
      for (let ready = early.get(next); ready; ready = early.get(next)) {
        early.delete(next)
        next += 1
        ready()
      }
    })

  return {
    addBlock: (order, { index }, length) =>
      add(order, () => thread.run<'hash-block'>({ kind: 'hash-block', slot: index, length })),
    addZeros: (order, bytes) =>
      add(order, () => thread.run<'hash-zeros'>({ kind: 'hash-zeros', bytes })),
    async digest() {
      await started
      return thread.run<'hash-digest'>({ kind: 'hash-digest' })
    },
  }
}

import { abortReason } from '../lib/errors.ts'
import type { FileHash } from '../backupstore/compute.ts'
import type { HashKind } from './messages.ts'
import type { Thread } from './thread.ts'

/** Pieces in any order become tasks in file order; a thread answers them in the order it got them. */
export function fileHashOn(thread: Thread<HashKind>, signal: AbortSignal): FileHash {
  const early = new Map<number, () => void>()
  let next = 0
  const started = thread.run({ kind: 'hash-start' })
  started.catch(() => undefined)

  const add = <T>(order: number, send: () => Promise<T>): Promise<T> =>
    new Promise<T>((resolve, reject) => {
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
    addAndSeal: (order, { index }, length) =>
      add(order, () =>
        thread.run<'hash-and-seal'>({ kind: 'hash-and-seal', slot: index, length, order }),
      ),
    addZeros: (order, bytes) =>
      add(order, () => thread.run<'hash-zeros'>({ kind: 'hash-zeros', bytes })),
    async digest() {
      await started
      return thread.run<'hash-digest'>({ kind: 'hash-digest' })
    },
  }
}

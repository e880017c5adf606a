import { abortReason } from './errors.ts'

/**
 * The project's one way to be concurrent. Each lane owns a resource (a pair of buffers, a
 * connection) and pulls the next item when it is free, so that the lanes themselves are the bound
 * on memory and the back-pressure on whoever produces items.
 *
 * The first failure stops the feeding and aborts the signal given to `work`; every lane settles
 * before that failure is thrown, so nothing still runs when this returns.
 */
export async function runLanes<Lane, Item>(
  lanes: readonly Lane[],
  items: Iterator<Item>,
  signal: AbortSignal,
  work: (item: Item, lane: Lane, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const stop = new AbortController()
  const joined = AbortSignal.any([signal, stop.signal])
  let failure: { error: unknown } | undefined

  const run = async (lane: Lane): Promise<void> => {
    while (!joined.aborted) {
      try {
        const next = items.next()
        if (next.done) return
        await work(next.value, lane, joined)
      } catch (error) {
        failure ??= { error }
        stop.abort(error)
      }
    }
  }
  await Promise.all(lanes.map(run))
  if (failure) throw failure.error
  if (signal.aborted) throw abortReason(signal)
}

/** Waits for `promise`, but no longer than until `signal` is aborted. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  promise.catch(() => undefined) // its failure is nobody's any more once the signal is aborted
  if (signal.aborted) return Promise.reject(abortReason(signal))
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(abortReason(signal))
    signal.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}

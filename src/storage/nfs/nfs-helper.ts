/**
 * The helper process: a server of one target for the process that started it, and the only one that
 * touches that target. It ends when that process does, in whatever way that happened.
 */
import type { FromHelper, ToHelper } from './messages.ts'
import { workWith } from './handlers.ts'
import { serve } from './serve.ts'
import { WINDOWS_FD, WindowBuffers } from './windows.ts'

/** How long it may take to unmount when nobody waits for it. */
const LEAVING_MS = 10_000

// Our end is the other process's to decide: it may have a lock to give up first.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined)

const gone = new AbortController()
const work = workWith(new WindowBuffers(WINDOWS_FD), gone.signal)
const server = serve(work.handlers, (message: FromHelper) => {
  process.send?.(message, undefined, {}, () => undefined)
})

/** `process.exit` would wait for threads, and one may be waiting for a dead server. */
const end = () => process.kill(process.pid, 'SIGKILL')

process.on('message', (message: ToHelper) => server.receive(message))
process.on('disconnect', () => {
  server.stop()
  gone.abort()
  setTimeout(end, LEAVING_MS)
  work.leave().then(end, end)
})

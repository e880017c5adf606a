/** The loop of a thread: takes its tasks one after the other and answers each. */
import { parentPort } from 'node:worker_threads'
import type { Answers, Reply, Request, Task } from './messages.ts'

/** One task in each turn of the loop: between turns buffers that were collected are freed. */
export function serve<Kind extends keyof Answers>(
  run: (task: Task<Kind>) => Answers[Kind],
  options: { readonly answered?: (task: Task<Kind>) => void } = {},
): void {
  const queue: Request<Kind>[] = []

  const next = () => {
    const request = queue[0]
    if (!request) return
    parentPort?.postMessage(replyTo(request, run))
    options.answered?.(request.task)
    queue.shift()
    if (queue.length > 0) setImmediate(next)
  }
  parentPort?.on('message', (request: Request<Kind>) => {
    if (queue.push(request) === 1) setImmediate(next)
  })
}

function replyTo<Kind extends keyof Answers>(
  { ticket, task }: Request<Kind>,
  run: (task: Task<Kind>) => Answers[Kind],
): Reply {
  try {
    return { ticket, value: run(task) }
  } catch (error) {
    return { ticket, error: error instanceof Error ? error : new Error(String(error)) }
  }
}

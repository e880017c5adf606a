/** The thread of the file's hash. It loads nothing else: it is on the way of every run's end. */
import { createHash } from 'node:crypto'
import { workerData } from 'node:worker_threads'
import type { Checksum } from '../backupstore/block.ts'
import type { Answers, HashKind, Task, ThreadData } from './messages.ts'
import { sealOf } from './seal.ts'
import { serve } from './serve.ts'
import { slotAt, slotsOf } from './slots.ts'

/** Small enough to stay in a core's own cache. */
const ZEROS = Buffer.alloc(128 * 1024)

const { memory, slots: count, sealKey } = workerData as ThreadData
const slots = slotsOf(memory, count)
let hash = createHash('sha512')

serve<HashKind>(run)

function run(task: Task<HashKind>): Answers[HashKind] {
  switch (task.kind) {
    case 'hash-start':
      hash = createHash('sha512')
      return undefined
    case 'hash-block':
      hash.update(slotAt(slots, task.slot).raw.subarray(0, task.length))
      return undefined
    case 'hash-and-seal': {
      const bytes = slotAt(slots, task.slot).raw.subarray(0, task.length)
      hash.update(bytes)
      return sealOf(bytes, task.order, sealKey)
    }
    case 'hash-zeros':
      for (let left = task.bytes; left > 0; left -= ZEROS.length) {
        hash.update(left < ZEROS.length ? ZEROS.subarray(0, left) : ZEROS)
      }
      return undefined
    case 'hash-digest':
      return hash.digest('hex') as Checksum
  }
}

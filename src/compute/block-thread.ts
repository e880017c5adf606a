/** A thread for blocks: finds ids, compresses and decodes. Blocks come and go in shared memory. */
import { hash } from 'node:crypto'
import { workerData } from 'node:worker_threads'
import { blockIdOf, decodeBlock, encodeBlock } from '../backupstore/codec.ts'
import type { DecodeResult, Slot } from '../backupstore/compute.ts'
import type { Answers, BlockKind, Task, ThreadData } from './messages.ts'
import { outputFreer } from './free-outputs.ts'
import { stepBack } from './priority.ts'
import { sealOf } from './seal.ts'
import { serve } from './serve.ts'
import { slotAt, slotsOf } from './slots.ts'

const { memory, slots: count, sealKey } = workerData as ThreadData
const slots = slotsOf(memory, count)
const freeOutput = outputFreer()

serve<BlockKind>(run, {
  answered({ kind }) {
    if (kind === 'encode' || kind === 'encode-with-md5' || kind === 'decode') freeOutput()
  },
})

function run(task: Task<BlockKind>): Answers[BlockKind] {
  if (task.kind === 'step-back') {
    stepBack()
    return undefined
  }
  const slot = slotAt(slots, task.slot)
  switch (task.kind) {
    case 'identify':
      return blockIdOf(slot.raw.subarray(0, task.length))
    case 'identify-sealed':
      return isSealed(slot, task) ? blockIdOf(slot.raw.subarray(0, task.length)) : undefined
    case 'is-sealed':
      return isSealed(slot, task)
    case 'encode':
      return encode(slot, task)
    case 'encode-with-md5': {
      const bytes = encode(slot, task)
      const md5 = hash('md5', slot.stored.subarray(0, bytes), 'base64')
      return { bytes, md5 }
    }
    case 'decode':
      return decode(slot, task)
  }
}

const isSealed = ({ raw }: Slot, { length, seal }: Task<'is-sealed' | 'identify-sealed'>) =>
  sealOf(raw.subarray(0, length), seal.order, sealKey).mac === seal.mac

function encode({ raw, stored }: Slot, task: Task<'encode' | 'encode-with-md5'>): number {
  const encoded = encodeBlock(raw.subarray(0, task.length), task.compression)
  if (encoded.length > stored.length) throw new Error(`a block grew to ${encoded.length} bytes`)
  return encoded.copy(stored)
}

function decode({ raw, stored }: Slot, task: Task<'decode'>): DecodeResult {
  const { storedLength, length, id } = task
  const result = decodeBlock(stored.subarray(0, storedLength), length, id, task)
  if (!result.ok) return result
  result.bytes.copy(raw)
  return { ok: true, stored: result.stored }
}

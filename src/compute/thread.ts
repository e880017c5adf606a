/** A worker thread: takes one task after the other; blocks come and go in shared memory. */
import { createHash } from 'node:crypto'
import type { Hash } from 'node:crypto'
import { parentPort, workerData } from 'node:worker_threads'
import type { Checksum } from '../backupstore/block.ts'
import { blockIdOf, decodeBlock, encodeBlock } from '../backupstore/codec.ts'
import type { DecodeResult, Slot } from '../backupstore/compute.ts'
import type { Answers, Reply, Request, Task, ThreadData } from './messages.ts'
import { outputFreer } from './free-buffers.ts'
import { slotsOf } from './slots.ts'

/** Small enough to stay in a core's own cache. */
const ZEROS = Buffer.alloc(128 * 1024)

const { memory, slots: count } = workerData as ThreadData
const slots = slotsOf(memory, count)
const freeOutputs = outputFreer()
let fileHash: Hash = createHash('sha512')

const queue: Request[] = []

parentPort?.on('message', (request: Request) => {
  if (queue.push(request) === 1) setImmediate(next)
})

/** One task in each turn of the loop: between turns the outputs that were collected are freed. */
function next(): void {
  const request = queue[0]
  if (!request) return
  answer(request)
  queue.shift()
  if (queue.length > 0) setImmediate(next)
}

function answer({ ticket, task }: Request): void {
  let reply: Reply
  try {
    reply = { ticket, value: run(task) }
  } catch (error) {
    reply = { ticket, error: error instanceof Error ? error : new Error(String(error)) }
  }
  parentPort?.postMessage(reply)
  if (task.kind === 'encode' || task.kind === 'decode') freeOutputs()
}

function run(task: Task): Answers[Task['kind']] {
  switch (task.kind) {
    case 'identify': {
      const bytes = slotAt(task.slot).raw.subarray(0, task.length)
      return isZero(bytes) ? undefined : blockIdOf(bytes)
    }
    case 'encode': {
      const { raw, stored } = slotAt(task.slot)
      const encoded = encodeBlock(raw.subarray(0, task.length), task.compression)
      if (encoded.length > stored.length) throw new Error(`a block grew to ${encoded.length} bytes`)
      return encoded.copy(stored)
    }
    case 'decode':
      return decode(slotAt(task.slot), task)
    case 'hash-start':
      fileHash = createHash('sha512')
      return undefined
    case 'hash-block':
      fileHash.update(slotAt(task.slot).raw.subarray(0, task.length))
      return undefined
    case 'hash-zeros':
      for (let left = task.bytes; left > 0; left -= ZEROS.length) {
        fileHash.update(left < ZEROS.length ? ZEROS.subarray(0, left) : ZEROS)
      }
      return undefined
    case 'hash-digest':
      return fileHash.digest('hex') as Checksum
  }
}

function decode({ raw, stored }: Slot, task: Task & { kind: 'decode' }): DecodeResult {
  const { storedLength, length, id, strictness } = task
  const result = decodeBlock(stored.subarray(0, storedLength), length, id, strictness)
  if (!result.ok) return result
  result.bytes.copy(raw)
  return { ok: true, stored: result.stored }
}

function isZero(bytes: Buffer): boolean {
  for (let at = 0; at < bytes.length; at += ZEROS.length) {
    const piece = bytes.subarray(at, at + ZEROS.length)
    if (piece.compare(ZEROS, 0, piece.length) !== 0) return false
  }
  return true
}

function slotAt(index: number): Slot {
  const slot = slots[index]
  if (!slot) throw new Error(`no slot ${index}`)
  return slot
}

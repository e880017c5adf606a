/**
 * Threads that hash and (de)compress. Blocks never travel: main thread and threads look at the
 * same memory, cut into slots, and only small messages go back and forth.
 *
 * One thread has the hash of the whole file to itself, because that hash is serial and, with
 * SHA-512 at about 1 GB/s, what a run waits for in the end. The others share the blocks.
 */
import { randomBytes } from 'node:crypto'
import type { BlockCompute } from '../backupstore/compute.ts'
import { DroverError } from '../lib/errors.ts'
import { fileHashOn } from './file-hash.ts'
import type { BlockKind, HashKind, ThreadData } from './messages.ts'
import { SEAL_KEY_BYTES } from './seal.ts'
import { slotMemory, slotsOf } from './slots.ts'
import type { Thread } from './thread.ts'
import { startThread } from './thread.ts'

export interface ComputeOptions {
  /** Threads for blocks; the file's hash has one of its own besides. */
  readonly blockThreads: number
  /** Pairs of buffers; 4 MiB each, touched only when used. */
  readonly slots: number
  /** Threads take a moment to start, and memory; true: not before there is something to compute. */
  readonly startLater?: boolean
}

export interface Compute extends BlockCompute {
  close(): Promise<void>
}

export function openCompute(options: ComputeOptions): Compute {
  const memory = slotMemory(options.slots)
  const slots = slotsOf(memory, options.slots)
  const data: ThreadData = { memory, slots: options.slots, sealKey: randomBytes(SEAL_KEY_BYTES) }
  let threads: Threads | undefined
  let closed = false
  const running = () => {
    if (closed && !threads) throw new DroverError('INTERNAL', 'the threads were closed')
    return (threads ??= startThreads(options.blockThreads, data))
  }
  const idlest = () => running().forBlocks.reduce((a, b) => (b.waiting() < a.waiting() ? b : a))
  if (!options.startLater) running()

  return {
    slots,
    isBusy: () => idlest().waiting() > 0,
    identify: ({ index }, length) =>
      idlest().run<'identify'>({ kind: 'identify', slot: index, length }),
    identifySealed: ({ index }, length, seal) =>
      idlest().run<'identify-sealed'>({ kind: 'identify-sealed', slot: index, length, seal }),
    isSealed: ({ index }, length, seal) =>
      idlest().run<'is-sealed'>({ kind: 'is-sealed', slot: index, length, seal }),
    encodeWithMd5: ({ index }, length, compression) =>
      idlest().run<'encode-with-md5'>({
        kind: 'encode-with-md5',
        slot: index,
        length,
        compression,
      }),
    encode: ({ index }, length, compression) =>
      idlest().run<'encode'>({ kind: 'encode', slot: index, length, compression }),
    decode: ({ index }, storedLength, block) =>
      idlest().run<'decode'>({ kind: 'decode', slot: index, storedLength, ...block }),
    openFileHash(signal) {
      const { forFile, forBlocks } = running()
      for (const thread of forBlocks) {
        // a thread that fails tells with its next block
        thread.run({ kind: 'step-back' }).catch(() => undefined)
      }
      return fileHashOn(forFile, signal)
    },
    async close() {
      closed = true
      if (!threads) return
      await Promise.all([threads.forFile, ...threads.forBlocks].map((thread) => thread.close()))
    },
  }
}

interface Threads {
  readonly forFile: Thread<HashKind>
  readonly forBlocks: ReadonlyArray<Thread<BlockKind>>
}

const startThreads = (blockThreads: number, data: ThreadData): Threads => ({
  // first, because its work is the longest
  forFile: startThread('hash-thread', data),
  forBlocks: Array.from({ length: blockThreads }, () => startThread('block-thread', data)),
})

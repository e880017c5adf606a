/** What the pool and its threads say to each other. */
import type { BlockId, Checksum } from '../backupstore/block.ts'
import type { Compression, Strictness } from '../backupstore/compression.ts'
import type { DecodeResult } from '../backupstore/compute.ts'

export type Task =
  | { readonly kind: 'identify'; readonly slot: number; readonly length: number }
  | {
      readonly kind: 'encode'
      readonly slot: number
      readonly length: number
      readonly compression: Compression
    }
  | {
      readonly kind: 'decode'
      readonly slot: number
      readonly storedLength: number
      readonly length: number
      readonly id: BlockId
      readonly strictness: Strictness
    }
  // the file hash lives in one thread, which takes these in order
  | { readonly kind: 'hash-start' }
  | { readonly kind: 'hash-block'; readonly slot: number; readonly length: number }
  | { readonly kind: 'hash-zeros'; readonly bytes: number }
  | { readonly kind: 'hash-digest' }

export interface Answers {
  identify: BlockId | undefined
  encode: number
  decode: DecodeResult
  'hash-start': undefined
  'hash-block': undefined
  'hash-zeros': undefined
  'hash-digest': Checksum
}

export interface Request {
  readonly ticket: number
  readonly task: Task
}

export type Reply =
  | { readonly ticket: number; readonly value: Answers[keyof Answers] }
  | { readonly ticket: number; readonly error: Error }

/** What a thread is given at its start. */
export interface ThreadData {
  readonly memory: SharedArrayBuffer
  readonly slots: number
}

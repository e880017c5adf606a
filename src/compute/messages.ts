/** What the pool and its threads say to each other. */
import type { BlockId, Checksum } from '../backupstore/block.ts'
import type { Compression } from '../backupstore/compression.ts'
import type { BlockToDecode, DecodeResult, Encoded, Seal } from '../backupstore/compute.ts'

/** What each kind of task is given. */
interface Given {
  identify: { readonly slot: number; readonly length: number }
  'identify-sealed': { readonly slot: number; readonly length: number; readonly seal: Seal }
  'is-sealed': { readonly slot: number; readonly length: number; readonly seal: Seal }
  encode: { readonly slot: number; readonly length: number; readonly compression: Compression }
  'encode-with-md5': Given['encode']
  decode: BlockToDecode & { readonly slot: number; readonly storedLength: number }
  /** From now on a file is hashed: that goes first. */
  'step-back': object
  // the file hash lives in a thread of its own, which takes these in order
  'hash-start': object
  'hash-block': { readonly slot: number; readonly length: number }
  'hash-and-seal': { readonly slot: number; readonly length: number; readonly order: number }
  'hash-zeros': { readonly bytes: number }
  'hash-digest': object
}

export interface Answers {
  identify: BlockId
  /** undefined when the bytes are not those that were sealed. */
  'identify-sealed': BlockId | undefined
  'is-sealed': boolean
  /** The stored length. */
  encode: number
  'encode-with-md5': Encoded
  decode: DecodeResult
  'step-back': undefined
  'hash-start': undefined
  'hash-block': undefined
  'hash-and-seal': Seal
  'hash-zeros': undefined
  'hash-digest': Checksum
}

export type HashKind = Extract<keyof Answers, `hash-${string}`>
export type BlockKind = Exclude<keyof Answers, HashKind>

/** A union over the kinds, so that `kind` tells the rest. */
export type Task<Kind extends keyof Answers> = {
  [K in Kind]: { readonly kind: K } & Given[K]
}[Kind]

export interface Request<Kind extends keyof Answers> {
  readonly ticket: number
  readonly task: Task<Kind>
}

export type Reply =
  | { readonly ticket: number; readonly value: Answers[keyof Answers] }
  | { readonly ticket: number; readonly error: Error }

/** What a thread is given at its start. */
export interface ThreadData {
  readonly memory: SharedArrayBuffer
  readonly slots: number
  readonly sealKey: Uint8Array
}

/**
 * The port to where a store's objects live: a folder, a bucket, memory. Drivers implement it in
 * `storage/`; everything else speaks to one of the capabilities below and asks for the least.
 *
 * The contract, which one suite (`test/contract/`) holds every driver to:
 *
 * - **Absent, unreachable and corrupt are three answers.** An object that is not there is
 *   `undefined` (or an empty listing). Everything else that goes wrong is thrown as a DroverError
 *   with a TARGET_ code. A listing that could not be finished throws; it never ends early.
 * - **Whole or not at all.** What `put` and `publish` write appears under its key with all its
 *   bytes or does not appear. What stood there before stays until that moment.
 * - **Durable means acknowledged by the disk.** `publish`, and `put` with `durable`, settle only
 *   when the bytes and the name survive a power cut.
 * - **Times and versions are the server's.** `modifiedAtMs` is the server's clock; `version`
 *   changes whenever the object is written again.
 * - **Keys are plain.** Segments joined by `/`, none of them empty, `.` or `..`. A driver never
 *   follows a key, or a link found on its way, out of the target.
 * - **Cancellation.** An aborted signal ends the call with the signal's reason; what it was
 *   writing does not appear.
 */
import type { DroverError } from '../lib/errors.ts'
import type { Key } from './layout.ts'

export interface ObjectInfo {
  readonly key: Key
  readonly sizeBytes: number
  /**
   * The server's time of the last write, ms since 1970, as exact as the server tells. What a `put`
   * answers may be the time of the answer, a moment later, where the server tells no other.
   */
  readonly modifiedAtMs: number
  /** Equal only when the object was not written in between (an ETag; or inode, time and size). */
  readonly version: string
  /**
   * Only in listings: something that is no plain object stands here (a link, a pipe, a linked
   * folder). It cannot be read, and must not be overlooked where everything has to be known.
   */
  readonly notPlain?: true
}

export interface OpenObject {
  readonly info: ObjectInfo
  /** The bytes, in order; read once. */
  readonly chunks: AsyncIterable<Uint8Array>
}

export interface CallOptions {
  readonly signal?: AbortSignal
}

export interface WriteCallOptions extends CallOptions {
  /**
   * Called as the very last thing before the change becomes visible, with nothing awaited in
   * between; it stops the change by throwing. A holder of a lock asserts here that it still is.
   */
  readonly before?: () => void
}

export interface ReadStore {
  /** Facts about one object. */
  stat(key: Key, options?: CallOptions): Promise<ObjectInfo | undefined>

  /** A stream of one object, at most its first `firstBytes`. */
  open(
    key: Key,
    options?: CallOptions & { readonly firstBytes?: number },
  ): Promise<OpenObject | undefined>

  /**
   * Reads a whole object to the start of `into`.
   * @returns its length, which is larger than `into` when it did not fit (and was not read)
   */
  readInto(key: Key, into: Uint8Array, options?: CallOptions): Promise<number | undefined>

  /** Every object below a prefix that ends in `/`, in pages of any size and order. */
  list(prefix: Key, options?: CallOptions): AsyncIterable<readonly ObjectInfo[]>
}

/** Bytes to write, of known length; may be asked for more than once (a retry). */
export interface Body {
  readonly sizeBytes: number
  /** MD5 of all bytes, base64, where somebody has it already. */
  readonly md5?: string
  chunks(): Iterable<Uint8Array>
}

export interface PutOptions extends WriteCallOptions {
  /** Settle only when a power cut could not undo it. */
  readonly durable?: boolean
  /**
   * What must stand at the key: nothing, or this version. A driver that can do so checks and
   * writes in one step; one that cannot checks immediately before.
   */
  readonly expect?: 'absent' | { readonly version: string }
  /** `expect` is not worth a request of its own: a driver that would need one does without. */
  readonly expectIfFree?: boolean
}

/** Not every server tells the version of what it just wrote. */
export type WrittenInfo = Omit<ObjectInfo, 'version'>

/** `written: false` means that `expect` did not hold and nothing was changed. */
export type PutResult =
  { readonly written: true; readonly info: WrittenInfo } | { readonly written: false }

export interface WriteStore extends ReadStore {
  /** Sends an MD5 along with every body; best computed where the bytes are made. */
  readonly sendsMd5?: true

  put(key: Key, body: Body, options?: PutOptions): Promise<PutResult>

  /**
   * A place where objects wait, invisible, to be published together. Drivers that have none leave
   * this out, and objects are `put` one by one.
   * @param isWhole tells by its size whether what stands under a key is worth keeping; by default
   * everything that is not empty
   */
  openStaging?(isWhole?: (key: Key, sizeBytes: number) => boolean): Promise<StagingArea>
}

export interface StagingArea {
  /** What is added is moved once more to be published: of use only until it may be. */
  readonly isScratch?: true

  /** Whether more should be added; always, unless the area says so. */
  hasRoom?(): boolean

  /**
   * Keeps a copy of the bytes; they may be reused when this settles.
   * @param options `md5` of the bytes, base64, where somebody has it already
   */
  add(key: Key, bytes: Uint8Array, options?: CallOptions & { readonly md5?: string }): Promise<void>

  /**
   * Makes what was added since the last call durable and visible. `beforeEach` is called directly
   * before each object appears and stops the rest by throwing. An object that is already there is
   * left as it is unless it is
   * not whole.
   */
  publish(beforeEach: () => void, options?: CallOptions): Promise<Published>

  /** Drops what was added and not published. */
  discard(): Promise<void>
}

export interface Published {
  readonly created: readonly Key[]
  /** What was there already and was left as it is. */
  readonly existed: readonly Key[]
}

/** For those who take locks: their own small files come and go. */
export interface LockStore extends WriteStore {
  /**
   * Whether a removal, or a config, was asked for whose outcome is not known: it may happen yet, and
   * only a lock that still stands keeps others from relying on what they see meanwhile.
   */
  readonly inDoubt?: () => boolean

  /** @returns false when it was surely not there; not every server tells */
  remove(key: Key, options?: WriteCallOptions & { readonly durable?: boolean }): Promise<boolean>
}

export interface PruneStore extends LockStore {
  /**
   * Removes many objects with few calls; a driver that has no such way leaves this out. `before` is
   * asked before each call.
   * @param keys at most MOST_REMOVED_AT_ONCE
   */
  removeAll?(keys: readonly Key[], options?: WriteCallOptions): Promise<RemovedMany>

  /**
   * Removes folders at and below a prefix that hold nothing; a driver without folders leaves this out.
   * @param minAgeMs only those not changed for so long, by the server's clock
   * @returns how many went, or would go with `dryRun`
   */
  removeEmptyFolders?(
    prefix: Key,
    options: CallOptions & { readonly minAgeMs: number; readonly dryRun?: boolean },
  ): Promise<number>
}

export interface RemovedMany {
  /** Gone now, and there before as far as the server tells. */
  readonly removed: readonly Key[]
  /** Why the others are not. */
  readonly failure?: DroverError
}

/** A driver, opened and closed by the one who wires things. */
export interface ObjectStore extends PruneStore {
  /** What was asked of a server so far, retries included; a driver that asks none leaves this out. */
  readonly requests?: () => RequestCounts

  /** Removes what this run left in staging and lets go of the target. */
  close(): Promise<void>
}

/** Requests by the server's own name of each kind, as `PutObject`. */
export type RequestCounts = Readonly<Record<string, number>>

export const MOST_REMOVED_AT_ONCE = 1000

export const bodyOf = (bytes: Uint8Array, md5?: string): Body => ({
  sizeBytes: bytes.length,
  ...(md5 === undefined ? {} : { md5 }),
  chunks: () => [bytes],
})

/**
 * A whole small object.
 * @returns `'too-large'` instead of reading more than `maxBytes`
 */
export async function readSmall(
  store: Pick<ReadStore, 'open'>,
  key: Key,
  maxBytes: number,
  options: CallOptions = {},
): Promise<Buffer | 'too-large' | undefined> {
  const object = await store.open(key, { ...options, firstBytes: maxBytes + 1 })
  if (!object) return undefined
  const parts: Uint8Array[] = []
  for await (const chunk of object.chunks) parts.push(chunk)
  const bytes = Buffer.concat(parts)
  return bytes.length > maxBytes ? 'too-large' : bytes
}

/**
 * Staging for stores that have none. Until the lock is held no block may appear, and a backup would
 * stand still for those seconds; so what it has compressed by then waits in a file on the local
 * disk, which has no name, is bounded, and is gone with the process.
 */
import { randomBytes } from 'node:crypto'
import type { FileHandle } from 'node:fs/promises'
import { open, statfs, unlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DroverError } from '../lib/errors.ts'
import { runLanes } from '../lib/lanes.ts'
import type { Key } from '../backupstore/layout.ts'
import type { ObjectStore, StagingArea, WriteCallOptions } from '../backupstore/object-store.ts'
import { bodyOf } from '../backupstore/object-store.ts'

const MAX_BYTES = 512 * 1024 * 1024
/** The disk must have so many times more free. */
const SPARE = 2
/** File systems that are memory, by their magic numbers: tmpfs, ramfs. */
const IN_MEMORY = [0x01021994, 0x858458f6]

export interface SpoolOptions {
  /** Objects put at once. */
  readonly concurrency: number
  readonly folder?: string
  readonly maxBytes?: number
}

export const withSpool = (store: ObjectStore, options: SpoolOptions): ObjectStore => ({
  ...store,
  openStaging: (isWhole = (_key, sizeBytes) => sizeBytes > 0) => openSpool(store, isWhole, options),
})

interface Waiting {
  readonly key: Key
  readonly file: FileHandle | undefined
  readonly length: number
  readonly md5: string | undefined
  /** Where it lies in the file, or the bytes themselves when the file could not take them. */
  readonly at: number | Buffer
}

async function openSpool(
  store: ObjectStore,
  isWhole: (key: Key, sizeBytes: number) => boolean,
  { concurrency, folder = tmpdir(), maxBytes = MAX_BYTES }: SpoolOptions,
): Promise<StagingArea> {
  let room = await roomIn(folder, maxBytes)
  let opening: Promise<FileHandle> | undefined
  let adding = 0
  let end = 0
  let waiting: Waiting[] = []

  const write = async (bytes: Uint8Array): Promise<Pick<Waiting, 'file' | 'at'>> => {
    const at = end
    end += bytes.length
    room -= bytes.length
    try {
      opening ??= openNameless(folder)
      const file = await opening
      for (let done = 0; done < bytes.length;) {
        const left = bytes.length - done
        done += (await file.write(bytes, done, left, at + done)).bytesWritten
      }
      return { file, at }
    } catch {
      room = 0 // no more; this one is kept
      return { file: undefined, at: Buffer.from(bytes) }
    }
  }
  const read = async ({ file, at, length }: Waiting, into: Buffer): Promise<Buffer> => {
    if (typeof at !== 'number') return at
    for (let done = 0; done < length;) {
      const read = await file?.read(into, done, length - done, at + done)
      if (!read?.bytesRead)
        throw new DroverError('INTERNAL', 'a file without a name became shorter')
      done += read.bytesRead
    }
    return into.subarray(0, length)
  }
  const close = async () => {
    const file = await opening?.catch(() => undefined)
    opening = undefined
    await file?.close()
  }

  /** @returns false when something whole is there and stays */
  const put = async (
    object: Waiting,
    lane: Buffer,
    options: Required<WriteCallOptions>,
  ): Promise<boolean> => {
    const { key, md5 } = object
    const body = bodyOf(await read(object, lane), md5)
    const how = { durable: true, ...options } as const
    const first = await store.put(key, body, { ...how, expect: 'absent', expectIfFree: true })
    if (first.written) return true
    const there = await store.stat(key, { signal: options.signal })
    if (!there || isWhole(key, there.sizeBytes)) return false
    return (await store.put(key, body, { ...how, expect: { version: there.version } })).written
  }

  return {
    isScratch: true,
    hasRoom: () => room > 0,

    async add(key, bytes, options) {
      adding += 1
      try {
        const where = await write(bytes)
        waiting.push({ key, length: bytes.length, md5: options?.md5, ...where })
      } finally {
        adding -= 1
      }
    },

    async publish(before, { signal = new AbortController().signal } = {}) {
      const batch = waiting
      waiting = []
      const created: Key[] = []
      const existed: Key[] = []
      const longest = batch.reduce((most, { length }) => Math.max(most, length), 0)
      const lanes = Array.from({ length: Math.min(concurrency, batch.length) }, () =>
        Buffer.allocUnsafeSlow(longest),
      )
      await runLanes(lanes, batch.values(), signal, async (object, lane, laneSignal) => {
        const isNew = await put(object, lane, { before, signal: laneSignal })
        ;(isNew ? created : existed).push(object.key)
      })
      // one that is being added lies in this file, too
      if (waiting.length === 0 && adding === 0) await close()
      return { created, existed }
    },

    async discard() {
      waiting = []
      await close()
    },
  }
}

/** A file that nobody else sees and that no crash leaves behind. */
async function openNameless(folder: string): Promise<FileHandle> {
  const path = join(folder, `drover-${randomBytes(8).toString('hex')}`)
  const handle = await open(path, 'wx+', 0o600)
  await unlink(path)
  return handle
}

/** None where it would be memory, or where the disk is nearly full. */
async function roomIn(folder: string, maxBytes: number): Promise<number> {
  try {
    const { type, bavail, bsize } = await statfs(folder)
    if (IN_MEMORY.includes(type)) return 0
    return Math.min(maxBytes, (bavail * bsize) / SPARE)
  } catch {
    return 0
  }
}

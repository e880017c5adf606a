/** Reading objects: their facts, their bytes, and the rest of them after a cut. */
import { GetObjectCommand, HeadObjectCommand } from '@aws-sdk/client-s3'
import type { GetObjectCommandOutput, HeadObjectCommandOutput } from '@aws-sdk/client-s3'
import { throwIfAborted } from '../../lib/errors.ts'
import type { Key } from '../../backupstore/layout.ts'
import type {
  CallOptions,
  ObjectInfo,
  OpenObject,
  ReadStore,
} from '../../backupstore/object-store.ts'
import { dropBody, piecesOf, readBody } from './body.ts'
import { Cut } from './call.ts'
import type { Bucket } from './client.ts'
import { isAbsent, isAbsentForHead, isEmptyRange, s3Error } from './errors.ts'
import { infoFrom, noServer } from './keys.ts'

/** Cuts in a row, without a byte in between, until a stream is given up. */
const MOST_CUTS = 5

export function openReads({
  client,
  name: Bucket,
  keys,
  where,
  during,
  transfers,
}: Bucket): Pick<ReadStore, 'stat' | 'open' | 'readInto'> {
  /** Undefined when there is none. */
  async function get(
    key: Key,
    signal: AbortSignal,
    more: { Range?: string; IfMatch?: string } = {},
  ): Promise<GetObjectCommandOutput | undefined> {
    try {
      const command = new GetObjectCommand({ Bucket, Key: keys.of(key), ...more })
      return await client.send(command, { abortSignal: signal })
    } catch (error) {
      if (isAbsent(error)) return undefined
      throw error
    }
  }

  async function head(key: Key, signal: AbortSignal): Promise<ObjectInfo | undefined> {
    try {
      const command = new HeadObjectCommand({ Bucket, Key: keys.of(key) })
      return infoOf(key, await client.send(command, { abortSignal: signal }))
    } catch (error) {
      if (isAbsentForHead(error)) return undefined
      throw error
    }
  }

  async function statNow(key: Key, signal: AbortSignal): Promise<ObjectInfo | undefined> {
    try {
      const found = await get(key, signal, { Range: 'bytes=0-0' })
      if (!found) return undefined
      const info = infoOf(key, found)
      const { Body, ContentLength } = found
      // taken to its end, so that the connection can be used again
      if (ContentLength === undefined || ContentLength > 1) dropBody(Body)
      else await readBody(Body, ContentLength, signal, () => undefined)
      return info
    } catch (error) {
      if (isEmptyRange(error)) return head(key, signal)
      throw error
    }
  }

  function stat(key: Key, options: CallOptions = {}): Promise<ObjectInfo | undefined> {
    return during({ doing: `looking at ${key}`, signal: options.signal }, (signal) =>
      statNow(key, signal),
    )
  }

  /** The bytes of an object; goes on where the connection was cut. */
  async function* chunksOf(
    key: Key,
    first: GetObjectCommandOutput,
    end: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Uint8Array> {
    const never = new AbortController().signal
    let body: unknown = first.Body
    for (let at = 0, cuts = 0; at < end;) {
      throwIfAborted(signal)
      try {
        for await (const chunk of piecesOf(body, end - at, signal ?? never)) {
          const left = end - at
          if (chunk.length > left) {
            // the server knows no ranges; the rest is let go of
            if (left > 0) yield chunk.subarray(0, left)
            return
          }
          at += chunk.length
          cuts = 0
          yield chunk
        }
      } catch (error) {
        throwIfAborted(signal)
        if (!(error instanceof Cut)) throw error
        if (at === end) return
        if (++cuts > MOST_CUTS) throw s3Error(error.cause, `reading ${key}`, where)
        body = await resume(key, first, at, end, signal, error)
      }
    }
  }

  async function resume(
    key: Key,
    { ETag }: GetObjectCommandOutput,
    at: number,
    end: number,
    signal: AbortSignal | undefined,
    cut: Cut,
  ): Promise<unknown> {
    return during({ doing: `reading ${key}`, signal }, async (joined) => {
      const condition = ETag === undefined ? {} : { IfMatch: ETag }
      const rest = await get(key, joined, { Range: `bytes=${at}-${end - 1}`, ...condition })
      if (rest?.ContentRange?.startsWith(`bytes ${at}-`)) return rest.Body
      dropBody(rest?.Body)
      throw cut.cause
    }).catch((error: unknown) => {
      throw s3Error(error, `reading ${key}`, where)
    })
  }

  return {
    stat,

    async open(key, options = {}): Promise<OpenObject | undefined> {
      const { firstBytes, signal: given } = options
      if (firstBytes === 0) {
        const info = await stat(key, options)
        return info && { info, chunks: none() }
      }
      const range = firstBytes === undefined ? {} : { Range: `bytes=0-${firstBytes - 1}` }
      return during({ doing: `reading ${key}`, signal: given }, async (signal) => {
        try {
          const found = await get(key, signal, range)
          if (!found) return undefined
          const info = infoOf(key, found)
          const end = Math.min(info.sizeBytes, firstBytes ?? info.sizeBytes)
          return { info, chunks: chunksOf(key, found, end, given) }
        } catch (error) {
          if (!isEmptyRange(error)) throw error
          const info = await head(key, signal)
          return info && { info, chunks: none() }
        }
      })
    },

    readInto(key, into, options = {}) {
      const about = { doing: `reading ${key}`, signal: options.signal, bytes: into.length }
      const once = async (signal: AbortSignal) => {
        const found = await get(key, signal)
        if (!found) return undefined
        const { sizeBytes } = infoOf(key, found)
        if (sizeBytes > into.length) {
          dropBody(found.Body)
          return sizeBytes
        }
        let length = 0
        await readBody(found.Body, sizeBytes, signal, (chunk) => {
          if (length + chunk.length <= into.length) into.set(chunk, length)
          length += chunk.length
        })
        return length
      }
      return transfers(() => during(about, once))
    },
  }
}

async function* none(): AsyncGenerator<Uint8Array> {
  // an object without a byte
}

/**
 * What every S3 server tells of an object.
 * @throws DroverError TARGET_UNREACHABLE for the answer of something else, and lets go of its body
 */
function infoOf(
  key: Key,
  answer: (GetObjectCommandOutput | HeadObjectCommandOutput) & {
    ContentRange?: string | undefined
  },
): ObjectInfo {
  try {
    const total = /\/(\d+)$/.exec(answer.ContentRange ?? '')?.[1]
    const size = total === undefined ? answer.ContentLength : Number(total)
    if (size === undefined) throw noServer(`no length of ${key}`)
    if (!answer.ETag) throw noServer(`no ETag of ${key}`)
    return infoFrom(key, size, answer.LastModified, answer.ETag)
  } catch (error) {
    if ('Body' in answer) dropBody(answer.Body)
    throw error
  }
}

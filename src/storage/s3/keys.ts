/** From keys of the store to keys of the bucket, and back. */
import type { ListObjectsV2Output, _Object } from '@aws-sdk/client-s3'
import { DroverError } from '../../lib/errors.ts'
import type { Key } from '../../backupstore/layout.ts'
import type { ObjectInfo } from '../../backupstore/object-store.ts'
import { NO_SERVER } from './meanings.ts'

const isPlain = (key: string): boolean =>
  key.split('/').every((part) => !['', '.', '..'].includes(part)) && !key.includes('\0')

export class BucketKeys {
  /** The target's path with a slash at its end, or empty. */
  readonly #prefix: string

  constructor(path: string) {
    this.#prefix = path === '' ? '' : `${path}/`
  }

  /** @throws DroverError UNSAFE_PATH for a key that no layout makes */
  of(key: Key): string {
    if (isPlain(key)) return this.#prefix + key
    throw unsafe(key)
  }

  /** Of a prefix, which ends in a slash. */
  ofPrefix(prefix: Key): string {
    if (prefix.endsWith('/') && isPlain(prefix.slice(0, -1))) return this.#prefix + prefix
    throw unsafe(prefix)
  }

  /**
   * One page of a listing.
   * @throws DroverError TARGET_UNREACHABLE for a listing that makes no sense
   */
  pageOf(
    { Contents = [], EncodingType, Name, IsTruncated }: ListObjectsV2Output,
    prefix: Key,
  ): readonly ObjectInfo[] {
    // any page of the web reads as an empty listing
    if (Name === undefined && IsTruncated === undefined) throw senseless('no listing in it')
    const decode = EncodingType === 'url' ? decodeListed : (key: string) => key
    const infos: ObjectInfo[] = []
    for (const object of Contents) {
      const listed = decode(object.Key ?? '')
      if (!listed.startsWith(this.ofPrefix(prefix))) throw senseless('a key beside the prefix')
      // consoles make these, to show a folder
      if (listed.endsWith('/') && object.Size === 0) continue
      infos.push(infoOfListed(listed.slice(this.#prefix.length), object))
    }
    return infos
  }
}

function infoOfListed(key: Key, { Size, LastModified, ETag }: _Object): ObjectInfo {
  if (Size === undefined || !LastModified) throw senseless('an entry without a size or a time')
  const info = infoFrom(key, Size, LastModified, ETag)
  return isPlain(key) ? info : { ...info, notPlain: true }
}

/**
 * The facts of an object. A listing tells thousandths of seconds and a header does not, so they are
 * left out; a version is the ETag with the time, because equal bytes have equal ETags.
 */
export function infoFrom(
  key: Key,
  sizeBytes: number,
  lastModified: Date | undefined,
  etag: string | undefined,
): ObjectInfo {
  if (!lastModified) throw noServer(`no time of ${key}`)
  const modifiedAtMs = Math.floor(lastModified.getTime() / 1000) * 1000
  return { key, sizeBytes, modifiedAtMs, version: `${etag ?? ''} ${modifiedAtMs}` }
}

/** The ETag in a version, quoted as the server gave it. */
export const etagOf = (version: string): string => version.slice(0, version.lastIndexOf(' '))

function decodeListed(key: string): string {
  try {
    return decodeURIComponent(key.replaceAll('+', ' '))
  } catch (cause) {
    throw senseless('a key that is not encoded as it says', cause)
  }
}

export const senseless = (what: string, cause?: unknown): DroverError =>
  new DroverError('TARGET_UNREACHABLE', `the target's listing has ${what}: it cannot be trusted`, {
    cause,
  })

/** For an answer that lacks what every S3 server tells. */
export const noServer = (what: string): DroverError =>
  new DroverError('TARGET_UNREACHABLE', `the answer tells ${what}: ${NO_SERVER}`)

const unsafe = (key: string): DroverError =>
  new DroverError('UNSAFE_PATH', `${JSON.stringify(key)} is not a plain key`, { details: { key } })

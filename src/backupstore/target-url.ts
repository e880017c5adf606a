/**
 * URLs of targets and backups, as Longhorn writes them. The platform's own URL class is of no use
 * here: it drops the colon of `server:/path`, keeps `%20` and `//`, and re-encodes what must come
 * back character for character.
 *
 * A backup's URL is the target's text plus `?backingImage=<name>` (`&` when there is a query).
 */
import { posix } from 'node:path'
import { DroverError } from '../lib/errors.ts'
import type { BackupName } from './names.ts'
import { readableName } from './names.ts'

export type TargetUrl =
  | { readonly kind: 'vfs'; readonly text: string; readonly path: string }
  | {
      readonly kind: 'nfs'
      readonly text: string
      readonly server: string
      readonly path: string
      /** The values of all `nfsOptions`, cut at commas. */
      readonly options: readonly string[]
    }
  | {
      readonly kind: 's3'
      readonly text: string
      readonly bucket: string
      /** Absent: taken from the environment. */
      readonly region: string | undefined
      /** Without a slash at its start or end; empty for the whole bucket. */
      readonly path: string
    }

export interface BackupUrl {
  readonly text: string
  readonly target: TargetUrl
  readonly name: BackupName
}

const NAME_KEY = 'backingImage'
const OPTIONS_KEY = 'nfsOptions'

/** @throws DroverError INVALID_URL */
export function parseTargetUrl(input: string): TargetUrl {
  const text = input.trim()
  const parts = split(text)
  if (parts.query.some((pair) => pair.startsWith(`${NAME_KEY}=`))) {
    throw invalid(text, `a target's URL has no ${NAME_KEY}=; that makes it the URL of one backup`)
  }
  return targetOf(text, parts)
}

/**
 * The URL of one backup. Longhorn's own status URLs may hold `\u0026` for `&` and have lost their
 * nfsOptions.
 * @throws DroverError INVALID_URL, INVALID_NAME
 */
export function parseBackupUrl(input: string): BackupUrl {
  const text = input.trim().replaceAll('\\u0026', '&')
  const parts = split(text)
  const isName = (pair: string) => pair.startsWith(`${NAME_KEY}=`)
  const names = parts.query.filter(isName)
  if (names.length !== 1) {
    throw invalid(
      text,
      `expected one ?${NAME_KEY}=<name> at the end, as in vfs:///store?${NAME_KEY}=ubuntu`,
    )
  }
  const query = parts.query.filter((pair) => !isName(pair))
  const targetText = parts.base + (query.length > 0 ? `?${query.join('&')}` : '')
  const target = targetOf(targetText, { ...parts, query })
  const name = readableName(decode(text, (names[0] ?? '').slice(NAME_KEY.length + 1)))
  return { text: backupUrl(target, name), target, name }
}

export function backupUrl(target: TargetUrl, name: BackupName): string {
  return `${target.text}${target.text.includes('?') ? '&' : '?'}${NAME_KEY}=${name}`
}

/** Whether two URLs mean one place. Queries (mount options) do not count. */
export function sameTarget(a: TargetUrl, b: TargetUrl): boolean {
  if (a.kind === 'vfs' && b.kind === 'vfs') return a.path === b.path
  if (a.kind === 'nfs' && b.kind === 'nfs') return a.server === b.server && a.path === b.path
  return a.kind === 's3' && b.kind === 's3' && a.bucket === b.bucket && a.path === b.path
}

interface Parts {
  scheme: string
  /** All before the query. */
  base: string
  authority: string
  rawPath: string
  query: string[]
}

function split(text: string): Parts {
  // eslint-disable-next-line no-control-regex -- control characters are what is looked for
  if (/[\u0000-\u001f\u007f]/.test(text)) throw invalid(text, 'control characters are not allowed')
  if (text.includes('#')) throw invalid(text, 'write "#" in a path as %23')
  const [base = '', ...rest] = text.split('?')
  const found = /^([a-z][a-z0-9+.-]*):\/\/([^/]*)(\/.*)?$/i.exec(base)
  if (!found) throw invalid(text, EXAMPLES)
  const query = rest.length > 0 ? rest.join('?').split('&') : []
  if (query.includes('')) throw invalid(text, 'the query after "?" has an empty part')
  return {
    scheme: (found[1] ?? '').toLowerCase(),
    base,
    authority: found[2] ?? '',
    rawPath: found[3] ?? '',
    query,
  }
}

const EXAMPLES = 'expected vfs:///folder, nfs://server:/path or s3://bucket@region/path'

function targetOf(text: string, parts: Parts): TargetUrl {
  switch (parts.scheme) {
    case 'vfs':
      return vfs(text, parts)
    case 'nfs':
      return nfs(text, parts)
    case 's3':
      return s3(text, parts)
    default:
      throw new DroverError(
        'TARGET_UNSUPPORTED',
        `no support for ${parts.scheme}:// targets: ${EXAMPLES}`,
        { details: { scheme: parts.scheme } },
      )
  }
}

function vfs(text: string, { authority, rawPath, query }: Parts): TargetUrl {
  if (authority !== '' || rawPath === '') {
    throw invalid(text, 'a folder target is vfs:// and an absolute path, as in vfs:///mnt/store')
  }
  if (query.length > 0)
    throw invalid(text, `a folder target takes no options, got ?${query.join('&')}`)
  return { kind: 'vfs', text, path: cleanAbsolute(decode(text, rawPath)) }
}

function nfs(text: string, { authority, rawPath, query }: Parts): TargetUrl {
  const server = authority.replace(/:$/, '')
  if (server === '' || rawPath === '' || !/^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)$/.test(server)) {
    throw invalid(text, 'an NFS target is nfs://server:/exported/path')
  }
  const options: string[] = []
  for (const pair of query) {
    if (!pair.startsWith(`${OPTIONS_KEY}=`)) {
      throw invalid(text, `an NFS target takes ${OPTIONS_KEY}= only, got ${JSON.stringify(pair)}`)
    }
    options.push(
      ...decode(text, pair.slice(OPTIONS_KEY.length + 1))
        .split(',')
        .filter(Boolean),
    )
  }
  return { kind: 'nfs', text, server, path: cleanAbsolute(decode(text, rawPath)), options }
}

function s3(text: string, { authority, rawPath, query }: Parts): TargetUrl {
  const [bucket = '', region, ...more] = authority.split('@')
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/.test(bucket) || more.length > 0) {
    throw invalid(text, 'an S3 target is s3://bucket@region/path/')
  }
  if (region !== undefined && !/^[A-Za-z0-9-]+$/.test(region)) {
    throw invalid(text, `${JSON.stringify(region)} is not a region`)
  }
  if (query.length > 0)
    throw invalid(text, `an S3 target takes no options, got ?${query.join('&')}`)
  const path = cleanAbsolute(`/${decode(text, rawPath)}`).slice(1)
  return { kind: 's3', text, bucket, region, path }
}

/** An absolute path without `//`, `.`, `..` or a slash at its end. */
function cleanAbsolute(path: string): string {
  const clean = posix.normalize(`/${path}`).replace(/^\/+/, '/')
  return clean.length > 1 ? clean.replace(/\/$/, '') : clean
}

function decode(text: string, part: string): string {
  let decoded: string
  try {
    decoded = decodeURIComponent(part)
  } catch (cause) {
    throw invalid(text, `${JSON.stringify(part)} holds a "%" that does not begin an escape`, cause)
  }
  if (decoded.includes('\0')) throw invalid(text, 'a NUL byte is not allowed')
  return decoded
}

function invalid(text: string, expected: string, cause?: unknown): DroverError {
  // A URL may hold what its user would not want to see in a log: nothing before an "@" is shown.
  const shown = text.replace(/\/\/[^/@]*:[^/@]*@/, '//***@').slice(0, 200)
  return new DroverError(
    'INVALID_URL',
    `${JSON.stringify(shown)} is not a usable URL: ${expected}`,
    {
      cause,
    },
  )
}

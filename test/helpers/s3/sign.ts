/** Signs a request once more: for a proxy that plays a server which overlooks some headers. */
import { createHash, createHmac } from 'node:crypto'
import type { S3Keys } from './admin.ts'

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')
const hmac = (key: string | Buffer, text: string): Buffer =>
  createHmac('sha256', key).update(text).digest()

/**
 * The headers with a signature (version 4) that covers those of the ones it covered that are left.
 * @param raw names and values in turns
 */
export function signedAgain(
  method: string,
  url: string,
  raw: readonly string[],
  keys: S3Keys,
): string[] {
  const headers = new Map<string, string>()
  raw.forEach((name, at) => at % 2 === 0 && headers.set(name.toLowerCase(), raw[at + 1] ?? ''))
  const old = headers.get('authorization') ?? ''
  const scope = /Credential=[^/]+\/([^,]+)/.exec(old)?.[1] ?? ''
  const covered = /SignedHeaders=([^,]+)/.exec(old)?.[1]?.split(';') ?? []
  const names = covered.filter((name) => headers.has(name))
  const { pathname, searchParams } = new URL(url, 'http://server')
  const query = [...searchParams].map((pair) => pair.map(encodeURIComponent).join('=')).sort()
  const request = [
    method,
    pathname,
    query.join('&'),
    ...names.map((name) => `${name}:${headers.get(name)?.trim().replaceAll(/ +/g, ' ')}`),
    '',
    names.join(';'),
    headers.get('x-amz-content-sha256') ?? '',
  ].join('\n')
  const date = headers.get('x-amz-date') ?? ''
  const text = ['AWS4-HMAC-SHA256', date, scope, sha256(request)].join('\n')
  const key = scope.split('/').reduce<string | Buffer>(hmac, `AWS4${keys.secretAccessKey}`)
  const signature = hmac(key, text).toString('hex')
  const authorization =
    `AWS4-HMAC-SHA256 Credential=${keys.accessKeyId}/${scope}, ` +
    `SignedHeaders=${names.join(';')}, Signature=${signature}`
  return raw.map((value, at) =>
    at % 2 === 1 && raw[at - 1]?.toLowerCase() === 'authorization' ? authorization : value,
  )
}

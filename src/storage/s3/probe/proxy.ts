/** Which proxy a connection goes through, by the rules that Node's agents follow. */
import { BlockList, isIP, isIPv4 } from 'node:net'
import type { ProxySettings } from '../../settings.ts'

export interface Endpoint {
  readonly secure: boolean
  readonly host: string
  readonly port: number
}

/** The proxy's URL without what it wants as a password; undefined for a direct connection. */
export function proxyFor(endpoint: Endpoint, settings: ProxySettings): string | undefined {
  const text = endpoint.secure ? settings.HTTPS_PROXY : settings.HTTP_PROXY
  const url = text === undefined ? null : URL.parse(text)
  if (!url || (settings.NO_PROXY ?? '').split(',').some((entry) => excepts(entry, endpoint))) {
    return undefined
  }
  return `${url.protocol}//${url.host}`
}

/** One entry of NO_PROXY: `*`, a name, `.domain`, `*.domain`, an address, `first-last`, all with a port. */
function excepts(entry: string, { host, port }: Endpoint): boolean {
  const text = entry.trim().toLowerCase()
  if (text === '') return false
  if (text === '*') return true
  const [, name = text, only] = /^(.*?):(\d+)$/.exec(text) ?? []
  if (only !== undefined && isIP(text) === 0 && Number(only) !== port) return false
  const wanted = isIP(text) === 0 ? name : text
  const own = host.toLowerCase()
  if (wanted.startsWith('*.')) return own.endsWith(wanted.slice(1))
  if (wanted.startsWith('.')) return own.endsWith(wanted)
  return own === wanted || isInRange(own, wanted)
}

function isInRange(host: string, range: string): boolean {
  const [first = '', last = ''] = range.split('-')
  if (!isIPv4(host) || !isIPv4(first) || !isIPv4(last)) return false
  const list = new BlockList()
  try {
    list.addRange(first, last)
  } catch {
    return false // last before first
  }
  return list.check(host)
}

/** Whether what is sent there stays on this machine. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' ||
  host.endsWith('.localhost') ||
  host === '::1' ||
  (isIPv4(host) && host.startsWith('127.'))

/**
 * Mount options that the URL of a target may hold. A URL comes from a Kubernetes object or a command
 * line that somebody else wrote, and mounting is done by root: what is not known here to be harmless
 * is refused. The programs get options as one argument, so what matters is that none can hold
 * another one, or change where and what is mounted.
 */
import { isIP } from 'node:net'
import { DroverError } from '../../lib/errors.ts'
import type { TargetUrl } from '../../backupstore/target-url.ts'

type NfsTarget = Extract<TargetUrl, { kind: 'nfs' }>

/** What Longhorn tries, one after the other. */
const DEFAULTS = ['4.2', '4.1', '4.0'].map(
  (version) => `nfsvers=${version},actimeo=1,soft,timeo=300,retry=2`,
)

/** An old listing may lack another's lock. What the options say of it comes after, and overrides it. */
const FRESH = 'actimeo=1'

/** A store needs neither programs nor devices. */
const ALWAYS = 'nosuid,nodev,noexec'

// `nocto` is missing: without looking at the server when a file is opened, old ones are read.
// `hard` makes calls that cannot be ended; they end with the helper, and hold up nobody else
const FLAGS = new Set(
  [
    'soft hard softerr softreval nosoftreval intr nointr fg ac noac cto rdirplus nordirplus',
    'fsc nofsc sharecache nosharecache resvport noresvport lock nolock tcp rdma migration',
    'nomigration trunkdiscovery notrunkdiscovery ro rw sync async atime noatime diratime',
    'nodiratime relatime norelatime strictatime lazytime nosuid nodev noexec',
  ].flatMap((line) => line.split(' ')),
)

interface Value {
  readonly is: (text: string) => boolean
  readonly wanted: string
}

const oneOf = (...values: string[]): Value => ({
  is: (text) => values.includes(text),
  wanted: values.join(', '),
})

const number = (min: number, max: number): Value => ({
  is: (text) => /^\d{1,9}$/.test(text) && Number(text) >= min && Number(text) <= max,
  wanted: `a number from ${min} to ${max}`,
})

const SECONDS = number(0, 86_400)
const VERSION = oneOf('4', '4.0', '4.1', '4.2')
const FLAVORS = new Set(['sys', 'krb5', 'krb5i', 'krb5p', 'none'])

const VALUES: ReadonlyMap<string, Value> = new Map([
  ['nfsvers', VERSION],
  ['vers', VERSION],
  ['minorversion', number(0, 2)],
  ['proto', oneOf('tcp', 'tcp6', 'rdma', 'rdma6')],
  ['port', number(1, 65_535)],
  ['timeo', number(1, 360_000)],
  ['retrans', number(0, 1000)],
  ['retry', number(0, 10_000)],
  ['actimeo', SECONDS],
  ['acregmin', SECONDS],
  ['acregmax', SECONDS],
  ['acdirmin', SECONDS],
  ['acdirmax', SECONDS],
  ['lookupcache', oneOf('all', 'none', 'pos', 'positive')],
  ['local_lock', oneOf('none', 'flock', 'posix', 'all')],
  ['write', oneOf('lazy', 'eager', 'wait')],
  ['rsize', number(1024, 4_194_304)],
  ['wsize', number(1024, 4_194_304)],
  ['nconnect', number(1, 16)],
  ['max_connect', number(1, 16)],
  ['xprtsec', oneOf('none', 'tls', 'mtls')],
  ['clientaddr', { is: (text) => isIP(text) > 0 && !text.includes('%'), wanted: 'an IP address' }],
  [
    'sec',
    {
      is: (text) => text.split(':').every((flavor) => FLAVORS.has(flavor)),
      wanted: `one or more of ${[...FLAVORS].join(', ')}, joined by colons`,
    },
  ],
])

/**
 * What to give the mount program as options: one thing to try after the other.
 * @throws DroverError INVALID_URL
 */
export function mountAttempts(options: readonly string[]): readonly string[] {
  for (const option of options) checkOption(option)
  const wanted = options.length > 0 ? [[FRESH, ...options].join(',')] : DEFAULTS
  return wanted.map((each) => `${each},${ALWAYS}`)
}

/**
 * `server:/path` for the mount program.
 * @throws DroverError INVALID_URL
 */
export function mountSource({ server, path }: Pick<NfsTarget, 'server' | 'path'>): string {
  if (!/^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9._-]*)$/.test(server)) {
    throw new DroverError(
      'INVALID_URL',
      `${JSON.stringify(server)} is not a server: expected a host name, an IPv4 address, or an IPv6 address in brackets`,
    )
  }
  // eslint-disable-next-line no-control-regex -- control characters are what is looked for
  if (!path.startsWith('/') || path.length > 1024 || /[\u0000-\u001f\u007f]/.test(path)) {
    throw new DroverError(
      'INVALID_URL',
      `${JSON.stringify(path)} cannot be mounted: expected an absolute path without control characters`,
    )
  }
  return `${server}:${path}`
}

function checkOption(option: string): void {
  const at = option.indexOf('=')
  const name = at < 0 ? option : option.slice(0, at)
  const value = VALUES.get(name)
  if (at < 0 && FLAGS.has(name)) return
  if (at >= 0 && value?.is(option.slice(at + 1))) return
  const shown = JSON.stringify(option.slice(0, 80))
  const why = value
    ? `${shown}: expected ${name}= and ${value.wanted}`
    : `${shown} is not allowed: expected some of ${allowed()}`
  throw new DroverError('INVALID_URL', `nfsOptions of the target: ${why}`, {
    details: { option: name.slice(0, 80) },
  })
}

const allowed = (): string => [...FLAGS, ...[...VALUES.keys()].map((name) => `${name}=`)].join(', ')

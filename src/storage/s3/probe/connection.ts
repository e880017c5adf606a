/** The way to the server: settings, name, connection, certificate, credentials. */
import { lookup } from 'node:dns/promises'
import { connect, isIP } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { PeerCertificate, TLSSocket } from 'node:tls'
import { ListObjectsV2Command } from '@aws-sdk/client-s3'
import { DroverError } from '../../../lib/errors.ts'
import { opened } from '../../doctor/opened.ts'
import type { Finding, Step } from '../../doctor/steps.ts'
import { openBucket, trustedWith } from '../client.ts'
import { s3Error } from '../errors.ts'
import type { Bench } from './bench.ts'
import { sourceOf } from './credentials.ts'
import type { Endpoint } from './proxy.ts'
import { isLoopback, proxyFor } from './proxy.ts'

/** A certificate that ends sooner is worth a warning. */
const DAYS_LEFT = 14

export const connectionSteps = (bench: Bench): Step[] => [
  { name: 'settings', hintFor: bench.hints(), run: () => settings(bench) },
  {
    name: 'name resolution',
    needs: ['settings'],
    hintFor: () => 'check the name in AWS_ENDPOINTS, and the DNS of this machine',
    run: () => nameResolution(bench),
  },
  {
    name: 'connection',
    needs: ['name resolution'],
    hintFor: bench.hints(),
    run: (signal) => connection(bench, signal),
  },
  {
    name: 'credentials',
    needs: ['settings'],
    hintFor: bench.hints(),
    run: (signal) => credentials(bench, signal),
  },
]

async function settings(bench: Bench): Promise<Finding> {
  const { target, settings } = bench
  const { endpoint, encryption, storageClass, proxy, virtualHosted } = settings.s3
  try {
    const region = await bench.bucket.client.config.region()
    bench.endpoint = await endpointOf(bench)
    const via = proxyFor(bench.endpoint, proxy)
    const details = {
      endpoint: endpoint ?? urlOf(bench.endpoint),
      region,
      regionFrom: regionSource(bench),
      style: virtualHosted ? 'virtual-hosted' : 'path',
      proxy: via ?? null,
      encryption: encryption?.kind ?? null,
      storageClass: storageClass ?? null,
    }
    const parts = [
      `${endpoint === undefined ? 'AWS' : endpoint}, bucket ${target.bucket}`,
      `region ${region} (${details.regionFrom})`,
      `${details.style} style`,
      via === undefined ? 'no proxy' : `proxy ${via}`,
      ...(encryption ? [`encryption ${encryption.kind}`] : []),
      ...(storageClass === undefined ? [] : [`storage class ${storageClass}`]),
    ]
    return { verdict: 'ok', message: parts.join(', '), details }
  } catch (error) {
    throw s3Error(error, 'reading the settings', bench.bucket.where)
  }
}

function regionSource({ target, settings: { s3 } }: Bench): string {
  if (target.region !== undefined) return 'from the URL'
  if (s3.region !== undefined) return 'from AWS_REGION or AWS_DEFAULT_REGION'
  return s3.endpoint === undefined ? "from the SDK's own settings" : 'assumed'
}

/** Where the SDK sends requests about this bucket: it is asked, and stopped before it does. */
async function endpointOf({ target, settings }: Bench): Promise<Endpoint> {
  // whether there are any is another question
  const credentials = { accessKeyId: 'none', secretAccessKey: 'none' }
  const bucket = openBucket(target, { ...settings, s3: { ...settings.s3, credentials } })
  const command = new ListObjectsV2Command({ Bucket: bucket.name })
  let found: Endpoint | undefined
  command.middlewareStack.add(
    () => (args) => {
      const { protocol, hostname, port } = args.request as Record<string, string | undefined>
      const secure = protocol === 'https:'
      const host = (hostname ?? '').replace(/^\[|\]$/g, '')
      found = { secure, host, port: Number(port ?? (secure ? 443 : 80)) }
      return Promise.resolve({ response: undefined, output: { $metadata: {} } })
    },
    { step: 'build', priority: 'low', name: 'stopHere' },
  )
  await bucket.client.send(command).finally(() => bucket.close())
  if (!found) throw new DroverError('INTERNAL', 'the SDK did not tell where requests go')
  return found
}

const urlOf = ({ secure, host, port }: Endpoint): string =>
  `${secure ? 'https' : 'http'}://${isIP(host) === 6 ? `[${host}]` : host}${port === (secure ? 443 : 80) ? '' : `:${port}`}`

const throughProxy = (bench: Bench): Finding | undefined =>
  bench.endpoint && proxyFor(bench.endpoint, bench.settings.s3.proxy) !== undefined
    ? { verdict: 'skipped', message: 'a proxy does this' }
    : undefined

async function nameResolution(bench: Bench): Promise<Finding> {
  const { host } = requireEndpoint(bench)
  const skipped = throughProxy(bench)
  if (skipped) return skipped
  if (isIP(host)) return { verdict: 'skipped', message: `${host} is an address` }
  try {
    const addresses = (await lookup(host, { all: true })).map(({ address }) => address)
    return {
      verdict: 'ok',
      message: `${host} is ${addresses.slice(0, 4).join(', ')}`,
      details: { host, addresses },
    }
  } catch (error) {
    throw s3Error(error, 'looking up its name', host)
  }
}

async function connection(bench: Bench, signal: AbortSignal): Promise<Finding> {
  const endpoint = requireEndpoint(bench)
  const skipped = throughProxy(bench)
  if (skipped) return skipped
  const where = urlOf(endpoint)
  try {
    const socket = await opened(
      connect({ host: endpoint.host, port: endpoint.port }),
      'connect',
      signal,
    )
    try {
      if (!endpoint.secure) return unencrypted(endpoint)
      const tls = connectTls({
        socket,
        host: endpoint.host,
        ...(isIP(endpoint.host) ? {} : { servername: endpoint.host }),
        ...caOf(bench),
        // judged below, so that it can be told whose certificate it is
        rejectUnauthorized: false,
      })
      try {
        return judged(await opened(tls, 'secureConnect', signal), where)
      } finally {
        tls.destroy()
      }
    } finally {
      socket.destroy()
    }
  } catch (error) {
    throw s3Error(error, 'connecting', where)
  }
}

const caOf = ({ settings: { s3 } }: Bench) => {
  const ca = trustedWith(s3.ca)
  return ca ? { ca } : {}
}

function unencrypted({ host }: Endpoint): Finding {
  if (isLoopback(host)) return { verdict: 'ok', message: 'connected; plain HTTP on this machine' }
  return {
    verdict: 'warning',
    message: 'connected by plain HTTP: data and signatures go unencrypted',
    hint: 'use an https:// endpoint in AWS_ENDPOINTS, with the authority in AWS_CERT if it is your own',
    details: { protocol: 'http' },
  }
}

/** @throws Error with the code of what is wrong with the certificate */
function judged(socket: TLSSocket, where: string): Finding {
  const certificate = socket.getPeerCertificate()
  const [subject, issuer] = [nameOf(certificate.subject), nameOf(certificate.issuer)]
  const daysLeft = Math.floor((Date.parse(certificate.valid_to) - Date.now()) / 86_400_000)
  const protocol = socket.getProtocol()
  const whose = `certificate of ${subject}, issued by ${issuer}`
  if (!socket.authorized) {
    const code = String(socket.authorizationError)
    const reason = s3Error(Object.assign(new Error(code), { code }), 'connecting', where)
    throw new DroverError(reason.code, `${reason.message} (${whose})`, {
      details: { ...reason.details, subject, issuer, daysLeft },
    })
  }
  const details = { protocol, subject, issuer, validTo: certificate.valid_to, daysLeft }
  const message = `${protocol}, ${whose}, ${daysLeft} days left`
  if (daysLeft >= DAYS_LEFT) return { verdict: 'ok', message, details }
  return {
    verdict: 'warning',
    message,
    hint: 'have the certificate of the server renewed',
    details,
  }
}

/** A certificate need not have all that its type says. */
function nameOf(name: Partial<PeerCertificate['subject']> | undefined): string {
  const text = name?.CN ?? name?.O ?? '?'
  return Array.isArray(text) ? text.join(', ') : text
}

async function credentials({ bucket, settings }: Bench, signal: AbortSignal): Promise<Finding> {
  const about = { doing: 'looking for credentials', signal }
  const found = await bucket.during(about, () => bucket.client.config.credentials())
  const source = settings.s3.credentials
    ? 'keys of the environment (AWS_ACCESS_KEY_ID)'
    : sourceOf(found)
  const { accessKeyId, sessionToken, expiration } = found
  const shown = `${accessKeyId.slice(0, Math.min(4, accessKeyId.length / 2))}…`
  const until = expiration ? `, until ${expiration.toISOString()}` : ''
  return {
    verdict: 'ok',
    message: `${source}, key ${shown}${sessionToken === undefined ? '' : ', with a session token'}${until}`,
    details: { source, expiresAt: expiration?.toISOString() ?? null },
  }
}

function requireEndpoint({ endpoint }: Bench): Endpoint {
  if (endpoint) return endpoint
  throw new DroverError('INTERNAL', 'no endpoint is known')
}

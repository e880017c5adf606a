/**
 * The environment, read once: every variable's name, default and range stand here. Values are
 * trimmed, because those from a Secret often end in a newline; an empty one counts as not set.
 *
 * The names that Longhorn knows are the keys of its targets' Secrets.
 */
import { isAbsolute } from 'node:path'
import { DroverError } from './lib/errors.ts'
import { parseDuration } from './lib/duration.ts'
import type {
  Encryption,
  ProxySettings,
  S3Credentials,
  S3Settings,
  StorageSettings,
} from './storage/settings.ts'

export const DEFAULT_CALL_TIMEOUT_MS = 60_000
export const DEFAULT_MOUNT_DIR = '/var/lib/drover/mounts'

type Environment = Readonly<Record<string, string | undefined>>

/**
 * @param concurrency blocks that the run reads or writes at once
 * @throws DroverError INVALID_CONFIG that names the variable and what was expected; never its value
 * where that is a secret
 */
export function storageSettings(env: Environment, concurrency: number): StorageSettings {
  return Object.freeze({
    callTimeoutMs: callTimeout(env),
    concurrency,
    s3: s3Settings(env),
    nfs: { mountDir: mountDir(env) },
  })
}

const get = (env: Environment, name: string): string | undefined => env[name]?.trim() || undefined

const MIN_CALL_TIMEOUT_MS = 1000
const MAX_CALL_TIMEOUT_MS = 3_600_000

function callTimeout(env: Environment): number {
  const text = get(env, 'DROVER_CALL_TIMEOUT')
  if (text === undefined) return DEFAULT_CALL_TIMEOUT_MS
  const wanted = 'a duration from 1s to 1h'
  let ms: number
  try {
    ms = parseDuration(text, 'DROVER_CALL_TIMEOUT')
  } catch {
    throw invalid('DROVER_CALL_TIMEOUT', wanted, text)
  }
  if (ms >= MIN_CALL_TIMEOUT_MS && ms <= MAX_CALL_TIMEOUT_MS) return ms
  throw invalid('DROVER_CALL_TIMEOUT', wanted, text)
}

function mountDir(env: Environment): string {
  const folder = get(env, 'DROVER_MOUNT_DIR') ?? DEFAULT_MOUNT_DIR
  if (isAbsolute(folder) && !folder.includes('\0')) return folder
  throw invalid('DROVER_MOUNT_DIR', 'an absolute path', folder)
}

function s3Settings(env: Environment): S3Settings {
  const endpoint = s3Endpoint(env)
  // judged, and then of no use: no Accept-Encoding is sent at all, so none is ever signed
  flag(env, 'AWS_SIGN_ACCEPT_ENCODING')
  return {
    credentials: credentials(env),
    region: get(env, 'AWS_REGION') ?? get(env, 'AWS_DEFAULT_REGION'),
    endpoint,
    ca: certificates(env),
    proxy: proxy(env),
    virtualHosted: flag(env, 'VIRTUAL_HOSTED_STYLE') ?? endpoint === undefined,
    encryption: encryption(env),
    storageClass: storageClass(env),
  }
}

function credentials(env: Environment): S3Credentials | undefined {
  const accessKeyId = get(env, 'AWS_ACCESS_KEY_ID')
  const secretAccessKey = get(env, 'AWS_SECRET_ACCESS_KEY')
  const sessionToken = get(env, 'AWS_SESSION_TOKEN')
  if (accessKeyId === undefined && secretAccessKey === undefined) return undefined
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    const [set, unset] =
      accessKeyId === undefined
        ? ['SECRET_ACCESS_KEY', 'ACCESS_KEY_ID']
        : ['ACCESS_KEY_ID', 'SECRET_ACCESS_KEY']
    throw new DroverError(
      'INVALID_CONFIG',
      `AWS_${set} is set and AWS_${unset} is not: expected both or none`,
    )
  }
  return { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) }
}

function s3Endpoint(env: Environment): string | undefined {
  const text = get(env, 'AWS_ENDPOINTS')
  if (text === undefined) return undefined
  const url = URL.parse(text)
  const plain = url !== null && url.search === '' && url.hash === ''
  if (plain && /^https?:$/.test(url.protocol) && url.username === '' && url.password === '') {
    return text.replace(/\/+$/, '')
  }
  // it may hold a password, which must not be shown
  throw invalid(
    'AWS_ENDPOINTS',
    'the base URL of a server, as in https://s3.example.com:9000, without a user or a query',
  )
}

/** PEM, or base64 of it. */
function certificates(env: Environment): string | undefined {
  const text = get(env, 'AWS_CERT')
  if (text === undefined) return undefined
  const isPem = (value: string) => value.includes('-----BEGIN CERTIFICATE-----')
  if (isPem(text)) return text
  const decoded = Buffer.from(text, 'base64').toString('utf8')
  if (isPem(decoded)) return decoded
  throw invalid('AWS_CERT', 'certificates in PEM, or base64 of that')
}

function proxy(env: Environment): ProxySettings {
  const settings: { -readonly [Name in keyof ProxySettings]: ProxySettings[Name] } = {}
  for (const name of ['HTTP_PROXY', 'HTTPS_PROXY'] as const) {
    const text = get(env, name) ?? get(env, name.toLowerCase())
    if (text === undefined) continue
    const url = URL.parse(text.includes('://') ? text : `http://${text}`)
    if (!url || !/^https?:$/.test(url.protocol) || url.hostname === '') {
      throw invalid(name, 'the URL of a proxy, as in http://proxy.example.com:3128')
    }
    settings[name] = url.href
  }
  const noProxy = get(env, 'NO_PROXY') ?? get(env, 'no_proxy')
  if (noProxy !== undefined) settings.NO_PROXY = noProxy
  return settings
}

function flag(env: Environment, name: string): boolean | undefined {
  const text = get(env, name)?.toLowerCase()
  if (text === undefined) return undefined
  if (text === 'true' || text === 'false') return text === 'true'
  throw invalid(name, '"true" or "false"', text)
}

function encryption(env: Environment): Encryption | undefined {
  const kind = get(env, 'DROVER_S3_SSE')
  const keyId = get(env, 'DROVER_S3_SSE_KMS_KEY_ID')
  if (kind === 'aws:kms') return { kind, keyId }
  if (keyId !== undefined) {
    throw invalid('DROVER_S3_SSE', '"aws:kms" beside DROVER_S3_SSE_KMS_KEY_ID', kind)
  }
  if (kind === undefined || kind === 'AES256') return kind && { kind }
  throw invalid('DROVER_S3_SSE', '"AES256" or "aws:kms"', kind)
}

/** Storage classes whose objects are read only after hours, when they were asked for. */
const ARCHIVES = ['GLACIER', 'DEEP_ARCHIVE']

function storageClass(env: Environment): string | undefined {
  const name = get(env, 'DROVER_S3_STORAGE_CLASS')
  if (name !== undefined && ARCHIVES.includes(name)) {
    throw invalid(
      'DROVER_S3_STORAGE_CLASS',
      'a class whose objects can be read at once, as blocks must be (GLACIER_IR is one)',
      name,
    )
  }
  if (name === undefined || /^[A-Z][A-Z0-9_]*$/.test(name)) return name
  throw invalid('DROVER_S3_STORAGE_CLASS', 'the name of a storage class, as in STANDARD_IA', name)
}

function invalid(name: string, wanted: string, got?: string): DroverError {
  const shown = got === undefined ? '' : `, got ${JSON.stringify(got.slice(0, 80))}`
  return new DroverError('INVALID_CONFIG', `${name}: expected ${wanted}${shown}`, {
    details: { name },
  })
}

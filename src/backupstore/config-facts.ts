/** The members of a config but its blocks: each one checked, and an error that names it. */
import type { Checksum } from './block.ts'
import { MAX_IMAGE_BYTES, isChecksum } from './block.ts'
import type { Compression } from './compression.ts'
import { shown } from './json-members.ts'
import type { BackupName } from './names.ts'

export interface BackupFacts {
  readonly name: BackupName
  readonly sizeBytes: number
  /** Absent in backups whose writer did not know it: then only the blocks can be proven. */
  readonly checksum: Checksum | undefined
  readonly labels: Readonly<Record<string, string>>
  readonly compression: Compression
  /** RFC 3339, UTC, seconds. */
  readonly createdAt: string
  /** Empty: the remains of a run, or a run at work; not a backup. */
  readonly completedAt: string
  readonly secret: string
  readonly secretNamespace: string
  /** Members this version does not know; kept when the config is written again. */
  readonly unknown: Readonly<Record<string, unknown>>
}

/** Every member that this version knows, in Longhorn's order. */
export const KNOWN = [
  'Name',
  'Size',
  'BlockCount',
  'Checksum',
  'Labels',
  'CompressionMethod',
  'CreatedTime',
  'CompleteTime',
  'Secret',
  'SecretNamespace',
  'ProcessingBlocks',
  'Blocks',
] as const

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/

/** @throws Error that names the member, what was expected and what came */
export function factsOf(members: ReadonlyMap<string, unknown>, name: BackupName): BackupFacts {
  const own = members.get('Name')
  if (own !== name) throw expected('Name', JSON.stringify(name), own)
  const completedAt = time('CompleteTime', members.get('CompleteTime'))
  const sizeBytes = decimal('Size', members.get('Size'))
  if (sizeBytes > MAX_IMAGE_BYTES || (sizeBytes === 0 && completedAt !== '')) {
    throw expected('Size', `1 to ${MAX_IMAGE_BYTES} bytes`, sizeBytes)
  }
  const unknown = [...members].filter(([key]) => !(KNOWN as readonly string[]).includes(key))
  return {
    name,
    sizeBytes,
    checksum: checksum(members.get('Checksum')),
    labels: labels(members.get('Labels')),
    compression: compression(members.get('CompressionMethod')),
    createdAt: time('CreatedTime', members.get('CreatedTime')),
    completedAt,
    secret: optionalText('Secret', members.get('Secret')),
    secretNamespace: optionalText('SecretNamespace', members.get('SecretNamespace')),
    unknown: Object.fromEntries(unknown),
  }
}

export function decimal(key: string, value: unknown): number {
  if (typeof value !== 'string' || !/^\d{1,16}$/.test(value)) {
    throw expected(key, 'a string of decimal digits', value)
  }
  return Number(value)
}

function time(key: string, value: unknown): string {
  const text = optionalText(key, value)
  if (text === '' || (TIME.test(text) && !Number.isNaN(Date.parse(text)))) return text
  throw expected(key, 'a time as in 2026-01-31T03:00:00Z, or ""', value)
}

function checksum(value: unknown): Checksum | undefined {
  const text = optionalText('Checksum', value).toLowerCase()
  if (text === '') return undefined
  if (!isChecksum(text)) throw expected('Checksum', '128 hex digits, or ""', value)
  return text
}

function compression(value: unknown): Compression {
  const text = optionalText('CompressionMethod', value)
  // stores older than the field hold gzip blocks
  if (text === '') return 'gzip'
  if (text === 'lz4' || text === 'gzip' || text === 'none') return text
  throw expected('CompressionMethod', '"lz4", "gzip" or "none"', value)
}

function labels(value: unknown): Record<string, string> {
  if (value === undefined || value === null) return {}
  const entries = Object.entries(plainObject(value, 'Labels'))
  return Object.fromEntries(
    entries.map(([key, text]) => {
      if (typeof text !== 'string') throw expected(`Labels[${shown(key)}]`, 'a string', text)
      return [key, text]
    }),
  )
}

function optionalText(key: string, value: unknown): string {
  if (value === undefined || value === null) return ''
  if (typeof value !== 'string') throw expected(key, 'a string', value)
  return value
}

export function plainObject(value: unknown, what: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>
  }
  throw expected(what, 'an object', value)
}

export function expected(key: string, what: string, got: unknown): Error {
  const shown = got === undefined ? 'nothing' : JSON.stringify(got)
  return new Error(
    `${key}: expected ${what}, got ${shown.length > 80 ? `${shown.slice(0, 80)}…` : shown}`,
  )
}

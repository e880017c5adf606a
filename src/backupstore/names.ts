/**
 * Names of backups. What is *read* may be anything Longhorn accepts; what is *written* becomes a
 * Kubernetes object name and a label value in every cluster attached to the store, and one bad
 * name there stops Longhorn's whole synchronisation, so it is held to the stricter rule.
 */
import { basename, extname } from 'node:path'
import { DroverError } from '../lib/errors.ts'

/** A name that may stand in a key: checked by `readableName` or `writableName`. */
export type BackupName = string & { readonly __brand: 'BackupName' }

const READABLE = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/
const LONGEST_READABLE = 255
const WRITABLE = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
const SHORTEST = 2
const LONGEST = 40

export const isReadableName = (name: string): name is BackupName =>
  READABLE.test(name) && name.length <= LONGEST_READABLE

export const isWritableName = (name: string): name is BackupName =>
  WRITABLE.test(name) && name.length >= SHORTEST && name.length <= LONGEST

/** @throws DroverError INVALID_NAME */
export function readableName(name: string): BackupName {
  if (isReadableName(name)) return name
  throw new DroverError(
    'INVALID_NAME',
    `${JSON.stringify(name)} is not a backup name: expected a letter or digit, then letters, digits, "_", "." or "-", 2 to ${LONGEST_READABLE} in all`,
    { details: { name } },
  )
}

/**
 * @param anyName accept whatever Longhorn's store accepts
 * @throws DroverError INVALID_NAME
 */
export function writableName(name: string, anyName: boolean): BackupName {
  if (anyName) return readableName(name)
  if (isWritableName(name)) return name
  const suggestion = suggestName(name)
  throw new DroverError(
    'INVALID_NAME',
    `${JSON.stringify(name)} cannot be an object name in every cluster: expected ${SHORTEST} to ${LONGEST} lower-case letters, digits, "-" and "." that start and end with a letter or digit` +
      (suggestion ? `; try --name ${suggestion}` : '') +
      ' (or --allow-any-name, if only the store matters)',
    { details: { name, suggestion } },
  )
}

/**
 * The default name of a backup of `file`: its base name without extension, made writable.
 * @throws DroverError INVALID_NAME when nothing usable is left
 */
export function nameFromFile(file: string): BackupName {
  const base = basename(file)
  const name = suggestName(base.slice(0, base.length - extname(base).length))
  if (name !== undefined) return name
  throw new DroverError(
    'INVALID_NAME',
    `no backup name can be derived from ${JSON.stringify(base)}: give one with --name`,
    { details: { file: base } },
  )
}

/** The nearest writable name, or undefined when `text` has no usable character. */
export function suggestName(text: string): BackupName | undefined {
  const cleaned = text
    .toLowerCase()
    .replace(/[^a-z0-9.]+/g, '-')
    .replace(/-*\.[-.]*/g, '.')
    .slice(0, LONGEST)
    .replace(/^[-.]+|[-.]+$/g, '')
  if (cleaned === '') return undefined
  const name = cleaned.length < SHORTEST ? `${cleaned}-image` : cleaned
  return isWritableName(name) ? name : undefined
}

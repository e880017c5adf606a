/** Values from the command line, checked at the edge: what was expected and what came. */
import { Option } from 'commander'
import {
  DEFAULT_CONCURRENCY,
  DEFAULT_LOCK_TIMEOUT_MS,
  DEFAULT_MIN_AGE_MS,
  MAX_CONCURRENCY,
} from '../app.ts'
import { formatDuration, parseDuration } from '../lib/duration.ts'
import { DroverError } from '../lib/errors.ts'

const count = (flag: string) => (text: string) => {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (value >= 1 && value <= MAX_CONCURRENCY) return value
  throw new DroverError(
    'USAGE',
    `${flag} expects a number from 1 to ${MAX_CONCURRENCY}, got ${JSON.stringify(text)}`,
  )
}

export const concurrencyOption = (flag: string, what: string): Option =>
  new Option(`${flag} <n>`, `${what}, 1 to ${MAX_CONCURRENCY}`)
    .argParser(count(flag))
    .default(DEFAULT_CONCURRENCY)

const durationOption = (flag: string, what: string, defaultMs: number): Option =>
  new Option(`${flag} <duration>`, what)
    .argParser((text: string) => parseDuration(text, flag))
    .default(defaultMs, formatDuration(defaultMs))

export const lockTimeoutOption = (): Option =>
  durationOption(
    '--lock-timeout',
    'how long to wait for a busy store, 0 for not at all',
    DEFAULT_LOCK_TIMEOUT_MS,
  )

export const minAgeOption = (): Option =>
  durationOption('--min-age', 'leave younger unreferenced blocks alone', DEFAULT_MIN_AGE_MS)

export const noLockOption = (): Option =>
  new Option('--no-lock', 'write nothing to the target, for a read-only store')

/** Collects `--label K=V`. */
export function collectLabel(
  text: string,
  before: Readonly<Record<string, string>> | undefined,
): Record<string, string> {
  const at = text.indexOf('=')
  const key = text.slice(0, at).trim()
  if (at <= 0 || key === '') {
    throw new DroverError('USAGE', `--label expects KEY=VALUE, got ${JSON.stringify(text)}`)
  }
  if (before && Object.hasOwn(before, key)) {
    throw new DroverError('USAGE', `--label ${key} is given twice`)
  }
  return { ...before, [key]: text.slice(at + 1) }
}

import { DroverError } from './errors.ts'

const UNITS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

/**
 * A duration such as `90s`, `1h30m`, `500ms`, `2d` or `0`, in milliseconds. A number without a
 * unit counts seconds.
 * @throws DroverError USAGE
 */
export function parseDuration(text: string, what: string): number {
  const trimmed = text.trim()
  if (/^\d+$/.test(trimmed) && Number.isSafeInteger(Number(trimmed) * 1000)) {
    return Number(trimmed) * 1000
  }
  let ms = 0
  let rest = trimmed
  while (rest !== '') {
    const part = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)/.exec(rest)
    if (!part) break
    ms += Number(part[1]) * UNITS[part[2] as keyof typeof UNITS]
    rest = rest.slice(part[0].length)
  }
  if (trimmed === '' || rest !== '' || !Number.isSafeInteger(Math.round(ms))) {
    throw new DroverError(
      'USAGE',
      `${what} is not a duration: expected something like 90s, 30m or 1h30m, got ${JSON.stringify(text)}`,
    )
  }
  return Math.round(ms)
}

/** `90500` → `1m31s`; short, and exact enough for a person. */
export function formatDuration(ms: number): string {
  const tenths = Math.round(ms / 100)
  if (ms < 9_995) return `${Number((ms / 1000).toFixed(2))}s`
  if (tenths < 600) return `${tenths / 10}s`
  const seconds = Math.round(ms / 1000)
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${seconds % 60}s`
  const minutes = Math.round(ms / 60_000)
  return `${Math.floor(minutes / 60)}h${minutes % 60}m`
}

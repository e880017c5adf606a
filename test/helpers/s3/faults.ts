/** What can happen to a request on its way, as data; and such things by chance. */
import { createHash } from 'node:crypto'
import type { Random } from '../random.ts'
import { seededRandom } from '../random.ts'
import type { S3Request } from './operation.ts'

export type Direction = 'request' | 'response'

export type Fault =
  /** The proxy answers itself, and the server never hears of it. */
  | {
      readonly kind: 'answer'
      readonly status: number
      readonly code: string
      readonly headers?: Readonly<Record<string, string>>
    }
  /** The server does what was asked for, and its answer is replaced by this one. */
  | { readonly kind: 'answer-after'; readonly status: number; readonly code: string }
  /** So many bytes of a body pass. Then: */
  | {
      readonly kind:
        | 'reset' // the connection is reset
        | 'cut' // the connection is closed as if the body were over
        | 'stall' // nothing happens any more
      readonly direction: Direction
      readonly atByte: number
    }
  /** A byte of a body arrives as another. */
  | { readonly kind: 'flip'; readonly direction: Direction; readonly atByte: number }
  /** The server hears of it later, or the client of the answer. */
  | { readonly kind: 'delay'; readonly direction: Direction; readonly ms: number }

/** Decides about one request. The number counts all requests of the proxy, from 1. */
export type Rule = (request: S3Request, number: number) => Fault | undefined

export const slowDown = (retryAfterSeconds?: number): Fault => ({
  kind: 'answer',
  status: 503,
  code: 'SlowDown',
  ...(retryAfterSeconds === undefined
    ? {}
    : { headers: { 'retry-after': String(retryAfterSeconds) } }),
})

/** These faults for the first requests that match, and none afterwards. */
export function firstOf(matches: (request: S3Request) => boolean, faults: readonly Fault[]): Rule {
  const left = [...faults]
  return (request) => (left.length > 0 && matches(request) ? left.shift() : undefined)
}

export const operation =
  (...names: string[]) =>
  (request: S3Request): boolean =>
    names.includes(request.operation)

export interface Weather {
  /** How many requests in a hundred meet a fault. */
  readonly percent: number
  readonly kinds: readonly WeatherKind[]
  /** No fault after so many: the weather clears up. */
  readonly most: number
}

export type WeatherKind = 'reset' | 'cut' | 'stall' | 'flip' | 'busy' | 'error' | 'delay' | 'after'

/** Blocks of tests are larger, most other bodies are not. */
const BLOCK_BODY = 700_000
const SMALL_BODY = 250
const MOST_IN_BURST = 6

/**
 * Faults by chance. What a request meets depends on the seed, on what it asks for, and on how often
 * that was asked before, so that it does not matter which of many requests comes first.
 */
export function weather(seed: number, { percent, kinds, most }: Weather): Rule {
  const asked = new Map<string, number>()
  let struck = 0
  let burst = 0
  return (request) => {
    if (burst > 0) {
      burst -= 1
      return slowDown()
    }
    // the names of locks and of trials are another each time
    const what = `${request.operation} ${request.key.replaceAll(/\b[0-9a-f]{16}\b/g, '')}`
    const nth = (asked.get(what) ?? 0) + 1
    asked.set(what, nth)
    const random = seededRandom(hashOf(`${seed} ${what} ${nth}`))
    if (struck >= most || !random.chance(percent / 100)) return undefined
    struck += 1
    const kind = random.pick(kinds)
    if (kind === 'busy') burst = random.int(0, MOST_IN_BURST)
    return faultOf(kind, request, random)
  }
}

function faultOf(kind: WeatherKind, request: S3Request, random: Random): Fault {
  const direction: Direction = request.operation === 'PutObject' ? 'request' : 'response'
  const atByte = random.int(0, request.key.endsWith('.blk') ? BLOCK_BODY : SMALL_BODY)
  switch (kind) {
    case 'reset':
    case 'cut':
    case 'stall':
      // an answer may also get lost when all was done
      if (random.chance(0.2)) return { kind, direction: 'response', atByte: 0 }
      return { kind, direction, atByte }
    case 'flip':
      return { kind, direction, atByte }
    case 'busy':
      return random.chance(0.5) ? slowDown() : slowDown(1)
    case 'error':
      return random.pick(ERRORS)
    case 'after':
      return { kind: 'answer-after', status: 500, code: 'InternalError' }
    case 'delay':
      return { kind: 'delay', direction, ms: random.int(10, 300) }
  }
}

const ERRORS: readonly Fault[] = [
  { kind: 'answer', status: 500, code: 'InternalError' },
  { kind: 'answer', status: 503, code: 'ServiceUnavailable' },
  { kind: 'answer', status: 429, code: 'TooManyRequests' },
  { kind: 'answer', status: 502, code: 'BadGateway' },
]

const hashOf = (text: string): number => createHash('sha256').update(text).digest().readUInt32LE()

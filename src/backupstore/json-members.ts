/**
 * Reads one large JSON object piece by piece. The config of a 1 TiB image is about 50 MB, nearly
 * all of it one array; parsed in one go it would take ten times that in memory and hold up the
 * event loop for seconds. Here only the seams are found by hand (strings, nesting, commas); each
 * piece between them goes through the platform's parser, which also judges whether it is JSON.
 */
import { isUtf8 } from 'node:buffer'

/** The largest member that is not the streamed array, and the largest element of that. */
const MAX_PIECE_BYTES = 1024 * 1024

const MAX_MEMBERS = 1000
/** All members together but the streamed array: they are kept, and written again. */
const MAX_MEMBERS_BYTES = 4 * 1024 * 1024
/** What is parsed here is written again, by a writer that recurses. */
const MAX_DEPTH = 100

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d
const OPEN_BRACKET = 0x5b
const CLOSE_BRACKET = 0x5d

export interface JsonReader {
  /** A member of the object, parsed. */
  member(key: string, value: unknown): void
  /** The next elements of the streamed array, parsed. */
  elements(values: readonly unknown[]): void
}

/**
 * Feed it chunks, then `end()`. Members named `arrayKey` whose value is an array come as elements.
 * Every method throws an Error with the reason when the bytes are not what was expected.
 */
export class JsonMembers {
  #rest: Buffer = Buffer.alloc(0)
  #state: 'start' | 'members' | 'array' | 'end' = 'start'
  /** A comma stands before what comes next. */
  #needsValue = false
  readonly #seen = new Set<string>()
  #memberBytes = 0
  readonly #reader: JsonReader
  readonly #arrayKey: string

  constructor(arrayKey: string, reader: JsonReader) {
    this.#arrayKey = arrayKey
    this.#reader = reader
  }

  write(chunk: Uint8Array): void {
    const bytes = this.#rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#rest, chunk])
    let at = 0
    for (let next = this.#step(bytes, at); next !== undefined; next = this.#step(bytes, at)) {
      at = next
      if (at >= bytes.length) break
    }
    this.#rest = bytes.subarray(at)
    if (this.#rest.length > MAX_PIECE_BYTES) {
      throw tooLong('a piece')
    }
  }

  end(): void {
    if (this.#state !== 'end') throw new Error('the JSON object is cut off')
  }

  /** Consumes one piece from `at`; undefined when its end is not there yet. */
  #step(bytes: Buffer, at: number): number | undefined {
    const from = skipSpace(bytes, at)
    if (from >= bytes.length) return from > at ? from : undefined
    switch (this.#state) {
      case 'start':
        if (bytes[from] !== OPEN_BRACE) throw new Error('not a JSON object')
        this.#state = 'members'
        return from + 1
      case 'members':
        return this.#member(bytes, from)
      case 'array':
        return this.#elements(bytes, from)
      case 'end':
        throw new Error('something follows the JSON object')
    }
  }

  #member(bytes: Buffer, from: number): number | undefined {
    if (bytes[from] === CLOSE_BRACE) {
      if (this.#needsValue) throw new Error('a comma with nothing after it')
      this.#state = 'end'
      return from + 1
    }
    const keyEnd = endOfString(bytes, from)
    if (keyEnd === undefined) return undefined
    const colon = skipSpace(bytes, keyEnd)
    if (colon >= bytes.length) return undefined
    if (bytes[colon] !== COLON) throw new Error('a member without ":"')
    const start = skipSpace(bytes, colon + 1)
    if (start >= bytes.length) return undefined
    const key = String(parse(bytes.subarray(from, keyEnd)))
    const isArray = key === this.#arrayKey && bytes[start] === OPEN_BRACKET
    const end = isArray ? { at: start } : endOfValue(bytes, start)
    if (end === undefined) return undefined
    if (this.#seen.has(key)) throw new Error(`the member ${shown(key)} twice`)
    if (this.#seen.add(key).size > MAX_MEMBERS) throw new Error(`more than ${MAX_MEMBERS} members`)
    if (isArray) {
      this.#state = 'array'
      this.#needsValue = false
      return start + 1
    }
    requireSize(end.at - from, key)
    this.#memberBytes += end.at - from
    if (this.#memberBytes > MAX_MEMBERS_BYTES) {
      throw new Error(`${shown(key)}: more than ${MAX_MEMBERS_BYTES} bytes in all members together`)
    }
    this.#reader.member(key, parse(bytes.subarray(start, end.at)))
    return this.#afterMember(bytes, end.at)
  }

  /** Past the comma that follows a member, or to the brace that ends them. */
  #afterMember(bytes: Buffer, at: number): number {
    this.#needsValue = bytes[at] === COMMA
    return this.#needsValue ? at + 1 : at
  }

  #elements(bytes: Buffer, from: number): number | undefined {
    // parse up to the last whole element in sight in one call
    let last = from
    for (let at = from; ; at = last + 1) {
      const start = skipSpace(bytes, at)
      if (start >= bytes.length) break
      if (bytes[start] === CLOSE_BRACKET) {
        if (this.#needsValue) throw new Error('a comma with nothing after it')
        return this.#closeArray(bytes, from, last, start)
      }
      const end = endOfValue(bytes, start)
      if (end === undefined) break
      if (end.at === start) throw new Error('a comma with nothing before it')
      requireSize(end.at - start, this.#arrayKey)
      last = end.at
      this.#needsValue = bytes[last] === COMMA
      if (bytes[last] === CLOSE_BRACKET) return this.#closeArray(bytes, from, last, last)
      if (bytes[last] !== COMMA) throw new Error('array elements without a comma between them')
    }
    if (last === from) return undefined
    this.#emit(bytes.subarray(from, last))
    return last + 1
  }

  #closeArray(bytes: Buffer, from: number, last: number, bracket: number): number | undefined {
    const after = skipSpace(bytes, bracket + 1)
    if (after >= bytes.length) {
      // what follows the bracket is not in sight yet: emit now, come back to the bracket
      if (last === from) return undefined
      this.#emit(bytes.subarray(from, last))
      return bracket
    }
    if (last > from) this.#emit(bytes.subarray(from, last))
    if (bytes[after] !== COMMA && bytes[after] !== CLOSE_BRACE)
      throw new Error('no comma after an array')
    this.#state = 'members'
    return this.#afterMember(bytes, after)
  }

  #emit(text: Buffer): void {
    this.#reader.elements(
      parse(Buffer.concat([Buffer.from('['), text, Buffer.from(']')])) as unknown[],
    )
  }
}

function requireSize(bytes: number, key: string): void {
  if (bytes > MAX_PIECE_BYTES) throw tooLong(shown(key))
}

const tooLong = (what: string): Error =>
  new Error(`${what}: more than ${MAX_PIECE_BYTES} bytes in one member or entry`)

/** A name from a stranger, short enough for a message. */
export const shown = (name: string): string =>
  JSON.stringify(name.length > 60 ? `${name.slice(0, 60)}…` : name)

function parse(text: Buffer): unknown {
  if (!isUtf8(text)) throw new Error('bytes that are not UTF-8')
  return JSON.parse(text.toString('utf8'))
}

function skipSpace(bytes: Buffer, at: number): number {
  let here = at
  for (; here < bytes.length; here++) {
    const byte = bytes[here]
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) break
  }
  return here
}

/** The index after a string's closing quote; undefined when it is not in sight. */
function endOfString(bytes: Buffer, from: number): number | undefined {
  if (bytes[from] !== QUOTE) throw new Error('a member without a quoted name')
  for (let at = from + 1; at < bytes.length; at++) {
    const byte = bytes[at]
    if (byte === BACKSLASH) at += 1
    else if (byte === QUOTE) return at + 1
  }
  return undefined
}

/** Where the comma, brace or bracket after a value stands; undefined when it is not in sight. */
function endOfValue(bytes: Buffer, from: number): { at: number } | undefined {
  let depth = 0
  for (let at = from; at < bytes.length; at++) {
    const byte = bytes[at]
    if (byte === QUOTE) {
      const end = endOfString(bytes, at)
      if (end === undefined) return undefined
      at = end - 1
    } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      depth += 1
      if (depth > MAX_DEPTH) throw new Error(`values nested deeper than ${MAX_DEPTH}`)
    } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
      if (depth === 0) return { at }
      depth -= 1
    } else if (byte === COMMA && depth === 0) {
      return { at }
    }
  }
  return undefined
}

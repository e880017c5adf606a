import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import { JsonMembers } from '../../../src/backupstore/json-members.ts'

/** Reads as the config does; throws what the reader throws. */
function read(chunks: Iterable<Uint8Array>, arrayKey = 'Blocks'): Record<string, unknown> {
  const members: Array<[string, unknown]> = []
  let elements: unknown[] | undefined
  const json = new JsonMembers(arrayKey, {
    member: (key, value) => members.push([key, value]),
    elements: (values) => (elements ??= []).push(...values),
  })
  for (const chunk of chunks) json.write(chunk)
  json.end()
  if (elements) members.push([arrayKey, elements])
  return Object.fromEntries(members)
}

/** Cuts bytes at the given places (any numbers). */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const at = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b)
  return [0, ...at].map((from, n) => bytes.subarray(from, at[n] ?? bytes.length))
}

const places = fc.array(fc.nat({ max: 5000 }), { maxLength: 12 })
const values = fc.jsonValue({ maxDepth: 3 })
const documents = fc
  .tuple(
    fc.dictionary(
      fc.oneof(fc.string({ maxLength: 6 }), fc.constantFrom('Blocks', 'a"b', '{', '€')),
      values,
      { maxKeys: 6, noNullPrototype: true },
    ),
    fc.option(fc.array(values, { maxLength: 8 })),
    fc.constantFrom('', ' ', '\t', '\n  '),
  )
  .map(([members, array, space]) => {
    const { Blocks: _, ...rest } = members
    return JSON.stringify(array === null ? members : { ...rest, Blocks: array }, null, space)
  })
  // `JSON.parse` of Node 24 (V8 13.6) takes the key "\n" for "\\" once it has seen one such
  .filter((text) => !text.includes('\\\\'))

/** What the reader gives for a document: an empty streamed array gives no elements. */
const expected = (text: string): unknown => {
  const value = JSON.parse(text) as Record<string, unknown>
  if (Array.isArray(value['Blocks']) && value['Blocks'].length === 0) delete value['Blocks']
  return value
}

describe('an object read in pieces', () => {
  it('is what the platform makes of it in one go, wherever it is cut', () => {
    fc.assert(
      fc.property(documents, places, (text, places) => {
        assert.deepEqual(read(cut(Buffer.from(text), places)), expected(text))
      }),
      { numRuns: 1000 },
    )
  })

  it('is the same byte by byte', () => {
    const text = ` {"a" : 1 , "Blocks" : [ {"x":[1,"]"]} , 2 , "," , [ ] ] ,\n"é€😀":{"\\"}":"\\\\"} } `
    const bytes = Buffer.from(text)
    assert.deepEqual(
      read(Array.from(bytes, (_, at) => bytes.subarray(at, at + 1))),
      JSON.parse(text),
    )
    for (let at = 0; at <= bytes.length; at++) {
      assert.deepEqual(read([bytes.subarray(0, at), bytes.subarray(at)]), JSON.parse(text))
    }
  })

  it('is accepted exactly when the platform accepts it, whatever was done to its text', () => {
    const edit = fc.tuple(
      fc.nat({ max: 5000 }),
      fc.nat({ max: 2 }),
      fc.constantFrom(
        '',
        ...Array.from('{}[]",: 01-e.ntf\n'),
        '\\"',
        '\\u00',
        '"Blocks":[',
        ',,',
        '],[',
      ),
    )
    const edits = fc.array(edit, { minLength: 1, maxLength: 3 })
    let refused = 0
    let accepted = 0
    fc.assert(
      fc.property(documents, edits, places, (document, edits, places) => {
        let text = document
        for (const [place, remove, insert] of edits) {
          const at = place % (text.length + 1)
          text = text.slice(0, at) + insert + text.slice(at + remove)
        }
        const bytes = Buffer.from(text)
        // cutting a pair of surrogates makes other text
        text = bytes.toString()
        let whole: unknown
        try {
          whole = expected(text)
        } catch {
          whole = undefined
        }
        const isObject = typeof whole === 'object' && whole !== null && !Array.isArray(whole)
        if (isObject) {
          try {
            assert.deepEqual(read(cut(bytes, places)), whole)
            accepted += 1
          } catch (error) {
            // the platform takes the last of two members with one name; the reader takes neither
            if (!(error instanceof Error && error.message.endsWith(' twice'))) throw error
          }
        } else {
          refused += 1
          assert.throws(() => read(cut(bytes, places)), Error, text)
        }
      }),
      { numRuns: 5000 },
    )
    assert.ok(refused > 500 && accepted > 100, `${refused} refused, ${accepted} accepted`)
  })

  const bad: Array<[text: string, says: RegExp]> = [
    ['', /cut off/],
    [' ', /cut off/],
    ['[]', /not a JSON object/],
    ['null', /not a JSON object/],
    ['\ufeff{}', /not a JSON object/],
    ['{', /cut off/],
    ['{}{}', /something follows/],
    ['{} x', /something follows/],
    ['{"a":1,}', /comma with nothing after/],
    ['{"a":1,"a":2}', /"a" twice/],
    ['{"a":1,"\\u0061":2}', /"a" twice/],
    ['{"Blocks":[],"Blocks":[]}', /"Blocks" twice/],
    ['{"Blocks":null,"Blocks":[]}', /"Blocks" twice/],
    ['{"Blocks":[1,]}', /comma with nothing after/],
    ['{"Blocks":[,1]}', /comma with nothing before/],
    ['{"Blocks":[1,,2]}', /comma with nothing before/],
    ['{"Blocks":[1}', /without a comma between/],
    ['{"Blocks":[1]"a":1}', /no comma after an array/],
    ['{"Blocks":[1],}', /comma with nothing after/],
    ['{a:1}', /without a quoted name/],
    ['{"a" 1}', /without ":"/],
  ]
  for (const [text, says] of bad) {
    it(`is refused: ${JSON.stringify(text)}`, () => {
      const bytes = Buffer.from(text)
      assert.throws(() => read([bytes]), says)
      assert.throws(() => read(Array.from(bytes, (_, at) => bytes.subarray(at, at + 1))), says)
    })
  }

  it('is refused when it has more members than anybody writes', () => {
    const members = Array.from({ length: 1001 }, (_, n) => `"${n}":0`)
    assert.throws(() => read([Buffer.from(`{${members.join(',')}}`)]), /more than 1000 members/)
    assert.equal(Object.keys(read([Buffer.from(`{${members.slice(1).join(',')}}`)])).length, 1000)
  })

  it('is refused when its members are more than anybody keeps, taken together', () => {
    const text = 'x'.repeat(1_000_000)
    const chunks = function* (members: number, blocks: number) {
      yield Buffer.from('{"Blocks":[0')
      for (let n = 0; n < blocks; n++) yield Buffer.from(`,"${text}"`)
      yield Buffer.from(']')
      for (let n = 0; n < members; n++) yield Buffer.from(`,"${n}":"${text}"`)
      yield Buffer.from('}')
    }
    assert.equal(Object.keys(read(chunks(4, 6))).length, 5)
    assert.throws(() => read(chunks(5, 0)), /"4": more than 4194304 bytes in all members together/)
  })

  it('may not change its chunks later: the reader keeps no view of them', () => {
    const bytes = Buffer.from('{"a":"xx')
    const members: unknown[] = []
    const json = new JsonMembers('Blocks', {
      member: (key, value) => members.push(key, value),
      elements: () => undefined,
    })
    json.write(bytes)
    bytes.fill('?')
    json.write(Buffer.from('yy"}'))
    json.end()
    assert.deepEqual(members, ['a', 'xxyy'])
  })
})

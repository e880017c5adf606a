import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import type { BlockId } from '../../../src/backupstore/block.ts'
import { BLOCK_BYTES, MAX_IMAGE_BYTES } from '../../../src/backupstore/block.ts'
import type { Backup } from '../../../src/backupstore/config.ts'
import {
  configTime,
  parseConfig,
  parseConfigHead,
  serializeConfig,
} from '../../../src/backupstore/config.ts'
import { configKey } from '../../../src/backupstore/layout.ts'
import type { BackupName } from '../../../src/backupstore/names.ts'
import { DroverError, isDroverError } from '../../../src/lib/errors.ts'
import { backups, entriesOf, mapOf } from '../../helpers/arbitraries.ts'
import type { Memory } from '../../helpers/measure.ts'
import { measure } from '../../helpers/measure.ts'
import { golden, unpackGolden } from '../../helpers/stores.ts'
import { tempFolder } from '../../helpers/temp.ts'

const WHERE = 'backupstore/somewhere/ubuntu/backing-image.cfg'
const UBUNTU = 'ubuntu' as BackupName
const A = 'aa'.repeat(32) as BlockId
const B = 'bb'.repeat(32) as BlockId

const textOf = (backup: Backup) => Buffer.concat([...serializeConfig(backup).chunks()]).toString()

/** A legal config with some members changed; `undefined` leaves one out. */
const config = (changed: Record<string, unknown> = {}): Record<string, unknown> => ({
  Name: 'ubuntu',
  Size: String(3 * BLOCK_BYTES),
  BlockCount: '2',
  Checksum: '12'.repeat(64),
  Labels: { by: 'hand' },
  CompressionMethod: 'lz4',
  CreatedTime: '2026-01-01T00:00:00Z',
  CompleteTime: '2026-01-01T00:00:05Z',
  Secret: '',
  SecretNamespace: '',
  ProcessingBlocks: { Blocks: {} },
  Blocks: [
    { Offset: 0, BlockChecksum: A },
    { Offset: 2 * BLOCK_BYTES, BlockChecksum: B },
  ],
  ...changed,
})

type Input = Buffer | string | Record<string, unknown>

const bytesOf = (input: Input): Buffer => {
  if (Buffer.isBuffer(input)) return input
  return Buffer.from(typeof input === 'string' ? input : JSON.stringify(input))
}

/** In pieces as a file gives them. */
function* pieces(bytes: Buffer, size = 64 * 1024): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

const parse = (input: Input) => parseConfig(pieces(bytesOf(input)), UBUNTU, WHERE)

/** That it is refused in the way everything damaged is, readably. */
function assertInvalid(error: unknown, says: RegExp): asserts error is DroverError {
  assert.ok(isDroverError(error, 'CONFIG_INVALID'), `not CONFIG_INVALID: ${String(error)}`)
  assert.ok(error.message.startsWith(WHERE), `does not name the config: ${error.message}`)
  assert.equal(error.details['config'], WHERE)
  assert.match(error.message, says)
  assert.ok(error.message.length < 1000, `a message of ${error.message.length} characters`)
}

const refused = (input: Input, says: RegExp) =>
  assert.rejects(parse(input), (error) => {
    assertInvalid(error, says)
    return true
  })

describe('a config that Longhorn wrote', () => {
  it('is understood, and written again to the byte', async (t) => {
    const folder = await tempFolder(t)
    await unpackGolden(folder)
    for (const [name, { size, sha512 }] of Object.entries(golden)) {
      const path = join(folder, configKey(name as BackupName))
      const bytes = await readFile(path)
      const backup = await parseConfig([bytes], name as BackupName, path)
      assert.equal(backup.name, name)
      assert.equal(backup.sizeBytes, size)
      assert.equal(backup.checksum, sha512)
      assert.deepEqual(backup.labels, { by: 'longhorn' })
      assert.deepEqual(backup.unknown, {})
      assert.match(backup.completedAt, /^2026-11-20T06:18:\d\dZ$/)
      assert.equal(textOf(backup), bytes.toString())
    }
  })

  it('is understood when its writer was killed', async (t) => {
    const folder = await tempFolder(t)
    await unpackGolden(folder)
    const name = 'interrupted' as BackupName
    const bytes = await readFile(join(folder, configKey(name)))
    const backup = await parseConfig([bytes], name, 'x')
    assert.equal(backup.completedAt, '')
    assert.equal(backup.sizeBytes, 838860800)
    assert.equal(backup.blocks.length, 0)
  })
})

describe('a legal config', () => {
  it('is understood', async () => {
    const backup = await parse(config())
    assert.deepEqual(entriesOf(backup.blocks), [
      [0, A],
      [2, B],
    ])
    const { blocks: _, ...facts } = backup
    assert.deepEqual(facts, {
      name: 'ubuntu',
      sizeBytes: 3 * BLOCK_BYTES,
      checksum: '12'.repeat(64),
      labels: { by: 'hand' },
      compression: 'lz4',
      createdAt: '2026-01-01T00:00:00Z',
      completedAt: '2026-01-01T00:00:05Z',
      secret: '',
      secretNamespace: '',
      unknown: {},
    })
  })

  const same = (changed: Record<string, unknown>, expected: Partial<Backup>) => async () => {
    const backup = await parse(config(changed))
    for (const [key, value] of Object.entries(expected)) {
      assert.deepEqual(backup[key as keyof Backup], value)
    }
  }
  it(
    'may have no compression: old stores are gzip',
    same({ CompressionMethod: '' }, { compression: 'gzip' }),
  )
  it('may lack it altogether', same({ CompressionMethod: undefined }, { compression: 'gzip' }))
  it('may have no checksum', same({ Checksum: '' }, { checksum: undefined }))
  it('may have null labels', same({ Labels: null }, { labels: {} }))
  it(
    'may lack what is optional',
    same({ Secret: undefined, Labels: undefined }, { secret: '', labels: {} }),
  )
  it(
    'may have null in place of no processing blocks',
    same({ ProcessingBlocks: null }, { unknown: {} }),
  )
  it(
    'may have its size at the limit',
    same({ Size: String(MAX_IMAGE_BYTES) }, { sizeBytes: MAX_IMAGE_BYTES }),
  )
  it(
    'may have a block that covers the last byte only',
    same({ Size: String(2 * BLOCK_BYTES + 1) }, { sizeBytes: 2 * BLOCK_BYTES + 1 }),
  )
  it(
    'may have members that we do not know',
    same({ Future: { x: [1] } }, { unknown: { Future: { x: [1] } } }),
  )

  it('may have no blocks, told in three ways', async () => {
    for (const Blocks of [undefined, null, []]) {
      assert.equal((await parse(config({ Blocks, BlockCount: '0' }))).blocks.length, 0)
    }
  })

  it('may have its members in any order', async () => {
    const reversed = Object.fromEntries(Object.entries(config()).reverse())
    assert.deepEqual(await parse(reversed), await parse(config()))
  })

  it('may be a placeholder whose counts are not there yet', async () => {
    const backup = await parse(
      config({ CompleteTime: '', BlockCount: '0', Size: '0', Blocks: null }),
    )
    assert.equal(backup.completedAt, '')
  })

  it('keeps labels with names that mean something elsewhere', async () => {
    const text = JSON.stringify(config()).replace('{"by":"hand"}', '{"__proto__":"x","a":"y"}')
    const backup = await parse(text)
    assert.deepEqual(Object.entries(backup.labels), [
      ['__proto__', 'x'],
      ['a', 'y'],
    ])
    assert.equal(Object.getPrototypeOf(backup.labels), Object.prototype)
    assert.match(textOf(backup), /"Labels":\{"__proto__":"x","a":"y"\}/)
  })

  it('keeps an unknown member called __proto__, and pollutes nothing by it', async () => {
    const text = `{"__proto__":{"polluted":true},${JSON.stringify(config()).slice(1)}`
    const backup = await parse(text)
    assert.equal(({} as Record<string, unknown>)['polluted'], undefined)
    assert.equal(backup.completedAt, '2026-01-01T00:00:05Z')
    assert.match(textOf(backup), /"__proto__":\{"polluted":true\}/)
  })
})

/** Cuts bytes at the given places (any numbers). */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const at = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b)
  return [0, ...at].map((from, n) => bytes.subarray(from, at[n] ?? bytes.length))
}

describe('a backup written as a config', () => {
  it('comes back as it was, wherever the bytes are cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        backups,
        fc.array(fc.nat({ max: 20_000 }), { maxLength: 20 }),
        async (backup, places) => {
          const body = serializeConfig(backup)
          const bytes = Buffer.concat([...body.chunks()])
          const parsed = await parseConfig(cut(bytes, places), backup.name, WHERE)
          assert.deepEqual(
            { ...parsed, blocks: entriesOf(parsed.blocks) },
            {
              ...backup,
              blocks: entriesOf(backup.blocks),
            },
          )
        },
      ),
      { numRuns: 500 },
    )
  })

  it('is JSON in the shape and the order that Longhorn writes', () => {
    fc.assert(
      fc.property(backups, (backup) => {
        const body = serializeConfig(backup)
        const text = Buffer.concat([...body.chunks()])
        assert.equal(body.sizeBytes, text.length)
        assert.deepEqual(Buffer.concat([...body.chunks()]), text, 'asked for again, the same')
        const json = JSON.parse(text.toString()) as Record<string, unknown>
        assert.equal(json['Size'], String(backup.sizeBytes))
        assert.equal(json['BlockCount'], String(backup.blocks.length))
        assert.equal(json['Checksum'], backup.checksum ?? '')
        assert.deepEqual(json['ProcessingBlocks'], { Blocks: {} })
        const known = Object.keys(json).filter((key) => !Object.hasOwn(backup.unknown, key))
        assert.deepEqual(known, [
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
          ...(backup.blocks.length > 0 ? ['Blocks'] : []),
        ])
        if (backup.blocks.length > 0) {
          assert.equal(Object.keys(json).at(-1), 'Blocks')
          const entries = json['Blocks'] as Array<{ Offset: number; BlockChecksum: string }>
          assert.deepEqual(
            entries.map((entry) => Object.entries(entry)),
            entriesOf(backup.blocks).map(([index, id]) => [
              ['Offset', index * BLOCK_BYTES],
              ['BlockChecksum', id],
            ]),
          )
        }
      }),
      { numRuns: 300 },
    )
  })

  it('is made piece by piece when it has thousands of blocks', async () => {
    const id = (n: number) => n.toString(16).padStart(64, '0') as BlockId
    for (const count of [999, 1000, 1001, 2000, 2001]) {
      const backup: Backup = {
        ...(await parse(config())),
        sizeBytes: count * BLOCK_BYTES,
        blocks: mapOf(Array.from({ length: count }, (_, n) => [n, id(n)] as const)),
      }
      const parts = [...serializeConfig(backup).chunks()]
      assert.ok(parts.every((part) => part.length < 256 * 1024))
      const parsed = await parseConfig(parts, UBUNTU, WHERE)
      assert.equal(parsed.blocks.equals(backup.blocks), true)
      assert.equal((JSON.parse(textOf(backup)) as { Blocks: unknown[] }).Blocks.length, count)
    }
  })

  it('tells times in whole seconds of UTC', () => {
    assert.equal(configTime(Date.UTC(2026, 0, 31, 3, 0, 0, 999)), '2026-01-31T03:00:00Z')
  })
})

describe('a config is refused, naming it and what was expected', () => {
  const entry = (Offset: unknown, BlockChecksum: unknown = A) => ({ Offset, BlockChecksum })
  const blocks = (...Blocks: unknown[]) => config({ Blocks, BlockCount: String(Blocks.length) })
  const nested = '['.repeat(200_000) + ']'.repeat(200_000)
  const withRaw = (key: string, raw: string) =>
    JSON.stringify(config({ [key]: '@' })).replace(`"${key}":"@"`, `"${key}":${raw}`)

  const cases: Array<[what: string, input: Input, says: RegExp]> = [
    ['of no bytes', '', /cut off/],
    ['of zeros', Buffer.alloc(4096), /not a JSON object/],
    ['of garbage', Buffer.from([0xde, 0xad, 0xbe, 0xef]), /not a JSON object/],
    ['that is another kind of JSON', '[{}]', /not a JSON object/],
    ['with more after it', `${JSON.stringify(config())}{}`, /something follows/],
    [
      'with a member twice',
      `{"Name":"ubuntu",${JSON.stringify(config()).slice(1)}`,
      /"Name" twice/,
    ],
    ['without anything', '{}', /Name: expected "ubuntu", got nothing/],
    [
      'of another name than its folder',
      config({ Name: 'debian' }),
      /Name: expected "ubuntu", got "debian"/,
    ],
    ['of a name in other case', config({ Name: 'Ubuntu' }), /Name: expected "ubuntu"/],
    ['with a name that is no text', config({ Name: ['ubuntu'] }), /Name: expected "ubuntu"/],
    [
      'without a size',
      config({ Size: undefined }),
      /Size: expected a string of decimal digits, got nothing/,
    ],
    [
      'with a size that is a number',
      config({ Size: 512 }),
      /Size: expected a string of decimal digits, got 512/,
    ],
    ['with a negative size', config({ Size: '-1' }), /Size: expected a string of decimal digits/],
    [
      'with a fraction of a size',
      config({ Size: '1.5' }),
      /Size: expected a string of decimal digits/,
    ],
    [
      'with a size in other digits',
      config({ Size: '٣٣' }),
      /Size: expected a string of decimal digits/,
    ],
    [
      'with a size of 0',
      config({ Size: '0', Blocks: [], BlockCount: '0' }),
      /Size: expected 1 to \d+ bytes/,
    ],
    [
      'with a huge size',
      config({ Size: String(MAX_IMAGE_BYTES + 1) }),
      /Size: expected 1 to \d+ bytes/,
    ],
    [
      'with a size beyond numbers',
      config({ Size: '9'.repeat(16) }),
      /Size: expected 1 to \d+ bytes/,
    ],
    [
      'with a size of a million digits',
      config({ Size: '9'.repeat(999_999) }),
      /Size: expected a string/,
    ],
    ['without a block count', config({ BlockCount: undefined }), /BlockCount: expected a string/],
    ['with a wrong block count', config({ BlockCount: '3' }), /BlockCount: expected "2".*got "3"/],
    ['with a count that is a number', config({ BlockCount: 2 }), /BlockCount: expected a string/],
    [
      'with a checksum that is too short',
      config({ Checksum: 'ab' }),
      /Checksum: expected 128 hex digits/,
    ],
    [
      'with a checksum of no hex',
      config({ Checksum: 'xy'.repeat(64) }),
      /Checksum: expected 128 hex digits/,
    ],
    ['with a checksum that is a number', config({ Checksum: 7 }), /Checksum: expected a string/],
    [
      'with an unknown compression',
      config({ CompressionMethod: 'zstd' }),
      /expected "lz4", "gzip" or "none"/,
    ],
    [
      'with a compression in other case',
      config({ CompressionMethod: 'LZ4' }),
      /expected "lz4", "gzip"/,
    ],
    [
      'with a compression every object has',
      config({ CompressionMethod: 'toString' }),
      /expected "lz4"/,
    ],
    ['with labels in a list', config({ Labels: ['a'] }), /Labels: expected an object/],
    [
      'with a label that is no text',
      config({ Labels: { a: 1 } }),
      /Labels.*a.*: expected a string, got 1/,
    ],
    [
      'with a time that is none',
      config({ CompleteTime: 'yesterday' }),
      /CompleteTime: expected a time as in/,
    ],
    [
      'with a time out of range',
      config({ CompleteTime: '2026-13-01T00:00:00Z' }),
      /CompleteTime: expected a time/,
    ],
    [
      'with more after a time',
      config({ CreatedTime: '2026-01-01T00:00:00Zx' }),
      /CreatedTime: expected a time/,
    ],
    [
      'with control characters after a time',
      config({ CreatedTime: '2026-01-01T00:00:00Z (\u001b[2J)' }),
      /CreatedTime: expected a time/,
    ],
    [
      'with a time that is a number',
      config({ CompleteTime: 1 }),
      /CompleteTime: expected a string/,
    ],
    ['with a secret that is no text', config({ Secret: {} }), /Secret: expected a string/],
    ['with blocks that are no list', config({ Blocks: {} }), /Blocks: expected an array/],
    ['with blocks that are text', config({ Blocks: 'x' }), /Blocks: expected an array/],
    ['with blocks twice', `{"Blocks":[],${JSON.stringify(config()).slice(1)}`, /"Blocks" twice/],
    [
      'with an entry that is none',
      blocks(entry(0), null),
      /each entry of Blocks: expected an object/,
    ],
    ['with a list for an entry', blocks([0, A]), /each entry of Blocks: expected an object/],
    ['with an entry without an offset', blocks({ BlockChecksum: A }), /Offset: expected a number/],
    ['with an entry without an id', blocks({ Offset: 0 }), /BlockChecksum: expected 64 hex digits/],
    ['with a text for an offset', blocks(entry('0')), /Offset: expected a number/],
    ['with a negative offset', blocks(entry(-BLOCK_BYTES)), /Offset: expected a number of bytes/],
    ['with a fraction for an offset', blocks(entry(0.5)), /Offset: expected a number of bytes/],
    ['with an unaligned offset', blocks(entry(1)), /Offset: expected a multiple of 2097152, got 1/],
    [
      'with an offset past the end',
      blocks(entry(3 * BLOCK_BYTES)),
      /Offset: expected an offset inside/,
    ],
    [
      'with an offset past every end',
      blocks(entry(2 ** 53 - BLOCK_BYTES)),
      /Offset: expected an offset inside/,
    ],
    ['with an offset beyond numbers', blocks(entry(1e300)), /Offset: expected a number of bytes/],
    [
      'with an offset twice',
      blocks(entry(0), entry(0)),
      /Offset: expected more than the one before/,
    ],
    [
      'with offsets in descending order',
      blocks(entry(BLOCK_BYTES), entry(0)),
      /Offset: expected more than/,
    ],
    ['with a short id', blocks(entry(0, A.slice(1))), /BlockChecksum: expected 64 hex digits/],
    ['with a long id', blocks(entry(0, `${A}a`)), /BlockChecksum: expected 64 hex digits/],
    [
      'with an id in upper case',
      blocks(entry(0, A.toUpperCase())),
      /BlockChecksum: expected 64 hex digits/,
    ],
    [
      'with an id of no hex',
      blocks(entry(0, 'g'.repeat(64))),
      /BlockChecksum: expected 64 hex digits/,
    ],
    [
      'with an id that is a path',
      blocks(entry(0, `../../${'a'.repeat(58)}`)),
      /BlockChecksum: expected 64/,
    ],
    ['with an id that is a number', blocks(entry(0, 7)), /BlockChecksum: expected 64 hex digits/],
    [
      'with an id of a megabyte',
      blocks(entry(0, 'a'.repeat(900_000))),
      /BlockChecksum: expected 64/,
    ],
    [
      "with a label's name of a megabyte",
      config({ Labels: { ['k'.repeat(900_000)]: 1 } }),
      /Labels.*: expected a string/,
    ],
    [
      "with a member's name of a megabyte, twice",
      `{"${'k'.repeat(900_000)}":1,"${'k'.repeat(900_000)}":2}`,
      /twice/,
    ],
    [
      'with labels of 2 MB',
      config({ Labels: { a: 'x'.repeat(2_000_000) } }),
      /more than 1048576 bytes/,
    ],
    [
      'with 2 MB of unknown things',
      config({ Future: 'x'.repeat(2_000_000) }),
      /more than 1048576 bytes/,
    ],
    ['with a text that never ends', `{"Name":"${'x'.repeat(3_000_000)}`, /more than 1048576 bytes/],
    [
      'with an entry that never ends',
      `{"Blocks":[{"${'x'.repeat(3_000_000)}`,
      /more than 1048576 bytes/,
    ],
    ['of nothing but brackets', '['.repeat(3_000_000), /not a JSON object/],
    ['of nothing but open braces', '{'.repeat(3_000_000), /without a quoted name/],
    ['with deep nesting for labels', withRaw('Labels', nested), /nested deeper than 100/],
    [
      'with deep nesting for a label',
      withRaw('Labels', `{"a":${nested}}`),
      /nested deeper than 100/,
    ],
    [
      'with deep nesting for an offset',
      `{"Blocks":[{"Offset":${nested}}]}`,
      /nested deeper than 100/,
    ],
    [
      'with deep nesting for the blocks',
      withRaw('Blocks', `{"a":${nested}}`),
      /nested deeper than 100/,
    ],
    ['with bytes that are not UTF-8', Buffer.from('{"Name":"\xff\xfe"}', 'latin1'), /not UTF-8/],
    [
      "with a member's name that is not UTF-8",
      Buffer.from('{"\xc0\x80":1}', 'latin1'),
      /not UTF-8/,
    ],
    ['with an entry that is not UTF-8', Buffer.from('{"Blocks":["\xff"]}', 'latin1'), /not UTF-8/],
    ['in UTF-16', Buffer.from(JSON.stringify(config()), 'utf16le'), /damaged: /],
  ]
  for (const [what, input, says] of cases) it(what, () => refused(input, says))

  it('whole or in one piece: how the bytes come in decides nothing', async () => {
    const large = bytesOf(config({ Labels: { a: 'x'.repeat(2_000_000) } }))
    for (const size of [1000, 64 * 1024, 1024 * 1024, 4 * 1024 * 1024]) {
      await assert.rejects(
        parseConfig(pieces(large, size), UBUNTU, WHERE),
        (error) => isDroverError(error, 'CONFIG_INVALID'),
        `read in pieces of ${size} bytes`,
      )
    }
  })

  it('cut off at any byte', async () => {
    const bytes = bytesOf(config())
    for (let length = 0; length < bytes.length; length++) {
      await refused(bytes.subarray(0, length), /cut off/)
    }
  })

  it('or understood, with any byte of it changed, but nothing else happens', async () => {
    const bytes = bytesOf(config({ Labels: { é: '€' } }))
    for (let at = 0; at < bytes.length; at++) {
      for (const value of [0x00, 0x22, 0x2c, 0x5b, 0x7d, 0xff]) {
        const changed = Buffer.from(bytes)
        changed[at] = value
        try {
          await parse(changed)
        } catch (error) {
          assertInvalid(error, /is damaged: /)
        }
      }
    }
  })

  it('but not for a target that fails while it is read', async () => {
    const failure = new DroverError('TARGET_UNREACHABLE', 'connection reset')
    async function* broken() {
      yield bytesOf(config()).subarray(0, 100)
      throw failure
    }
    await assert.rejects(parseConfig(broken(), UBUNTU, WHERE), failure)
  })
})

it('what an unknown member nests deeply is refused, or can be written again', async () => {
  const nested = '['.repeat(100_000) + ']'.repeat(100_000)
  const text = JSON.stringify(config({ Future: '@' })).replace('"@"', nested)
  let backup
  try {
    backup = await parse(text)
  } catch (error) {
    assertInvalid(error, /nest|deep/)
    return
  }
  assert.ok(textOf(backup).includes(nested))
})

describe('the head of a config', () => {
  it('tells the facts when it holds them all, and nothing otherwise', async () => {
    await fc.assert(
      fc.asyncProperty(backups, fc.nat({ max: 10_000 }), async (backup, place) => {
        const bytes = Buffer.from(textOf(backup))
        const { blocks: _, ...facts } = backup
        const marker = bytes.lastIndexOf('"ProcessingBlocks":{"Blocks":{}}')
        const from = place % (bytes.length + 1)
        const head = await parseConfigHead(bytes.subarray(0, from), backup.name, WHERE)
        if (from <= marker) assert.equal(head, undefined)
        if (head) {
          const { blocks, ...found } = head
          assert.equal(blocks, undefined)
          assert.deepEqual(found, facts)
        }
        const long = bytes.subarray(0, marker + '"ProcessingBlocks":{"Blocks":{}},'.length)
        const sure = await parseConfigHead(long, backup.name, WHERE)
        assert.equal(sure?.completedAt, backup.completedAt)
      }),
      { numRuns: 500 },
    )
  })

  it('tells nothing when the blocks come before the facts', async () => {
    const { Blocks, ...rest } = config()
    const bytes = bytesOf({ Blocks, ...rest })
    const head = await parseConfigHead(bytes.subarray(0, bytes.length - 40), UBUNTU, WHERE)
    assert.equal(head, undefined)
  })

  it('is refused as the whole config would be', async () => {
    for (const [input, says] of [
      ['garbage', /not a JSON object/],
      [JSON.stringify(config({ Name: 'debian' })), /Name: expected "ubuntu"/],
      [JSON.stringify(config({ Size: 5 })), /Size: expected/],
      [Buffer.from('{"Name":"\xff"', 'latin1').toString('latin1'), undefined],
    ] as const) {
      const head = parseConfigHead(Buffer.from(input), UBUNTU, WHERE)
      if (!says) {
        assert.equal(await head, undefined)
        continue
      }
      await assert.rejects(head, (error) => {
        assertInvalid(error, says)
        return true
      })
    }
  })
})

it('a config of 100 MB is read in bounded memory and leaves room for other work', async () => {
  const found = await measure<{
    fed: number
    entries: number
    expectedEntries: number
    lastIsRight: boolean
    ticks: number
    longestGapMs: number
    growth: Memory
  }>('./measure-config.ts', '100')
  assert.ok(found.fed > 95_000_000, `only ${found.fed} bytes`)
  assert.equal(found.entries, found.expectedEntries)
  assert.equal(found.lastIsRight, true)
  assert.ok(found.ticks > 20, `the timer fired only ${found.ticks} times`)
  assert.ok(found.longestGapMs < 250, `the longest gap was ${found.longestGapMs} ms`)
  assert.ok(found.growth.residentMiB < 200, `took ${found.growth.residentMiB} MiB`)
})

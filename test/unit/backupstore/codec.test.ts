import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import * as fc from 'fast-check'
import type { BlockId } from '../../../src/backupstore/block.ts'
import { BLOCK_BYTES, MAX_STORED_BLOCK_BYTES } from '../../../src/backupstore/block.ts'
import type { Compression } from '../../../src/backupstore/compression.ts'
import { COMPRESSIONS, familyOf, looksLike } from '../../../src/backupstore/compression.ts'
import type { DecodeOptions } from '../../../src/backupstore/codec.ts'
import { blockIdOf, checksumOf, decodeBlock, encodeBlock } from '../../../src/backupstore/codec.ts'
import { noise, text } from '../../helpers/images.ts'
import { frameOf, zerosBlock } from '../../helpers/lz4-frames.ts'
import type { Memory } from '../../helpers/measure.ts'
import { measure } from '../../helpers/measure.ts'
import { tempFolder } from '../../helpers/temp.ts'

const run = promisify(execFile)
const OTHER = '0'.repeat(64) as BlockId

/** Decodes with a command of the system; undefined when it refuses. */
function decodeWith(command: 'lz4' | 'gzip', stored: Buffer): Buffer | undefined {
  const { status, stdout } = spawnSync(command, ['-dc'], {
    input: stored,
    maxBuffer: 2 * BLOCK_BYTES,
  })
  return status === 0 ? stdout : undefined
}

function assertDecodes(stored: Buffer, raw: Buffer, as: Compression, what = ''): void {
  const decoded = decodeBlock(Buffer.from(stored), raw.length, blockIdOf(raw))
  assert.ok(decoded.ok, `${what} ${decoded.ok ? '' : decoded.reason}`)
  assert.equal(decoded.stored, as, what)
  assert.ok(decoded.bytes.equals(raw), what)
}

function reasonOf(stored: Buffer, length: number, id: BlockId, options?: DecodeOptions): string {
  const decoded = decodeBlock(Buffer.from(stored), length, id, options)
  assert.equal(decoded.ok, false)
  return decoded.reason
}

/** Bytes whose LZ4 frame is exactly as long as they are. */
function bytesAsLongAsTheirFrame(): { bytes: Buffer; frame: Buffer } {
  for (let size = 30; size < 400; size++) {
    const bytes = Buffer.alloc(size, 'ab')
    const frame = Buffer.from(encodeBlock(bytes, 'lz4'))
    if (frame.length === size) return { bytes, frame }
  }
  assert.fail('no such frame was found')
}

const SIZES = [1, 511, 512, 513, BLOCK_BYTES - 1, BLOCK_BYTES]
const contents = {
  random: (size: number) => noise(size, size),
  text: (size: number) => text(size, size),
  'one byte': (size: number) => Buffer.alloc(size, 7),
}

describe('a block that we store', () => {
  for (const compression of COMPRESSIONS) {
    for (const [what, make] of Object.entries(contents)) {
      it(`comes back (${compression}, ${what})`, () => {
        for (const size of SIZES) {
          const raw = make(size)
          const stored = Buffer.from(encodeBlock(raw, compression))
          assert.ok(stored.length <= MAX_STORED_BLOCK_BYTES)
          assert.equal(looksLike(stored), compression)
          assertDecodes(stored, raw, compression, `${size} bytes`)
        }
      })
    }
  }

  it('comes back, whatever is in it', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 3000 }),
      fc
        .array(
          fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 9 }), fc.integer({ min: 1, max: 99 })),
          {
            minLength: 1,
            maxLength: 20,
          },
        )
        .map((runs) =>
          Buffer.concat(
            runs.flatMap(([bytes, count]) => Array.from({ length: count }, () => bytes)),
          ),
        ),
    )
    fc.assert(
      fc.property(bytes, fc.constantFrom(...COMPRESSIONS), (bytes, compression) => {
        const raw = Buffer.from(bytes)
        assertDecodes(encodeBlock(raw, compression), raw, compression)
      }),
      { numRuns: 500 },
    )
  })

  it('is what the lz4 and gzip commands can read', () => {
    for (const make of Object.values(contents)) {
      for (const size of SIZES) {
        const raw = make(size)
        for (const command of ['lz4', 'gzip'] as const) {
          const back = decodeWith(command, encodeBlock(raw, command))
          assert.ok(back?.equals(raw), `${command} ${size}`)
        }
      }
    }
  })

  it('is one LZ4 frame with a content checksum, as Longhorn writes it', () => {
    const stored = encodeBlock(text(1, BLOCK_BYTES), 'lz4')
    assert.deepEqual([...stored.subarray(0, 4)], [0x04, 0x22, 0x4d, 0x18])
    assert.equal((stored[4] ?? 0) & 0x04, 0x04)
    // so damage is seen by whoever reads it
    stored.writeUInt32LE((stored.readUInt32LE(stored.length - 4) ^ 1) >>> 0, stored.length - 4)
    assert.equal(decodeWith('lz4', stored), undefined)
  })

  it('uncompressed is the very same bytes, not a copy', () => {
    const raw = noise(1, 100)
    assert.equal(encodeBlock(raw, 'none'), raw)
  })

  it('has the first half of its SHA-512 for an id', () => {
    const raw = Buffer.from('abc')
    assert.equal(blockIdOf(raw), 'ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a')
    assert.equal(checksumOf(raw).slice(0, 64), blockIdOf(raw))
    assert.equal(checksumOf(raw).length, 128)
  })

  it('is of a family by its compression', () => {
    assert.deepEqual(COMPRESSIONS.map(familyOf), ['framed', 'framed', 'raw'])
  })
})

describe('a frame that the lz4 command made', () => {
  const variants = [
    ...['-B4', '-B5', '-B6', '-B7'].flatMap((size) => [
      [size],
      [size, '-BD'],
      [size, '-BX'],
      [size, '-BD', '-BX', '--content-size', '--no-frame-crc'],
    ]),
    ['--content-size'],
    ['--no-frame-crc'],
    ['-9', '--content-size', '-BX'],
    ['-12', '-BD', '-B4'],
    ['--fast=9'],
    ['--favor-decSpeed', '-12'],
  ]
  it('is read, with any of its options', async (t) => {
    const folder = await tempFolder(t)
    const raws = [
      text(3, BLOCK_BYTES),
      noise(4, BLOCK_BYTES),
      Buffer.concat([noise(5, 700_000), text(5, 700_000), Buffer.alloc(63_296)]),
      text(6, 65_537),
      text(7, 511),
      Buffer.from('x'),
    ]
    for (const [n, raw] of raws.entries()) {
      const file = join(folder, `${n}.raw`)
      await writeFile(file, raw)
      for (const [v, options] of variants.entries()) {
        const out = join(folder, `${n}-${v}.lz4`)
        await run('lz4', ['-q', '-z', ...options, file, out])
        const what = `${options.join(' ')} of ${raw.length}`
        const stored = await readFile(out)
        assertDecodes(stored, raw, 'lz4', what)
        assert.match(reasonOf(stored, raw.length, OTHER), /does not match its id/, what)
        assert.match(reasonOf(stored, raw.length + 1, OTHER), /decodes to|expected/, what)
        if (raw.length > 1) {
          assert.match(reasonOf(stored, raw.length - 1, OTHER), /decod|expected|LZ4|output/i, what)
        }
      }
    }
  })
})

describe('a file that the gzip command made', () => {
  it('is read at any level', () => {
    for (const raw of [text(3, BLOCK_BYTES), noise(4, 700_001), Buffer.from('x')]) {
      for (const level of ['-1', '-6', '-9']) {
        const { stdout } = spawnSync('gzip', ['-c', level], {
          input: raw,
          maxBuffer: 2 * BLOCK_BYTES,
        })
        assertDecodes(stdout, raw, 'gzip', level)
      }
    }
  })
})

describe('raw bytes', () => {
  const raw = noise(9, 1000)
  for (const [what, head] of [
    ['an LZ4 frame', [0x04, 0x22, 0x4d, 0x18]],
    ['an LZ4 frame with a good header', [...frameOf([]).subarray(0, 7)]],
    ['a gzip file', [0x1f, 0x8b]],
    ['a gzip file with a good header', [...gzipSync('x').subarray(0, 10)]],
  ] as const) {
    it(`that begin like ${what} are what their id says`, () => {
      const block = Buffer.concat([Buffer.from(head), raw])
      assertDecodes(block, block, 'none')
    })
  }

  it('that are a whole frame of as many bytes are what their id says', () => {
    // one block of literals: the frame of n bytes is longer than n; so a frame of a frame
    for (const compression of ['lz4', 'gzip'] as const) {
      const frame = Buffer.from(encodeBlock(text(1, 5000), compression))
      assertDecodes(frame, frame, 'none', compression)
      assertDecodes(encodeBlock(frame, 'lz4'), frame, 'lz4', compression)
      assertDecodes(encodeBlock(frame, 'gzip'), frame, 'gzip', compression)
    }
  })

  it('that are a frame which decodes to its own length are told by the id', () => {
    const { bytes, frame } = bytesAsLongAsTheirFrame()
    assertDecodes(frame, bytes, 'lz4')
    assertDecodes(frame, frame, 'none')
  })

  it('of another length or id are refused with the reason', () => {
    assert.match(reasonOf(raw, 999, blockIdOf(raw)), /is 1000 bytes .* expected 999/)
    assert.match(reasonOf(raw, 1000, OTHER), /does not match its id/)
    assert.match(reasonOf(Buffer.alloc(0), 1000, OTHER), /is empty/)
  })
})

describe('a frame that nobody should send', () => {
  const raw = text(8, 300_000)
  const id = blockIdOf(raw)
  const lz4 = Buffer.from(encodeBlock(raw, 'lz4'))
  const gzip = Buffer.from(encodeBlock(raw, 'gzip'))
  const halves = [raw.subarray(0, 150_000), raw.subarray(150_000)].map((bytes) => ({
    bytes,
    compressed: false,
  }))

  it('is understood when it is only odd: two blocks of plain bytes', () => {
    assertDecodes(frameOf(halves), raw, 'lz4')
  })

  for (const [what, frame, says] of [
    ['of another version', frameOf(halves, { version: 2 }), /unknown version/],
    ['of version 0', frameOf(halves, { version: 0 }), /unknown version/],
    ['that needs a dictionary', frameOf(halves, { dictionary: 7 }), /dictionary/],
    ['of no blocks', frameOf([]), /decodes to 0 bytes, expected 300000/],
    ['of its magic only', lz4.subarray(0, 4), /cut off/],
    ['of its header only', lz4.subarray(0, 7), /cut off/],
    ['without its end', lz4.subarray(0, -8), /cut off/],
    ['without its checksum', lz4.subarray(0, -4), /cut off/],
    [
      'with a byte after its end',
      Buffer.concat([lz4, Buffer.alloc(1)]),
      /1 bytes after its LZ4 frame/,
    ],
    ['followed by another frame', Buffer.concat([lz4, lz4]), /bytes after its LZ4 frame/],
    ['with one block of too many zeros', frameOf([zerosBlock(300_001)]), /decod|output|expected/i],
    [
      'with two blocks of too many zeros',
      frameOf([zerosBlock(150_000), zerosBlock(150_001)]),
      /more than/,
    ],
    ['with too few zeros', frameOf([zerosBlock(299_999)]), /299999 bytes, expected 300000/],
    [
      'with too few zeros in two blocks',
      frameOf([zerosBlock(150_000), zerosBlock(149_999)]),
      /299999 bytes/,
    ],
    [
      'with too many plain bytes',
      frameOf([{ bytes: noise(1, 300_001), compressed: false }]),
      /more than the 300000 bytes/,
    ],
    [
      'with too few plain bytes',
      frameOf([{ bytes: noise(1, 299_999), compressed: false }]),
      /299999 bytes/,
    ],
    [
      'with a match before its start',
      frameOf([
        { bytes: Buffer.from([0x10, 0x41, 0xff, 0xff, 0x50, 0, 0, 0, 0, 0]), compressed: true },
      ]),
      /./,
    ],
    ['with a block of rubbish', frameOf([{ bytes: noise(3, 5000), compressed: true }]), /./],
    [
      'with two blocks of rubbish',
      frameOf([
        { bytes: noise(3, 5000), compressed: true },
        { bytes: noise(4, 5000), compressed: true },
      ]),
      /./,
    ],
    [
      'with a length that never ends',
      frameOf([{ bytes: Buffer.alloc(9000, 0xff), compressed: true }, ...halves]),
      /./,
    ],
    ['cut off as gzip', gzip.subarray(0, -1), /./],
    ['cut off as gzip in its middle', gzip.subarray(0, 5000), /./],
    ['of the gzip magic only', gzip.subarray(0, 2), /./],
    [
      'of gzip with too many bytes',
      gzipSync(noise(1, 300_001)),
      /more than the 300000 bytes expected/,
    ],
    ['of gzip with too few bytes', gzipSync(noise(1, 299_999)), /299999 bytes, expected 300000/],
    ['of gzip with rubbish after it', Buffer.concat([gzip, Buffer.from('rubbish, rubbish')]), /./],
    // the gzip of Go, with which Longhorn reads, refuses it
    ['of gzip with zeros after it', Buffer.concat([gzip, Buffer.alloc(512)]), /./],
  ] as const) {
    it(`is refused with a reason: ${what}`, () => {
      assert.match(reasonOf(frame, raw.length, id), says)
    })
  }

  it('may be cut off anywhere', () => {
    const small = text(1, 2000)
    for (const compression of ['lz4', 'gzip'] as const) {
      const stored = Buffer.from(encodeBlock(small, compression))
      for (let length = 0; length < stored.length; length++) {
        reasonOf(stored.subarray(0, length), small.length, blockIdOf(small))
      }
    }
  })

  it('never gives other bytes than those of its id, whatever is changed in it', () => {
    const small = text(1, 2000)
    const frames = [
      encodeBlock(small, 'lz4'),
      encodeBlock(small, 'gzip'),
      encodeBlock(small, 'none'),
      frameOf([
        { bytes: small.subarray(0, 1000), compressed: false },
        { bytes: small.subarray(1000), compressed: false },
      ]),
    ].map((frame) => Buffer.from(frame))
    const edits = fc.array(fc.tuple(fc.nat({ max: 5000 }), fc.nat({ max: 255 })), {
      minLength: 1,
      maxLength: 4,
    })
    fc.assert(
      fc.property(fc.constantFrom(...frames), edits, (frame, edits) => {
        const stored = Buffer.from(frame)
        for (const [at, value] of edits) stored[at % stored.length] = value
        const decoded = decodeBlock(stored, small.length, blockIdOf(small))
        if (decoded.ok) assert.ok(decoded.bytes.equals(small))
        else assert.notEqual(decoded.reason, '')
      }),
      { numRuns: 5000 },
    )
  })

  it('is refused when other readers refuse it: whichever bit has turned', (t) => {
    const small = text(1, 300)
    for (const command of ['lz4', 'gzip'] as const) {
      const stored = Buffer.from(encodeBlock(small, command))
      const missed: number[] = []
      for (let at = 0; at < stored.length; at++) {
        const turned = Buffer.from(stored)
        turned[at] = (turned[at] ?? 0) ^ 0x04
        if (!decodeBlock(Buffer.from(turned), small.length, blockIdOf(small)).ok) continue
        if (decodeWith(command, turned) === undefined) missed.push(at)
      }
      t.diagnostic(`${command}: ${stored.length} bytes`)
      assert.deepEqual(
        missed,
        [],
        `${command}: damage at these bytes of ${stored.length} is not seen`,
      )
    }
  })

  it('is refused, however it is put together', () => {
    const header = fc.tuple(fc.nat({ max: 255 }), fc.nat({ max: 255 }))
    fc.assert(
      fc.property(header, fc.uint8Array({ maxLength: 200 }), ([flags, descriptor], rest) => {
        const lz4 = Buffer.concat([Buffer.from([4, 0x22, 0x4d, 0x18, flags, descriptor]), rest])
        assert.notEqual(reasonOf(lz4, 4096, OTHER), '')
        const gzip = Buffer.concat([Buffer.from([0x1f, 0x8b, 8, flags]), rest])
        assert.notEqual(reasonOf(gzip, 4096, OTHER), '')
      }),
      { numRuns: 5000 },
    )
  })
})

describe('a block that the hash of the file is to prove', () => {
  const byFile = { provenBy: 'file' } as const
  const raw = text(8, 5000)
  const other = noise(8, 5000)

  it('may be any bytes of the right length, and is proven by its id unless that is said', () => {
    for (const bytes of [raw, other, Buffer.alloc(5000)]) {
      for (const compression of COMPRESSIONS) {
        const stored = Buffer.from(encodeBlock(bytes, compression))
        const decoded = decodeBlock(Buffer.from(stored), 5000, OTHER, byFile)
        assert.ok(decoded.ok, compression)
        assert.equal(decoded.stored, compression)
        assert.ok(decoded.bytes.equals(bytes))
        for (const options of [undefined, {}, { provenBy: 'id' } as const]) {
          assert.match(reasonOf(stored, 5000, OTHER, options), /does not match its id/)
        }
      }
    }
  })

  it('may be bytes that a frame without a look at its checksum gives', () => {
    const stored = Buffer.from(encodeBlock(raw, 'lz4'))
    // the last literal, before the end mark and the checksum
    const at = stored.length - 9
    stored[at] = (stored[at] ?? 0) ^ 1
    const decoded = decodeBlock(Buffer.from(stored), 5000, blockIdOf(raw), {
      ...byFile,
      strictness: 'bytes',
    })
    assert.ok(decoded.ok)
    assert.equal(
      decoded.bytes.compare(raw),
      (decoded.bytes.at(-1) ?? 0) > (raw.at(-1) ?? 0) ? 1 : -1,
    )
    assert.match(reasonOf(stored, 5000, blockIdOf(raw), byFile), /damaged LZ4 frame/)
    assert.match(reasonOf(stored, 5000, blockIdOf(raw), { strictness: 'bytes' }), /id/)
  })

  it('is told by its id all the same when its bytes could be a frame or the block itself', () => {
    const { bytes, frame } = bytesAsLongAsTheirFrame()
    const { length } = frame
    for (const [what, stored] of [
      [bytes, 'lz4'],
      [frame, 'none'],
    ] as const) {
      const decoded = decodeBlock(Buffer.from(frame), length, blockIdOf(what), byFile)
      assert.ok(decoded.ok)
      assert.equal(decoded.stored, stored)
      assert.ok(decoded.bytes.equals(what))
    }
    assert.match(reasonOf(frame, length, OTHER, byFile), /does not match its id/)
  })

  for (const [what, head] of [
    ['an LZ4 frame', frameOf([]).subarray(0, 7)],
    ['a gzip file', gzipSync('x').subarray(0, 10)],
  ] as const) {
    it(`is told by its id when it is raw and begins like ${what}`, () => {
      const block = Buffer.concat([head, noise(3, 1000)])
      const decoded = decodeBlock(Buffer.from(block), block.length, blockIdOf(block), byFile)
      assert.ok(decoded.ok)
      assert.equal(decoded.stored, 'none')
      assert.ok(decoded.bytes.equals(block))
      assert.notEqual(reasonOf(block, block.length, OTHER, byFile), '')
    })
  }

  it('is refused with a reason when its length is not the right one', () => {
    for (const bytes of [raw, other]) {
      const id = blockIdOf(bytes)
      for (const length of [1, 4999, 5001, BLOCK_BYTES]) {
        assert.match(reasonOf(bytes, length, id, byFile), /is 5000 bytes without .* expected/)
        const lz4 = encodeBlock(bytes, 'lz4')
        assert.match(reasonOf(lz4, length, id, byFile), /decod|expected|LZ4|output/i, `${length}`)
        const gzip = encodeBlock(bytes, 'gzip')
        assert.match(reasonOf(gzip, length, id, byFile), /decodes to/, `${length}`)
      }
    }
  })

  it('is refused with a reason when it is cut off, empty, or followed by more', () => {
    for (const compression of ['lz4', 'gzip'] as const) {
      const stored = Buffer.from(encodeBlock(raw, compression))
      for (let length = 0; length < stored.length; length++) {
        const cut = stored.subarray(0, length)
        assert.notEqual(reasonOf(cut, 5000, blockIdOf(raw), byFile), '', `${length}`)
      }
      const longer = Buffer.concat([stored, Buffer.from('more')])
      assert.notEqual(reasonOf(longer, 5000, blockIdOf(raw), byFile), '')
    }
    assert.match(reasonOf(Buffer.alloc(0), 5000, OTHER, byFile), /is empty/)
  })

  it('is refused with a reason when it is garbage, or a frame of it', () => {
    for (const garbage of [
      noise(1, 4999),
      frameOf([{ bytes: noise(3, 5000), compressed: true }]),
      frameOf([zerosBlock(4999)]),
      frameOf([zerosBlock(2500), zerosBlock(2501)]),
      Buffer.concat([gzipSync(raw).subarray(0, 10), noise(3, 500)]),
    ]) {
      assert.notEqual(reasonOf(garbage, 5000, OTHER, byFile), '')
    }
  })

  it('is of the right length, whatever is changed in what is stored of it', () => {
    const small = text(1, 2000)
    const frames = [
      ...COMPRESSIONS.map((compression) => Buffer.from(encodeBlock(small, compression))),
      frameOf([
        { bytes: small.subarray(0, 1000), compressed: false },
        { bytes: small.subarray(1000), compressed: false },
      ]),
    ]
    const edits = fc.array(fc.tuple(fc.nat({ max: 5000 }), fc.nat({ max: 255 })), {
      minLength: 1,
      maxLength: 4,
    })
    const strictnesses = fc.constantFrom('bytes', 'frame')
    fc.assert(
      fc.property(fc.constantFrom(...frames), edits, strictnesses, (frame, edits, strictness) => {
        const stored = Buffer.from(frame)
        for (const [at, value] of edits) stored[at % stored.length] = value
        const decoded = decodeBlock(stored, 2000, OTHER, { ...byFile, strictness })
        if (decoded.ok) assert.equal(decoded.bytes.length, 2000)
        else assert.notEqual(decoded.reason, '')
      }),
      { numRuns: 3000 },
    )
  })
})

describe('a block that would decode to 1 GiB', { concurrency: 2 }, () => {
  for (const [bomb, says] of [
    ['many blocks', /more than the 2097152 bytes expected/],
    ['many linked blocks', /more than the 2097152 bytes expected/],
    ['one block', /./],
    ['one block that says it is small', /./],
    ['a small frame that says it is huge', /expected/],
    ['a small frame that says it is beyond all memory', /./],
    ['many tiny blocks', /decodes to 0 bytes/],
    [
      'blocks that come to the right length before they end',
      /more than the 2097152 bytes expected/,
    ],
    ['gzip', /more than the 2097152 bytes expected/],
  ] as const) {
    it(`is refused before its memory is asked for: ${bomb}`, async () => {
      const found = await measure<{ ok: boolean; reason: string; growth: Memory }>(
        './measure-bomb.ts',
        bomb,
      )
      assert.equal(found.ok, false)
      assert.match(found.reason, says)
      assert.ok(found.growth.residentMiB < 64, `took ${found.growth.residentMiB} MiB`)
      assert.ok(found.growth.virtualMiB < 256, `asked for ${found.growth.virtualMiB} MiB`)
    })
  }
})

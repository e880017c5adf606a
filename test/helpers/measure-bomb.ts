/** Tries to decode a block that would become 1 GiB, and tells what it took. For `measure`. */
import { gzipSync } from 'node:zlib'
import type { BlockId } from '../../src/backupstore/block.ts'
import { BLOCK_BYTES } from '../../src/backupstore/block.ts'
import { decodeBlock, encodeBlock } from '../../src/backupstore/codec.ts'
import { frameOf, zerosBlock } from './lz4-frames.ts'
import { growthSince, peakMemory } from './measure.ts'

const MiB = 1024 * 1024
const GiB = 1024 * MiB
const times = <T>(count: number, of: T): T[] => Array.from({ length: count }, () => of)

const bombs: Record<string, () => Buffer> = {
  'many blocks': () => frameOf(times(256, zerosBlock(4 * MiB))),
  'many linked blocks': () => frameOf(times(256, zerosBlock(4 * MiB)), { linked: true }),
  'one block': () => frameOf([zerosBlock(GiB)]),
  'one block that says it is small': () =>
    frameOf([zerosBlock(GiB)], { contentSize: BigInt(BLOCK_BYTES) }),
  'a small frame that says it is huge': () =>
    frameOf(times(2, zerosBlock(MiB / 2)), { contentSize: BigInt(GiB) }),
  'a small frame that says it is beyond all memory': () =>
    frameOf(times(2, zerosBlock(MiB)), { contentSize: 2n ** 62n }),
  'many tiny blocks': () => frameOf(times(300_000, { bytes: Buffer.alloc(0), compressed: false })),
  'blocks that come to the right length before they end': () =>
    frameOf([zerosBlock(BLOCK_BYTES - 100), zerosBlock(GiB)]),
  gzip: () => Buffer.concat(times(32, gzipSync(Buffer.alloc(32 * MiB)))),
}

const bomb = (bombs[process.argv[2] ?? ''] ?? assertNever)()
function assertNever(): never {
  throw new Error(`no bomb is called ${process.argv[2]}`)
}

// what a first decoding loads and keeps is not the bomb's
const raw = Buffer.alloc(BLOCK_BYTES, 'warm')
for (const compression of ['lz4', 'gzip'] as const) {
  decodeBlock(encodeBlock(raw, compression), BLOCK_BYTES, '0'.repeat(64) as BlockId)
}
const before = peakMemory()
const decoded = decodeBlock(bomb, BLOCK_BYTES, '0'.repeat(64) as BlockId)
console.log(
  JSON.stringify({
    storedBytes: bomb.length,
    ok: decoded.ok,
    reason: decoded.ok ? '' : decoded.reason,
    growth: growthSince(before),
  }),
)

/** Parses a made-up config of so many MB, and tells how. For `measure`. */
import type { BlockId } from '../../src/backupstore/block.ts'
import { BLOCK_BYTES } from '../../src/backupstore/block.ts'
import { parseConfig } from '../../src/backupstore/config.ts'
import type { BackupName } from '../../src/backupstore/names.ts'
import { growthSince, peakMemory } from './measure.ts'

const CHUNK_BYTES = 256 * 1024
const ENTRY_BYTES = 103
const wantedBytes = Number(process.argv[2]) * 1_000_000
const entries = Math.floor(wantedBytes / ENTRY_BYTES)

const id = (n: number) => n.toString(16).padStart(8, '0').repeat(8) as BlockId

function* text(): Generator<string> {
  yield JSON.stringify({
    Name: 'large',
    Size: String(entries * BLOCK_BYTES),
    BlockCount: String(entries),
    CompleteTime: '2026-01-01T00:00:00Z',
  }).slice(0, -1)
  yield ',"Blocks":['
  for (let n = 0; n < entries; n++) {
    yield `${n > 0 ? ',' : ''}{"Offset":${n * BLOCK_BYTES},"BlockChecksum":"${id(n)}"}`
  }
  yield ']}'
}

let fed = 0
/** As a file or a connection gives them: each in a turn of the loop of its own. */
async function* chunks() {
  let parts: string[] = []
  let size = 0
  for (const part of text()) {
    parts.push(part)
    size += part.length
    if (size < CHUNK_BYTES) continue
    fed += size
    yield Buffer.from(parts.join(''))
    await new Promise((resolve) => setImmediate(resolve))
    parts = []
    size = 0
  }
  fed += size
  yield Buffer.from(parts.join(''))
}

const cpuMs = () => {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

// The gap is counted in the thread's own work, so that a busy machine does not lengthen it.
let ticks = 0
let last = cpuMs()
let longestGapMs = 0
const noteGap = () => {
  const now = cpuMs()
  longestGapMs = Math.max(longestGapMs, now - last)
  last = now
}
const timer = setInterval(() => {
  ticks += 1
  noteGap()
}, 5)

const before = peakMemory()
const { blocks, sizeBytes } = await parseConfig(chunks(), 'large' as BackupName, 'large')
noteGap()
clearInterval(timer)
console.log(
  JSON.stringify({
    fed,
    entries: blocks.length,
    sizeBytes,
    lastIsRight: blocks.idAt(entries - 1) === id(entries - 1),
    expectedEntries: entries,
    ticks,
    longestGapMs,
    growth: growthSince(before),
  }),
)

/** Verifies a backup of 1 TiB of which no block is there; prints what was found and its memory. */
import { createHash } from 'node:crypto'
import { openMemoryStore } from '../../src/storage/memory/memory-store.ts'
import { configKey } from '../../src/backupstore/layout.ts'
import { readableName } from '../../src/backupstore/names.ts'
import { silentObserver } from '../../src/backupstore/observer.ts'
import type { ReadStore } from '../../src/backupstore/object-store.ts'
import { parseBackupUrl } from '../../src/backupstore/target-url.ts'
import type { BlockCompute } from '../../src/backupstore/compute.ts'
import { verifyBackup } from '../../src/verify/verify.ts'
import { FakeClock } from './fake-clock.ts'
import { growthSince, peakMemory } from './measure.ts'

const BLOCK = 2 * 1024 * 1024
const COUNT = 512 * 1024
const ENTRIES_A_CHUNK = 1000

/** The config as it comes from a disk: never whole in memory. */
async function* config(): AsyncGenerator<Buffer> {
  const head = JSON.stringify({
    Name: 'disk',
    Size: String(COUNT * BLOCK),
    BlockCount: String(COUNT),
    CreatedTime: '2026-01-01T00:00:00Z',
    CompleteTime: '2026-01-01T00:00:01Z',
  })
  yield Buffer.from(`${head.slice(0, -1)},"Blocks":[`)
  for (let from = 0; from < COUNT; from += ENTRIES_A_CHUNK) {
    const entries: string[] = []
    for (let at = from; at < Math.min(from + ENTRIES_A_CHUNK, COUNT); at++) {
      const id = createHash('sha256').update(String(at)).digest('hex')
      entries.push(`{"Offset":${at * BLOCK},"BlockChecksum":"${id}"}`)
    }
    yield Buffer.from((from > 0 ? ',' : '') + entries.join(','))
  }
  yield Buffer.from(']}')
}

const clock = new FakeClock()
const empty = openMemoryStore({ clock })
const info = {
  key: configKey(readableName('disk')),
  sizeBytes: 50_000_000,
  modifiedAtMs: 0,
  version: '1',
}
const store: ReadStore = {
  ...empty,
  stat: () => Promise.resolve(info),
  open: () => Promise.resolve({ info, chunks: config() }),
}
const unused = () => Promise.reject(new Error('not of use here'))
const compute: BlockCompute = {
  slots: [{ index: 0, raw: Buffer.alloc(0), stored: Buffer.alloc(0) }],
  identify: unused,
  identifySealed: unused,
  isSealed: unused,
  encodeWithMd5: unused,
  isBusy: () => false,
  encode: unused,
  decode: unused,
  openFileHash: () => {
    throw new Error('not of use here')
  },
}

const before = peakMemory()
const { missing } = await verifyBackup(
  { backup: parseBackupUrl('vfs:///store?backingImage=disk'), level: 'exists', concurrentLimit: 1 },
  {
    store,
    clock,
    compute,
    lock: undefined,
    signal: new AbortController().signal,
    observer: silentObserver,
  },
)
console.log(JSON.stringify({ missing: missing.length, ...growthSince(before) }))

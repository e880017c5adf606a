/** Writes the config of a made-up backup: `node write-config.ts FOLDER BLOCKS`. */
import { randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import type { BlockId, Checksum } from '../src/backupstore/block.ts'
import { BLOCK_BYTES } from '../src/backupstore/block.ts'
import { BlockMap } from '../src/backupstore/block-map.ts'
import { serializeConfig } from '../src/backupstore/config.ts'
import { configKey } from '../src/backupstore/layout.ts'
import type { RunId } from '../src/backupstore/layout.ts'
import type { BackupName } from '../src/backupstore/names.ts'
import { openFsStore } from '../src/storage/fs/fs-store.ts'

const [folder = '', count = ''] = process.argv.slice(2)
const name = 'made-up' as BackupName
const blocks = new BlockMap()
for (let index = 0; index < Number(count); index++) {
  blocks.push(index, randomBytes(32).toString('hex') as BlockId)
}
mkdirSync(folder, { recursive: true })
const store = await openFsStore(folder, '00000000000000bb' as RunId)
const body = serializeConfig({
  name,
  sizeBytes: blocks.length * BLOCK_BYTES,
  checksum: '0'.repeat(128) as Checksum,
  labels: {},
  compression: 'lz4',
  createdAt: '2026-01-01T00:00:00Z',
  completedAt: '2026-01-01T00:01:00Z',
  secret: '',
  secretNamespace: '',
  unknown: {},
  blocks,
})
await store.put(configKey(name), body, { durable: true })
await store.close()

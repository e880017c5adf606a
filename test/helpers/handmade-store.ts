/** Stores written by hand: large ones in no time, without the code under test. */
import { createHash } from 'node:crypto'
import { mkdir, open, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { blockPath, configPath } from './store-state.ts'

/** Stores a block as it is, uncompressed, and returns its id. */
export async function writeRawBlock(store: string, bytes: Buffer): Promise<string> {
  const id = createHash('sha512').update(bytes).digest('hex').slice(0, 64)
  const path = blockPath(store, id)
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, bytes)
  return id
}

export interface HandmadeConfig {
  readonly name: string
  readonly sizeBytes: number
  readonly entryCount: number
  /** Called once for each entry, in order. */
  readonly entry: (at: number) => { readonly offset: number; readonly id: string }
  readonly checksum?: string
}

const ENTRIES_A_WRITE = 5000

/** Writes a config piece by piece. Its blocks stand in the middle, so that all of it must be read. */
export async function writeConfig(store: string, config: HandmadeConfig): Promise<void> {
  const path = configPath(store, config.name)
  await mkdir(dirname(path), { recursive: true })
  const first = JSON.stringify({
    Name: config.name,
    Size: String(config.sizeBytes),
    BlockCount: String(config.entryCount),
    Checksum: config.checksum ?? '',
    Labels: null,
    CreatedTime: '2026-01-01T00:00:00Z',
    CompleteTime: '2026-01-01T00:01:00Z',
  })
  const last = JSON.stringify({
    CompressionMethod: 'none',
    Secret: '',
    SecretNamespace: '',
    ProcessingBlocks: null,
  })
  const file = await open(path, 'wx')
  await file.write(`${first.slice(0, -1)},"Blocks":[`)
  for (let from = 0; from < config.entryCount; from += ENTRIES_A_WRITE) {
    const entries: string[] = []
    for (let at = from; at < Math.min(from + ENTRIES_A_WRITE, config.entryCount); at++) {
      const { offset, id } = config.entry(at)
      entries.push(`{"Offset":${offset},"BlockChecksum":"${id}"}`)
    }
    await file.write(`${from > 0 ? ',' : ''}${entries.join(',')}`)
  }
  await file.write(`],${last.slice(1)}`)
  await file.close()
}

const FOREIGN_LOCK = 'lock-00112233445566ff'

/** Puts the lock of somebody else into a store; it stays young for the next 140 s. */
export async function writeForeignLock(store: string, type: 1 | 2): Promise<string> {
  const path = `backupstore/volumes/22/fc/BACKINGIMAGE/locks/${FOREIGN_LOCK}.lck`
  const file = join(store, path)
  await mkdir(dirname(file), { recursive: true })
  await writeFile(file, JSON.stringify({ Name: FOREIGN_LOCK, Type: type, Acquired: true }))
  const then = new Date(Date.now() - 10_000)
  await utimes(file, then, then)
  return path
}

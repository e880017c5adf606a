/**
 * The config of a backup: the one object that makes blocks a backup. It is written once, last,
 * whole. Everything in it is untrusted when it is read.
 */
import { DroverError } from '../lib/errors.ts'
import { BLOCK_BYTES, MAX_IMAGE_BYTES, isBlockId } from './block.ts'
import { BlockMap } from './block-map.ts'
import type { BackupFacts } from './config-facts.ts'
import { KNOWN, decimal, expected, factsOf, plainObject } from './config-facts.ts'
import { JsonMembers } from './json-members.ts'
import type { BackupName } from './names.ts'
import type { Body } from './object-store.ts'

export interface Backup extends BackupFacts {
  readonly blocks: BlockMap
}

/** The facts with `blocks: undefined` where only the head of a config was read. */
export interface BackupHead extends BackupFacts {
  readonly blocks: undefined
}

const BLOCKS = 'Blocks'
/**
 * @param where what the config is called in an error
 * @throws DroverError CONFIG_INVALID, naming what was expected and what came
 */
export async function parseConfig(
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  name: BackupName,
  where: string,
): Promise<Backup> {
  const members = new Map<string, unknown>()
  const entries = new EntryReader()
  const json = new JsonMembers(BLOCKS, {
    member: (key, value) => void members.set(key, value),
    elements: (values) => entries.add(values),
  })
  return asInvalid(where, async () => {
    for await (const chunk of chunks) json.write(chunk)
    json.end()
    const facts = factsOf(members, name)
    return { ...facts, blocks: entries.finish(members, facts) }
  })
}

/**
 * The facts from the beginning of a config that is too long to be read for them alone. Longhorn
 * and we write `Blocks` last; a config with another order needs `parseConfig`.
 * @returns undefined when the facts are not all in `head`
 * @throws DroverError CONFIG_INVALID
 */
export async function parseConfigHead(
  head: Uint8Array,
  name: BackupName,
  where: string,
): Promise<BackupHead | undefined> {
  const members = new Map<string, unknown>()
  const json = new JsonMembers(BLOCKS, {
    member: (key, value) => void members.set(key, value),
    elements: () => undefined,
  })
  return asInvalid(where, async () => {
    json.write(head)
    const expected = KNOWN.filter((key) => key !== BLOCKS)
    if (!expected.every((key) => members.has(key))) return undefined
    return { ...factsOf(members, name), blocks: undefined }
  })
}

async function asInvalid<T>(where: string, parse: () => Promise<T>): Promise<T> {
  try {
    return await parse()
  } catch (error) {
    if (error instanceof DroverError) throw error
    const reason = error instanceof Error ? error.message : String(error)
    throw new DroverError('CONFIG_INVALID', `${where} is damaged: ${reason}`, {
      details: { config: where, reason },
      cause: error,
    })
  }
}

class EntryReader {
  readonly #blocks = new BlockMap()
  #last = -1

  add(values: readonly unknown[]): void {
    for (const value of values) {
      const { Offset: offset, BlockChecksum: id } = plainObject(value, 'each entry of Blocks')
      if (typeof offset !== 'number' || !Number.isSafeInteger(offset) || offset < 0) {
        throw expected('Offset', 'a number of bytes', offset)
      }
      if (offset % BLOCK_BYTES !== 0) throw expected('Offset', 'a multiple of 2097152', offset)
      if (offset >= MAX_IMAGE_BYTES) throw expected('Offset', 'an offset inside the image', offset)
      if (offset <= this.#last) {
        throw expected('Offset', `more than the one before it, ${this.#last}`, offset)
      }
      if (typeof id !== 'string' || !isBlockId(id)) {
        throw expected('BlockChecksum', '64 hex digits in lower case', id)
      }
      this.#last = offset
      this.#blocks.push(offset / BLOCK_BYTES, id)
    }
  }

  finish(members: ReadonlyMap<string, unknown>, facts: BackupFacts): BlockMap {
    const inPlace = members.get(BLOCKS) ?? null
    if (inPlace !== null) throw expected(BLOCKS, 'an array', inPlace)
    if (this.#last >= facts.sizeBytes) {
      throw expected('Offset', `an offset inside the image of ${facts.sizeBytes} bytes`, this.#last)
    }
    const count = members.get('BlockCount')
    if (facts.completedAt !== '' && decimal('BlockCount', count) !== this.#blocks.length) {
      throw expected('BlockCount', `"${this.#blocks.length}", the number of entries`, count)
    }
    return this.#blocks
  }
}

/** Entries in one piece of written text: about 100 KB. */
const ENTRIES_A_CHUNK = 1000

/** A config as it is stored; made in pieces, because a large one would not fit a string well. */
export function serializeConfig(backup: Backup): Body {
  const { blocks } = backup
  const head = JSON.stringify({
    Name: backup.name,
    Size: String(backup.sizeBytes),
    BlockCount: String(blocks.length),
    Checksum: backup.checksum ?? '',
    Labels: backup.labels,
    CompressionMethod: backup.compression,
    CreatedTime: backup.createdAt,
    CompleteTime: backup.completedAt,
    Secret: backup.secret,
    SecretNamespace: backup.secretNamespace,
    ...backup.unknown,
    ProcessingBlocks: { Blocks: {} },
  })
  const entry = (at: number) =>
    `{"Offset":${blocks.offsetAt(at)},"BlockChecksum":"${blocks.idAt(at)}"}`
  function* pieces(): Generator<string> {
    if (blocks.length === 0) {
      yield head // like Longhorn: no `Blocks` key when there are none
      return
    }
    yield `${head.slice(0, -1)},"${BLOCKS}":[`
    for (let from = 0; from < blocks.length; from += ENTRIES_A_CHUNK) {
      const parts: string[] = []
      for (let at = from; at < Math.min(from + ENTRIES_A_CHUNK, blocks.length); at++) {
        parts.push(entry(at))
      }
      yield (from > 0 ? ',' : '') + parts.join(',')
    }
    yield ']}'
  }
  let sizeBytes = 0
  for (const piece of pieces()) sizeBytes += Buffer.byteLength(piece)
  return {
    sizeBytes,
    *chunks() {
      for (const piece of pieces()) yield Buffer.from(piece)
    },
  }
}

/** RFC 3339, UTC, whole seconds: how a config tells time. */
export const configTime = (wallMs: number): string =>
  `${new Date(wallMs).toISOString().slice(0, 19)}Z`

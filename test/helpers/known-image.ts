/** Images whose blocks the test knows, so that it can judge a store without the code under test. */
import { createHash } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { BLOCK_BYTES } from '../../src/backupstore/block.ts'
import { BLOCK, makeImage, noise, text } from './images.ts'

export interface KnownImage {
  readonly file: string
  readonly sizeBytes: number
  readonly sha512: string
  /** The blocks that have to be stored, in order of the file. */
  readonly entries: ReadonlyArray<{ readonly offset: number; readonly id: string }>
  /** Bytes of each of them. */
  readonly lengths: ReadonlyMap<string, number>
}

/** Which bytes a block has: noise, text, or zeros; equal contents make equal blocks. */
export type BlockContent =
  { readonly kind: 'noise' | 'text'; readonly seed: number } | { readonly kind: 'zeros' }

/** @param tailBytes length of the last block */
export async function makeKnownImage(
  file: string,
  contents: readonly BlockContent[],
  tailBytes = BLOCK,
): Promise<KnownImage> {
  const sizeBytes = (contents.length - 1) * BLOCK + tailBytes
  const whole = createHash('sha512')
  const pieces: Array<[number, Buffer]> = []
  const entries: Array<{ offset: number; id: string }> = []
  const lengths = new Map<string, number>()
  for (const [index, content] of contents.entries()) {
    const length = index === contents.length - 1 ? tailBytes : BLOCK_BYTES
    const bytes = bytesOf(content, length)
    whole.update(bytes)
    if (content.kind === 'zeros') continue
    const offset = index * BLOCK
    const id = createHash('sha512').update(bytes).digest('hex').slice(0, 64)
    pieces.push([offset, bytes])
    entries.push({ offset, id })
    lengths.set(id, length)
    await setImmediate() // lets timers run on time
  }
  await makeImage(file, sizeBytes, pieces)
  return { file, sizeBytes, sha512: whole.digest('hex'), entries, lengths }
}

function bytesOf(content: BlockContent, length: number): Buffer {
  switch (content.kind) {
    case 'noise':
      return noise(content.seed, length)
    case 'text':
      return text(content.seed, length)
    case 'zeros':
      return Buffer.alloc(length)
  }
}

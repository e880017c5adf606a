/**
 * One processor for everything: the threads take turns, blocks are put off and read again, and
 * whatever waits for something that can no longer come would show as a test that never ends.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { after, before, describe, it } from 'node:test'
import { output, runCommand, unlessThere } from '../helpers/command.ts'
import { DROVER } from '../helpers/drover.ts'
import { BLOCK } from '../helpers/images.ts'
import type { BlockContent, KnownImage } from '../helpers/known-image.ts'
import { makeKnownImage } from '../helpers/known-image.ts'
import { altered, frameOfBlock } from '../helpers/memory-backup.ts'
import { assertConfigOf, assertHoldsExactly } from '../helpers/store-state.ts'
import type { Workspace } from '../helpers/workspace.ts'
import { blockPath, openWorkspace } from '../helpers/workspace.ts'

/** 64 MiB but for a short tail: data of both kinds, blocks twice, zeros in between and after it. */
const contents = Array.from({ length: 32 }, (_, at): BlockContent => {
  if (at % 11 === 5 || (at > 24 && at < 31)) return { kind: 'zeros' }
  return { kind: at % 3 === 0 ? 'text' : 'noise', seed: at === 20 ? 8 : at + 1 }
})
const TAIL = 12_345

/** The first processor that this process may use. */
const processor =
  /^Cpus_allowed_list:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'
const onOne = (args: readonly string[]) => ['-c', processor, DROVER, ...args, '--json', '--quiet']

async function run(...args: string[]): Promise<any> {
  return JSON.parse((await output('taskset', onOne(args))).toString())
}

let kept: Workspace
let image: KnownImage
const leave: Array<() => unknown> = []
before(async () => {
  kept = await openWorkspace({ after: (fn) => void leave.push(fn as () => unknown) })
  image = await makeKnownImage(kept.path('disk.raw'), contents, TAIL)
})
after(async () => {
  for (const step of leave) await step()
})

/** Side by side, because they mostly wait for locks. */
const options = { skip: unlessThere('taskset'), timeout: 240_000, concurrency: 3 }

describe('on one processor', options, () => {
  for (const concurrency of ['1', '2', '8']) {
    for (const compression of ['lz4', 'gzip']) {
      it(`a backup is right, is verified and restored, ${concurrency} blocks at once (${compression})`, async (t) => {
        const { store, target, url, path } = await openWorkspace(t)
        const { file, sha512, sizeBytes, entries } = image
        const how = ['--concurrency', concurrency, '--compression', compression]
        const backup = await run('backup', file, '--target', target, '--name', 'disk', ...how)
        assert.deepEqual([backup.outcome, backup.checksum], ['created', sha512])
        assert.deepEqual(backup.blocks, {
          total: contents.length,
          zero: contents.length - entries.length,
          reused: 1,
          new: entries.length - 1,
        })
        await assertConfigOf(store, 'disk', image)
        await assertHoldsExactly(store, new Map([['disk', image]]))

        const again = await run('backup', file, '--target', target, '--name', 'disk', ...how)
        assert.deepEqual([again.outcome, again.checksum], ['unchanged', sha512])

        const limit = ['--concurrent-limit', concurrency]
        for (const [level, checksum] of Object.entries({ full: sha512, blocks: null })) {
          const verified = await run('verify', url('disk'), '--level', level, ...limit)
          assert.deepEqual([verified.ok, verified.checksum], [true, checksum])

          const out = path('out.raw')
          const restored = await run('restore', url('disk'), out, '--verify', level, ...limit)
          assert.deepEqual([restored.verified, restored.checksum], [level, checksum])
          assert.equal(restored.sizeBytes, sizeBytes)
          assert.ok((await readFile(out)).equals(await readFile(file)))
          await rm(out)
        }
      })
    }

    it(`bad blocks are named, ${concurrency} blocks at once`, async (t) => {
      const { store, target, url, path } = await openWorkspace(t)
      const { file, entries } = image
      await run('backup', file, '--target', target, '--name', 'disk', '--concurrency', concurrency)
      const bytes = await readFile(file)
      const bad = [entries[2], entries.at(-2)].map((entry) => {
        assert.ok(entry)
        return entry
      })
      for (const { offset, id } of bad) {
        const stored = frameOfBlock(altered(bytes.subarray(offset, offset + BLOCK)))
        await writeFile(blockPath(store, id), stored)
      }
      const limit = ['--concurrent-limit', concurrency]
      const verify = await runCommand('taskset', onOne(['verify', url('disk'), ...limit]))
      assert.equal(verify.code, 3, verify.stderr)
      const { corrupt, missing } = JSON.parse(verify.stdout.toString())
      assert.deepEqual(missing, [])
      assert.deepEqual(
        corrupt.map(({ id, offsets }: { id: string; offsets: number[] }) => [id, offsets]),
        bad.map(({ id, offset }) => [id, [offset]]),
      )
      const args = ['restore', url('disk'), path('out.raw'), ...limit]
      const restore = await runCommand('taskset', onOne(args))
      assert.equal(restore.code, 3, restore.stderr)
      const { error } = JSON.parse(restore.stdout.toString())
      assert.equal(error.code, 'BLOCK_CORRUPT')
      assert.ok(
        bad.some(({ offset, id }) => id === error.details.id && offset === error.details.offset),
      )
      await assert.rejects(readFile(path('out.raw')))
    })
  }
})

/**
 * SIGINT and SIGTERM in each phase of each verb: the run ends soon with code 130 and INTERRUPTED,
 * and leaves neither a lock nor anything it was making.
 */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { readFile, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import type { Outcome, Running, StartOptions } from '../helpers/drover.ts'
import { droverJson, startDrover } from '../helpers/drover.ts'
import { writeConfig, writeForeignLock, writeRawBlock } from '../helpers/handmade-store.ts'
import { BLOCK, makeImage, noise } from '../helpers/images.ts'
import type { Step } from '../helpers/preloads.ts'
import { stoppingAt } from '../helpers/preloads.ts'
import { readLockFile, stateOf } from '../helpers/store-state.ts'
import { filesBelow } from '../helpers/stores.ts'
import { tempFolder } from '../helpers/temp.ts'
import { waitUntil } from '../helpers/wait-until.ts'

/** Far more than an interrupted run takes to end, and far less than its work would. */
const SOON_MS = 10_000
const GiB = 1024 ** 3
/** Hashing its zeros alone takes a minute. */
const ENDLESS_BYTES = 64 * GiB
const SIGNALS = ['SIGINT', 'SIGTERM'] as const

for (const signal of SIGNALS) {
  describe(signal, { concurrency: 4 }, () => {
    test('while a backup reads leaves no more than a block that is whole', async (t) => {
      const place = await makePlace(t)
      await makeImage(place.image, ENDLESS_BYTES, [[0, noise(1, BLOCK)]])
      const run = start(t, backupArgs(place))
      await untilLock(place.store, true)
      await run.interrupt(signal)
      const { blocks, configs, locks, staged, strays } = await stateOf(place.store)
      assert.deepEqual({ configs, locks, staged, strays }, NOTHING)
      assert.ok(blocks.size <= 1)
      assert.deepEqual(
        (await foldersOf(place.store, 'backupstore')).filter((name) => name !== 'backing-images'),
        [],
      )
      assert.deepEqual(
        await foldersOf(place.store, 'backupstore/backing-images/backing-images'),
        [],
      )
    })

    test('while a backup settles leaves nothing at all', async (t) => {
      const place = await makePlace(t)
      await makeImage(place.image, 3 * BLOCK, [[0, noise(2, 3 * BLOCK)]])
      const run = start(t, backupArgs(place))
      await run.untilSaid('waiting for the lock')
      assert.equal((await stateOf(place.store)).staged.length, 3)
      await run.interrupt(signal)
      assert.deepEqual(await filesBelow(place.store), [])
      assert.deepEqual(await foldersOf(place.store, 'backupstore'), [])
    })

    test('while a backup waits for a deletion leaves the lock of that alone', async (t) => {
      const place = await makePlace(t)
      await makeImage(place.image, 2 * BLOCK, [[0, noise(3, 2 * BLOCK)]])
      const foreign = await writeForeignLock(place.store, 2)
      const run = start(t, backupArgs(place))
      await run.untilSaid('waiting for lock-')
      await run.interrupt(signal)
      assert.deepEqual(await filesBelow(place.store), [foreign])
    })

    test('while gc waits for a backup leaves the lock of that alone', async (t) => {
      const place = await makePlace(t)
      const foreign = await writeForeignLock(place.store, 1)
      const run = start(t, ['gc', '--target', place.target, '--json'])
      await run.untilSaid('waiting for lock-')
      await run.interrupt(signal)
      assert.deepEqual(await filesBelow(place.store), [foreign])
    })

    test('while a delete settles deletes nothing', async (t) => {
      const place = await makePlace(t)
      await makeEndlessBackup(place.store)
      const before = await filesBelow(place.store)
      const run = start(t, ['delete', place.url, '--min-age', '0s', '--json'])
      await untilLock(place.store, false)
      await run.interrupt(signal)
      assert.deepEqual(await filesBelow(place.store), before)
    })

    test('while a restore writes leaves no file, or the one that was there', async (t) => {
      const place = await makePlace(t)
      await makeEndlessBackup(place.store)
      const before = await filesBelow(place.store)
      await writeFile(join(place.out, 'old.img'), 'precious')
      for (const args of [['new.img'], ['old.img', '--force']]) {
        const [name = '', ...force] = args
        const run = start(t, ['restore', place.url, join(place.out, name), ...force, '--json'])
        await waitUntil(
          async () => (await readdir(place.out)).some((file) => file.endsWith('.partial')),
          'a partial file',
        )
        await untilLock(place.store, false)
        await run.interrupt(signal)
        assert.deepEqual(await readdir(place.out), ['old.img'])
        assert.equal(await readFile(join(place.out, 'old.img'), 'utf8'), 'precious')
        assert.deepEqual(await filesBelow(place.store), before)
      }
    })

    test('while verify reads leaves the store as it was', async (t) => {
      const place = await makePlace(t)
      await makeEndlessBackup(place.store)
      const before = await filesBelow(place.store)
      const run = start(t, ['verify', place.url, '--json'])
      await run.untilSaid('verifying')
      await untilLock(place.store, false)
      await run.interrupt(signal)
      assert.deepEqual(await filesBelow(place.store), before)
    })

    for (const compression of ['lz4', 'none']) {
      test(`while blocks are published (${compression}) keeps those, and the next run reuses them`, async (t) => {
        const place = await makePlace(t)
        const total = 16
        await makeImage(place.image, total * BLOCK, [[0, noise(4, total * BLOCK)]])
        const args = [...backupArgs(place), '--compression', compression]
        const step: Step = { call: 'link', path: '\\.blk$', nth: 3, when: 'after', action: signal }
        const run = start(t, args, { env: stoppingAt(step) })
        assertInterrupted(await run.end())
        const { blocks, configs, locks, staged, strays } = await stateOf(place.store)
        assert.deepEqual({ configs, locks, staged, strays }, NOTHING)
        assert.ok(blocks.size >= 3 && blocks.size < total, `${blocks.size} blocks`)
        const next = await droverJson(...args.filter((arg) => arg !== '--json'))
        assert.deepEqual(next.blocks, {
          total,
          zero: 0,
          reused: blocks.size,
          new: total - blocks.size,
        })
      })
    }

    for (const when of ['before', 'during', 'after'] as const) {
      test(`${when} the config gets its name either ends the run or comes too late`, async (t) => {
        const place = await makePlace(t)
        await makeImage(place.image, 2 * BLOCK, [[0, noise(5, 2 * BLOCK)]])
        const step: Step = { call: 'link', path: '\\.cfg$', nth: 1, when, action: signal }
        const outcome = await start(t, backupArgs(place), { env: stoppingAt(step) }).end()
        const { configs, locks, staged, strays } = await stateOf(place.store)
        assert.deepEqual({ configs: [], locks, staged, strays }, NOTHING)
        if (configs.length === 0) return assertInterrupted(outcome)
        // it is a backup then, and whoever asked for it is told so
        assert.equal(outcome.code, 0, outcome.stderr)
        assert.equal(outcome.json().outcome, 'created')
        assert.equal((await droverJson('verify', place.url)).ok, true)
      })
    }

    test('tells a person in one line', async (t) => {
      const place = await makePlace(t)
      await makeImage(place.image, BLOCK, [[0, noise(6, BLOCK)]])
      const args = backupArgs(place).filter((arg) => arg !== '--json')
      const run = start(t, [...args, '--quiet'])
      await untilLock(place.store, false)
      run.child.kill(signal)
      const { code, stdout, stderr } = await run.end()
      assert.deepEqual({ code, stdout }, { code: 130, stdout: '' })
      assert.match(stderr, /^drover: INTERRUPTED: [^\n]+\n$/)
    })

    test('a second time ends a run at once that cannot tidy up', async (t) => {
      const place = await makePlace(t)
      await makeImage(place.image, BLOCK, [[0, noise(7, BLOCK)]])
      const marker = join(place.out, 'hangs')
      // as on a share whose server went away: the removal of the lock never returns
      const step: Step = {
        call: 'unlink',
        path: '\\.lck$',
        nth: 1,
        when: 'before',
        action: 'hang',
        marker,
      }
      const run = start(t, backupArgs(place), { env: stoppingAt(step) })
      await run.untilSaid('waiting for the lock')
      run.child.kill(signal)
      await waitUntil(() => existsSync(marker), 'the removal of the lock')
      assert.equal(run.child.exitCode, null)
      // what comes close behind the first is taken for the same
      const again = setInterval(
        () => run.child.kill(signal === 'SIGINT' ? 'SIGTERM' : 'SIGINT'),
        100,
      )
      t.after(() => clearInterval(again))
      const { code, stderr } = await run.end()
      assert.equal(code, 130)
      assert.doesNotMatch(stderr, STACK)
    })

    test('twice in one moment is one signal: the run tidies up', async (t) => {
      const place = await makePlace(t)
      await makeImage(place.image, ENDLESS_BYTES, [[0, noise(8, BLOCK)]])
      const run = start(t, backupArgs(place))
      await untilLock(place.store, true)
      run.child.kill(signal)
      await run.interrupt(signal === 'SIGINT' ? 'SIGTERM' : 'SIGINT')
      const { configs, locks, staged, strays } = await stateOf(place.store)
      assert.deepEqual({ configs, locks, staged, strays }, NOTHING)
    })
  })
}

const NOTHING = { configs: [], locks: [], staged: [], strays: [] }
const STACK = /^\s+at .*[:(]/m

interface Place {
  readonly store: string
  readonly target: string
  /** Of the backup `disk`. */
  readonly url: string
  readonly image: string
  /** An empty folder. */
  readonly out: string
}

async function makePlace(t: TestContext): Promise<Place> {
  const store = await tempFolder(t)
  const images = await tempFolder(t)
  const out = await tempFolder(t)
  const target = `vfs://${store}`
  return {
    store,
    target,
    url: `${target}?backingImage=disk`,
    image: join(images, 'disk.img'),
    out,
  }
}

const backupArgs = ({ image, target }: Place) => ['backup', image, '--target', target, '--json']

/** A backup whose restore takes longer than any test. */
async function makeEndlessBackup(store: string): Promise<void> {
  const id = await writeRawBlock(store, noise(8, BLOCK))
  await writeConfig(store, {
    name: 'disk',
    sizeBytes: ENDLESS_BYTES,
    entryCount: 1,
    entry: () => ({ offset: 0, id }),
  })
}

interface Run extends Running {
  /** Settles when stderr tells it. */
  untilSaid(words: string): Promise<void>
  /** Settles when the run is over; fails when that is not soon. */
  end(): Promise<Outcome>
  /** Sends a signal; fails unless the run ends soon, and as it should. */
  interrupt(signal: NodeJS.Signals): Promise<void>
}

function start(t: TestContext, args: readonly string[], options: StartOptions = {}): Run {
  const { child, done } = startDrover(args, options)
  t.after(() => void child.kill('SIGKILL'))
  let said = ''
  child.stderr?.on('data', (text: string) => (said += text))
  let over = false
  done.then(
    () => (over = true),
    () => (over = true),
  )
  const end = async () => {
    await waitUntil(() => over, `the end of drover ${args.join(' ')}`, SOON_MS)
    return done
  }
  return {
    child,
    done,
    end,
    untilSaid: (words) => waitUntil(() => said.includes(words), `"${words}" in stderr`),
    async interrupt(signal) {
      assert.equal(child.exitCode, null, said)
      child.kill(signal)
      assertInterrupted(await end())
    },
  }
}

function assertInterrupted(outcome: Outcome): void {
  assert.deepEqual([outcome.code, outcome.signal], [130, null], outcome.stderr)
  const { error, ...rest } = outcome.json()
  assert.deepEqual(rest, {})
  assert.equal(error.code, 'INTERRUPTED')
  assert.match(outcome.stderr, /^drover: INTERRUPTED: /m)
  assert.doesNotMatch(outcome.stderr, STACK)
}

/** Waits for the lock file of the only run in a store. */
const untilLock = (store: string, acquired: boolean): Promise<void> =>
  waitUntil(async () => {
    const { locks } = await stateOf(store).catch(() => ({ locks: [] }))
    return locks.some((path) => readLockFile(store, path)?.Acquired === acquired)
  }, `a lock file with Acquired ${acquired}`)

const foldersOf = (store: string, path: string): Promise<string[]> =>
  readdir(join(store, path)).catch(() => [])

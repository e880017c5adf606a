/**
 * Backups and restores in bad weather: each ends finished and proven, or with a clear error within
 * its deadline, and leaves nothing behind that is not what it says.
 *
 * Each run has a seed of its own. `DROVER_TEST_SEED=<seed>` makes it the first one.
 */
import assert from 'node:assert/strict'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { TestContext } from 'node:test'
import { after, before, describe, test } from 'node:test'
import { setTimeout as later } from 'node:timers/promises'
import type { ErrorCode } from '../../src/lib/errors.ts'
import type { Outcome } from '../helpers/drover.ts'
import { sha512 } from '../helpers/images.ts'
import type { BlockContent, KnownImage } from '../helpers/known-image.ts'
import { makeKnownImage } from '../helpers/known-image.ts'
import { seedOfThisRun, seededRandom } from '../helpers/random.ts'
import type { BucketSpace } from '../helpers/s3/bucket-space.ts'
import { lockKeys, openSpace, strays } from '../helpers/s3/bucket-space.ts'
import { cephForAll, noCeph } from '../helpers/s3/ceph.ts'
import type { Weather } from '../helpers/s3/faults.ts'
import { weather } from '../helpers/s3/faults.ts'
import { tempFolder } from '../helpers/temp.ts'
import { waitUntil } from '../helpers/wait-until.ts'

const RUNS = 64
const FIRST_SEED = seedOfThisRun()

/** Short, so that silence is noticed soon. */
const CALL_TIMEOUT = { DROVER_CALL_TIMEOUT: '6s' }

/** Far more than any run takes: one that hangs fails the test. */
const DEADLINE_MS = 90_000

/** What a run may end with; anything else is a fault of ours. */
const CLEAR: readonly ErrorCode[] = [
  'TARGET_UNREACHABLE',
  'TARGET_THROTTLED',
  'LOCK_LOST',
  'STORE_CHANGED',
  'CONFIG_INVALID',
  'BLOCK_CORRUPT',
  'BLOCK_MISSING',
  'IMAGE_CORRUPT',
]

let ceph: ReturnType<typeof cephForAll>
const images: KnownImage[] = []
/** A store with a backup of the first image, to be restored from. */
let base: string
const cleanUp: Array<() => unknown> = []

async function prepare(): Promise<void> {
  const folder = await tempFolder({ after: (fn) => void cleanUp.push(fn as () => unknown) })
  const noise = (seed: number): BlockContent => ({ kind: 'noise', seed })
  const words = (seed: number): BlockContent => ({ kind: 'text', seed })
  const zeros: BlockContent = { kind: 'zeros' }
  const contents = [
    [noise(1), words(2), words(3), zeros, noise(4), noise(1), words(5), words(6)],
    [words(2), noise(7), zeros, words(8), words(3), noise(4), words(9)],
    [words(10), words(11), noise(12), words(10), noise(13), words(2)],
  ]
  for (const [n, each] of contents.entries()) {
    images.push(await makeKnownImage(join(folder, `image-${n}.raw`), each, 1_000_000 + n))
  }
  const space = await openSpace({ after: (fn) => void cleanUp.push(fn as () => unknown) }, ceph())
  await space.run('backup', images[0]?.file ?? '', '--target', space.target, '--name', 'base')
  base = join(folder, 'base')
  await ceph().admin.download(space.bucket, base, space.prefix)
}

interface Bench extends BucketSpace {
  /** Runs the program past the proxy. */
  readonly direct: (...args: string[]) => Promise<Outcome>
  /** For its temporary files. */
  readonly scratch: string
}

async function openBench(t: TestContext, withBase: boolean): Promise<Bench> {
  const folder = await tempFolder(t)
  const scratch = join(folder, 'scratch')
  await mkdir(scratch)
  const space = await openSpace(t, ceph(), { env: { ...CALL_TIMEOUT, TMPDIR: scratch } })
  t.after(() => ceph().admin.empty(space.bucket))
  if (withBase) await ceph().admin.upload(base, space.bucket, space.prefix)
  const { url } = ceph()
  return {
    ...space,
    scratch,
    direct: (...args) => space.start(args, { AWS_ENDPOINTS: url }).done,
  }
}

type Verb = 'backup' | 'restore'

interface Work {
  readonly verb: Verb
  readonly name: string
  readonly image: KnownImage
  /** Where a restore writes to. */
  readonly file: string
  readonly args: readonly string[]
}

async function workOf(bench: Bench, verb: Verb, image: KnownImage): Promise<Work> {
  await mkdir(bench.path('restored'))
  const file = bench.path('restored/disk.raw')
  const name = verb === 'backup' ? 'fresh' : 'base'
  const args =
    verb === 'backup'
      ? ['backup', image.file, '--target', bench.target, '--name', name]
      : ['restore', bench.url(name), file]
  return { verb, name, image, file, args }
}

/** Starts the work; fails the test when it hangs. */
async function finish(t: TestContext, bench: Bench, { args }: Work): Promise<Outcome> {
  const { child, done } = bench.start(args)
  t.after(() => child.kill('SIGKILL'))
  const over = new AbortController()
  const hung = later(DEADLINE_MS, undefined, { signal: over.signal, ref: false }).then(
    () => assert.fail(`drover ${args.join(' ')} hangs`),
    () => done,
  )
  const outcome = await Promise.race([done, hung])
  over.abort()
  return outcome
}

/** Fails unless the work ended well, or clearly, and all that is left is sound. */
async function assertSound(bench: Bench, work: Work, outcome: Outcome): Promise<void> {
  const told = `${work.args[0]} ended with ${outcome.code}: ${outcome.stderr}`
  const document = outcome.json()
  if (outcome.code !== 0) {
    assert.ok(CLEAR.includes(document.error?.code), told)
    assert.ok(outcome.stderr.includes(`drover: ${document.error.code}: `), told)
  }
  await assertStore(bench, work, outcome, told)
  await assertFiles(bench, work, outcome.code === 0, told)
  await waitUntil(() => bench.proxy.sockets().open === 0, 'all sockets are closed', 5000)
}

async function assertStore(
  bench: Bench,
  work: Work,
  outcome: Outcome,
  told: string,
): Promise<void> {
  await assertOnlyKnownLock(bench, outcome, told)
  const listed = await bench.direct('list', '--target', bench.target)
  assert.equal(listed.code, 0, listed.stderr)
  const { backups, incomplete, unreadable } = listed.json()
  assert.deepEqual([incomplete, unreadable], [[], []], told)
  const names: string[] = backups.map(({ name }: { name: string }) => name)
  if (outcome.code === 0) assert.ok(names.includes(work.name), told)
  await Promise.all(names.map((name) => assertProven(bench, work, name, told)))
}

/**
 * A lock is left only where the weather let no removal pass to the very end; this was told, and the
 * lock is one that keeps no backup out.
 */
async function assertOnlyKnownLock(bench: Bench, outcome: Outcome, told: string): Promise<void> {
  const left = strays(await bench.keys())
  const wasTold = /lock file could not be removed/.test(outcome.stderr)
  if (!wasTold) assert.deepEqual(left, [], `left in the store; ${told}`)
  assert.deepEqual(left, lockKeys(left).slice(0, 1), `left in the store; ${told}`)
  for (const key of left) {
    const lock = JSON.parse(String(await ceph().admin.get(bench.bucket, bench.prefix + key)))
    assert.deepEqual([lock.Name, lock.Type], [basename(key, '.lck'), 1])
    const tries = bench.proxy.seen.filter(
      (seen) => seen.operation === 'DeleteObject' && seen.key.endsWith(key),
    )
    assert.ok(tries.length > 1, `given up after ${tries.length}; ${told}`)
    assert.ok(
      tries.every(({ status }) => status !== 204),
      told,
    )
  }
}

/** Fails unless a backup that is listed is the image it says. */
async function assertProven(bench: Bench, work: Work, name: string, told: string): Promise<void> {
  const verified = await bench.direct('verify', bench.url(name), '--level', 'full', '--no-lock')
  assert.equal(verified.code, 0, `${name} is listed, and not whole: ${verified.stderr}; ${told}`)
  const { ok, checksum } = verified.json()
  const image = name === 'base' ? images[0] : work.image
  assert.deepEqual([ok, checksum], [true, image?.sha512], told)
  if (name === 'base') return
  const file = bench.path(`${name}.proof`)
  const restored = await bench.direct('restore', bench.url(name), file, '--no-lock')
  assert.equal(restored.code, 0, `${name} is listed, and no restore: ${restored.stderr}; ${told}`)
  assert.equal(await sha512(file), image?.sha512, `${name} is another image; ${told}`)
  await rm(file)
}

async function assertFiles(bench: Bench, work: Work, done: boolean, told: string): Promise<void> {
  assert.deepEqual(await readdir(bench.scratch), [], `temporary files; ${told}`)
  const there = await readdir(dirname(work.file))
  const expected = done && work.verb === 'restore' ? [basename(work.file)] : []
  assert.deepEqual(there, expected, `files beside the restored one; ${told}`)
  if (expected.length > 0) assert.equal(await sha512(work.file), work.image.sha512, told)
}

const skies: Readonly<Record<string, Weather['kinds']>> = {
  broken: ['reset', 'cut'],
  busy: ['busy', 'error'],
  slow: ['delay', 'stall'],
  lying: ['flip'],
  forgetful: ['after', 'reset'],
  all: ['reset', 'cut', 'stall', 'flip', 'busy', 'error', 'delay', 'after'],
}

describe('a target in trouble', { skip: noCeph }, () => {
  ceph = cephForAll()
  before(prepare)
  after(async () => {
    for (const step of cleanUp) await step()
  })

  describe('in bad weather', { concurrency: 4 }, () => {
    for (let run = 0; run < RUNS; run++) {
      const seed = (FIRST_SEED + run) >>> 0
      const random = seededRandom(seed)
      const sky = random.pick(Object.keys(skies))
      const verb = random.pick(['backup', 'backup', 'restore'] as const)
      const conditions: Weather = {
        kinds: skies[sky] ?? [],
        percent: random.pick([5, 15, 30, 60]),
        // a stall takes seconds each
        most: sky === 'slow' ? random.int(1, 6) : random.int(1, 40),
      }
      const which = random.int(0, 2)
      const withBase = random.chance(0.5)
      const what = `${verb} under a ${sky} sky, ${conditions.percent} %, seed ${seed}`

      test(`a ${what} ends proven or with a clear error`, async (t) => {
        const image = images[verb === 'restore' ? 0 : which]
        assert.ok(image)
        const bench = await openBench(t, verb === 'restore' || withBase)
        const work = await workOf(bench, verb, image)
        bench.proxy.setRule(weather(seed, conditions))
        const outcome = await finish(t, bench, work)
        const met = bench.proxy.seen.flatMap(({ fault }) => fault ?? [])
        const told = outcome.code === 0 ? 'done' : outcome.json().error?.code
        t.diagnostic(`${told}, ${met.length} faults in ${bench.proxy.seen.length} requests`)
        await assertSound(bench, work, outcome)
      })
    }
  })

  describe('when the server dies', () => {
    const blocksSeen = ({ proxy }: BucketSpace) =>
      proxy.seen.filter(({ key, status }) => key.endsWith('.blk') && status === 200).length

    /** Two of each verb at once, and something that happens to the server in the middle of them. */
    async function storm(t: TestContext, strike: () => Promise<void>): Promise<void> {
      const verbs: readonly Verb[] = ['backup', 'restore', 'backup', 'restore']
      const all = await Promise.all(
        verbs.map(async (verb, n) => {
          const bench = await openBench(t, verb === 'restore')
          const image = images[verb === 'restore' ? 0 : n % 3]
          assert.ok(image)
          return { bench, work: await workOf(bench, verb, image) }
        }),
      )
      // what each does first is over before it strikes
      for (const { bench } of all) {
        bench.proxy.setRule(({ key }) =>
          key.endsWith('.blk') ? { kind: 'delay', direction: 'response', ms: 100 } : undefined,
        )
      }
      const running = all.map(({ bench, work }) => finish(t, bench, work))
      await waitUntil(() => all.some(({ bench }) => blocksSeen(bench) > 0), 'blocks are under way')
      await strike()
      const outcomes = await Promise.all(running)
      for (const [n, { bench, work }] of all.entries()) {
        const outcome = outcomes[n]
        assert.ok(outcome)
        t.diagnostic(`${work.verb}: ${outcome.code === 0 ? 'done' : outcome.json().error.code}`)
        await assertSound(bench, work, outcome)
      }
    }

    for (const awayMs of [0, 300, 1500]) {
      test(`and is started again after ${awayMs} ms, all ends well or clearly`, async (t) => {
        await storm(t, async () => {
          await ceph().killGateway()
          await later(awayMs)
          await ceph().startGateway()
        })
      })
    }

    test('for a moment only, and goes on, all ends well or clearly', async (t) => {
      await storm(t, async () => {
        ceph().pause()
        await later(1500)
        ceph().resume()
      })
    })

    test('for good, a run says so in time, and its lock can be told for dead later', async (t) => {
      const bench = await openBench(t, false)
      const [image] = images
      assert.ok(image)
      const work = await workOf(bench, 'backup', image)
      const running = finish(t, bench, work)
      await waitUntil(() => blocksSeen(bench) > 0, 'blocks are under way')
      await ceph().killGateway()
      const outcome = await running
      await ceph().startGateway()
      assert.equal(outcome.json().error?.code, 'TARGET_UNREACHABLE', outcome.stderr)
      assert.deepEqual(await readdir(bench.scratch), [])
      const left = strays(await bench.keys())
      assert.ok(left.length <= 1, 'its lock at most')
      // a lock of its own kind keeps no backup out, and expires
      const again = await bench.direct(...work.args)
      assert.equal(again.code, 0, again.stderr)
      const file = bench.path('proof.raw')
      const restored = await bench.direct('restore', bench.url(work.name), file)
      assert.equal(restored.json().checksum, image.sha512)
    })
  })
})

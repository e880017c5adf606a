/**
 * One store on which run after run is killed. After each death the store is judged from outside:
 * what it lists, what lies in it, and what the next run makes of it.
 */
import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { LOCK_EXPIRY_MS } from '../../src/backupstore/lock-file.ts'
import type { Operation } from './crash-operations.ts'
import {
  argsOf,
  commitStep,
  lockTypeOf,
  partialsBeside,
  phaseOf,
  pickMoment,
  stepOf,
} from './crash-operations.ts'
import type { Outcome } from './drover.ts'
import { drover, droverJson } from './drover.ts'
import { sha512 } from './images.ts'
import type { Moment } from './kill.ts'
import { describeMoment, runAndKill } from './kill.ts'
import type { BlockContent, KnownImage } from './known-image.ts'
import { makeKnownImage } from './known-image.ts'
import type { Random } from './random.ts'
import type { LockContent } from './store-state.ts'
import {
  assertBlocksProven,
  assertConfigOf,
  assertHoldsExactly,
  blockPath,
  letDeadRunsExpire,
  readLockFile,
  stateOf,
} from './store-state.ts'

export interface CrashLaneOptions {
  /** An empty folder. */
  readonly folder: string
  readonly random: Random
  /** Sets the contents of this lane's images apart from those of others. */
  readonly number: number
  readonly compression: 'lz4' | 'gzip' | 'none'
  /** Told each kill, as in `backup: publishing`. */
  readonly onKill: (phase: string) => void
}

const NAMES = ['alpha', 'beta', 'gamma']
const PLANS = ['new', 'replace', 'same', 'heal', 'restore', 'restore over', 'delete', 'gc'] as const
type Plan = (typeof PLANS)[number]
/** New and other content is where most is written, so it dies most often. */
const WEIGHTED: readonly Plan[] = [...PLANS, 'new', 'new', 'replace', 'replace', 'delete']

const BLOCKS_AN_IMAGE = 10
const TAIL_BYTES = 1_463_296
const ROUND_LIMIT = 40

export class CrashLane {
  readonly #options: CrashLaneOptions
  readonly #store: string
  readonly #out: string
  readonly #target: string
  /** What the store holds, as far as we know. */
  readonly #names = new Map<string, KnownImage>()
  /** What lies in the folder restored to. */
  readonly #files = new Map<string, KnownImage>()
  /** Blocks we took away and that no run wrote again yet. */
  readonly #removed = new Set<string>()
  readonly #lengths = new Map<string, number>()
  readonly #proven = new Set<string>()
  #history = ''
  #images = 0

  constructor(options: CrashLaneOptions) {
    this.#options = options
    this.#store = join(options.folder, 'store')
    this.#out = join(options.folder, 'out')
    this.#target = `vfs://${this.#store}`
  }

  /** Kills so many runs at random moments, and some more at chosen ones, and judges the end. */
  async run(kills: number): Promise<void> {
    await mkdir(this.#store)
    await mkdir(this.#out)
    try {
      let rounds = 0
      for (let killed = 0; killed < kills; rounds++) {
        assert.ok(rounds < ROUND_LIMIT, `only ${killed} of ${rounds} runs were killed`)
        if (await this.#round()) killed += 1
      }
      await this.#lastRounds()
    } catch (error) {
      throw new Error(`lane ${this.#options.number}, after ${this.#history}`, { cause: error })
    }
  }

  /** @returns whether the run was killed */
  async #round(): Promise<boolean> {
    const { random } = this.#options
    const plan = random.pick(WEIGHTED)
    const operation = await this.#operationFor(plan)
    await this.#awaitLocks(operation)
    const before = await stateOf(this.#store)
    const moment = pickMoment(operation, this.#store, before, random)
    const killed = await this.#kill(operation, moment)
    if (killed && (plan === 'heal' || random.chance(0.6))) await this.#runAgain(operation)
    return killed
  }

  async #operationFor(plan: Plan): Promise<Operation> {
    const { random } = this.#options
    const taken = [...this.#names]
    const free = NAMES.filter((name) => !this.#names.has(name))
    if (plan === 'gc') return { kind: 'gc' }
    if ((plan === 'new' || taken.length === 0) && free.length > 0) {
      return {
        kind: 'backup',
        name: random.pick(free),
        image: await this.#newImage(),
        was: undefined,
      }
    }
    const [name, image] = random.pick(taken)
    switch (plan) {
      case 'new':
      case 'replace':
        return { kind: 'backup', name, image: await this.#newImage(), was: image }
      case 'heal':
        await this.#removeSome(image)
        return { kind: 'backup', name, image, was: image }
      case 'same':
        return { kind: 'backup', name, image, was: image }
      case 'restore':
      case 'restore over': {
        const file = join(this.#out, plan === 'restore' ? `${name}.img` : 'over.img')
        if (plan === 'restore') await this.#forgetFile(file)
        return { kind: 'restore', name, image, file, was: this.#files.get(file) }
      }
      case 'delete':
        return { kind: 'delete', name, was: image }
    }
  }

  /** Locks of dead runs keep out those of the other type, and only them, until they expire. */
  async #awaitLocks(operation: Operation): Promise<void> {
    const hindering = await this.#hinderedBy(operation)
    // a restore that finds all it needs does not wait for the lock it asked for
    if (hindering.length === 0 || operation.kind === 'restore') return
    if (this.#options.random.chance(0.3)) await this.#expectBusy(operation)
    await letDeadRunsExpire(this.#store)
  }

  async #expectBusy(operation: Operation): Promise<void> {
    const holders = await this.#hinderedBy(operation)
    const { locks } = await stateOf(this.#store)
    const outcome = await drover(...this.#args(operation))
    assert.equal(outcome.code, 1, `a dead run's lock does not count: ${outcome.stdout}`)
    const { error } = outcome.json()
    assert.equal(error.code, 'STORE_BUSY')
    const { holder } = error.details
    assert.ok(
      holders.some(({ Name }) => Name === holder),
      `${holder} holds nothing`,
    )
    assert.deepEqual((await stateOf(this.#store)).locks, locks)
    await this.#check(operation)
  }

  /** @returns whether it died of it */
  async #kill(operation: Operation, moment: Moment): Promise<boolean> {
    const before = await stateOf(this.#store)
    const outcome = await runAndKill(this.#args(operation), moment)
    const killed = outcome.signal === 'SIGKILL'
    this.#history = `${operation.kind} ${killed ? 'killed' : 'not killed'} ${describeMoment(moment)}`
    if (!killed) assertDone(outcome)
    const after = await stateOf(this.#store)
    const phase = phaseOf(operation, this.#store, before, after)
    if (killed) this.#options.onKill(`${operation.kind}: ${phase}`)
    await this.#check(operation)
    if (!killed) this.#assertEffect(operation)
    return killed
  }

  /** The run after a dead one, to its end. */
  async #runAgain(operation: Operation): Promise<void> {
    this.#history += ', run again'
    if (lockTypeOf(operation) === 2) await letDeadRunsExpire(this.#store)
    const pool = (await stateOf(this.#store)).blocks
    const gone = operation.kind === 'delete' && !this.#names.has(operation.name)
    const standing = operation.kind === 'backup' ? this.#names.get(operation.name) : undefined
    // the dead run may have come far enough to leave the restored file
    const now: Operation =
      operation.kind === 'restore'
        ? { ...operation, was: this.#files.get(operation.file) }
        : operation
    const outcome = await drover(...this.#args(now))
    if (gone) {
      assert.equal(outcome.code, 3, outcome.stdout)
      assert.equal(outcome.json().error.code, 'BACKUP_NOT_FOUND')
      return
    }
    assertDone(outcome)
    if (operation.kind === 'backup') {
      assertReuse(outcome, operation, pool, standing)
      for (const id of operation.image.lengths.keys()) this.#removed.delete(id)
    }
    await this.#check(now)
    this.#assertEffect(now)
    if (operation.kind === 'gc') await assertHoldsExactly(this.#store, this.#names)
    if (operation.kind === 'restore') {
      assert.deepEqual(partialsBeside(operation.file), [], 'a dead partial file stays')
    }
  }

  /** What a run that came to its end must have done. */
  #assertEffect(operation: Operation): void {
    if (operation.kind === 'backup') {
      assert.equal(this.#names.get(operation.name), operation.image)
      for (const id of operation.image.lengths.keys()) this.#removed.delete(id)
    }
    if (operation.kind === 'restore') {
      assert.equal(this.#files.get(operation.file), operation.image)
    }
    if (operation.kind === 'delete') assert.ok(!this.#names.has(operation.name))
  }

  /** Judges the store, and learns which of the two possible things a killed run left. */
  async #check(operation: Operation): Promise<void> {
    await this.#checkList(operation)
    const { configs, blocks, locks, strays } = await stateOf(this.#store)
    assert.deepEqual(strays, [], 'files under names that nothing in a store has')
    assert.deepEqual(configs, [...this.#names.keys()].sort())
    for (const path of locks) readLockFile(this.#store, path)
    await assertBlocksProven(this.#store, blocks, this.#lengths, this.#proven)
    for (const [name, image] of this.#names) {
      await assertConfigOf(this.#store, name, image)
      for (const id of image.lengths.keys()) {
        assert.ok(blocks.has(id) || this.#removed.has(id), `${name} lost its block ${id}`)
      }
    }
    if (operation.kind === 'restore') await this.#checkFile(operation)
    // that every block is there and right is seen above; this asks drover, which takes longer
    if (operation.kind === 'gc' || !this.#names.has(operation.name)) return
    if (this.#options.random.chance(0.4)) await this.#verify(operation.name, blocks)
  }

  async #checkList(operation: Operation): Promise<void> {
    const list = await droverJson('list', '--target', this.#target)
    assert.deepEqual(list.incomplete, [])
    assert.deepEqual(list.unreadable, [])
    const listed = new Map<string, string>(
      list.backups.map((backup: { name: string; checksum: string }) => [
        backup.name,
        backup.checksum,
      ]),
    )
    if (operation.kind === 'backup' || operation.kind === 'delete') {
      const { name, was } = operation
      const image = operation.kind === 'backup' ? operation.image : undefined
      const found = [was, image].find((one) => one?.sha512 === listed.get(name))
      const absentAllowed = was === undefined || image === undefined
      assert.ok(found || (absentAllowed && !listed.has(name)), `${name} is neither old nor new`)
      if (found) this.#names.set(name, found)
      else this.#names.delete(name)
    }
    const expected = new Map([...this.#names].map(([name, { sha512 }]) => [name, sha512]))
    assert.deepEqual(listed, expected)
  }

  async #checkFile({ file, was, image }: Operation & { kind: 'restore' }): Promise<void> {
    const there = (await readdir(this.#out)).includes(file.slice(this.#out.length + 1))
    if (!there) {
      assert.equal(was, undefined, `${file} is gone`)
      this.#files.delete(file)
      return
    }
    const sum = await sha512(file)
    const found = [was, image].find((one) => one?.sha512 === sum)
    assert.ok(found, `${file} is neither what it was nor what was restored`)
    this.#files.set(file, found)
  }

  /** Asks drover itself; it must name what we took away, and nothing else. */
  async #verify(name: string, blocks: ReadonlySet<string>): Promise<void> {
    const image = this.#names.get(name)
    const missing = [...(image?.lengths.keys() ?? [])].filter((id) => !blocks.has(id))
    const url = `${this.#target}?backingImage=${name}`
    const outcome = await drover('verify', url, '--level', 'full', '--json', '--quiet')
    const summary = outcome.json()
    assert.equal(outcome.code, missing.length > 0 ? 3 : 0, outcome.stdout)
    assert.equal(summary.ok, missing.length === 0)
    assert.deepEqual(summary.corrupt, [])
    assert.deepEqual(summary.missing.map(({ id }: { id: string }) => id).sort(), missing.sort())
    if (missing.length === 0) assert.equal(summary.checksum, image?.sha512)
  }

  /** Deaths at chosen moments, and the end of the lane. */
  async #lastRounds(): Promise<void> {
    const { random } = this.#options
    await letDeadRunsExpire(this.#store)
    const name = random.pick(NAMES)
    const next = async () => {
      const image = await this.#newImage()
      return { kind: 'backup', name, image, was: this.#names.get(name) } as const
    }
    const committed = await next()
    assert.ok(await this.#kill(committed, commitStep(committed, 'after')), 'it was not killed')
    this.#assertEffect(committed)

    // this one finds the lock of the one before, which hinders no backup
    const publishing = await next()
    const publish = stepOf('link', '\\.blk$', 3, 'after')
    assert.ok(await this.#kill(publishing, { kind: 'step', step: publish }), 'it was not killed')
    assert.ok((await this.#liveLocks()).some(({ Type, Acquired }) => Type === 1 && Acquired))
    await this.#runAgain(publishing)

    await this.#expectBusy({ kind: 'gc' })
    await letDeadRunsExpire(this.#store)
    assertDone(await drover(...this.#args({ kind: 'gc' })))
    await assertHoldsExactly(this.#store, this.#names)
    for (const [name, image] of this.#names) {
      const file = join(this.#out, `${name}.img`)
      const restore = { kind: 'restore', name, image, file, was: this.#files.get(file) } as const
      const write = stepOf('handle.write', undefined, 4, 'during')
      assert.ok(await this.#kill(restore, { kind: 'step', step: write }), 'it was not killed')
      assert.equal(partialsBeside(file).length, 1)
      await this.#runAgain(restore)
    }
    // of those restores that were killed, the locks
    await letDeadRunsExpire(this.#store)
    assertDone(await drover(...this.#args({ kind: 'gc' })))
    await assertHoldsExactly(this.#store, this.#names)
  }

  #args(operation: Operation): string[] {
    return argsOf(operation, this.#target, this.#options.compression)
  }

  async #hinderedBy(operation: Operation): Promise<LockContent[]> {
    return (await this.#liveLocks()).filter(({ Type }) => Type !== lockTypeOf(operation))
  }

  /** Locks that have not expired; all of them are those of dead runs. */
  async #liveLocks(): Promise<LockContent[]> {
    const { locks } = await stateOf(this.#store)
    return locks
      .filter((path) => Date.now() - statSync(join(this.#store, path)).mtimeMs < LOCK_EXPIRY_MS)
      .map((path) => readLockFile(this.#store, path))
      .filter((lock) => lock !== undefined)
  }

  /** Half of its blocks may be in the pool already. */
  async #newImage(): Promise<KnownImage> {
    const { random, number, folder } = this.#options
    await this.#removeUnusedImages()
    this.#images += 1
    const contents: BlockContent[] = []
    for (let at = 0; at < BLOCKS_AN_IMAGE; at++) {
      const own = number * 100_000 + this.#images * 100 + at
      if (at === 3) contents.push({ kind: 'zeros' })
      else if (at === 4) contents.push({ kind: 'text', seed: own })
      else if (at === 5)
        contents.push({ kind: 'noise', seed: own - 5 }) // as block 0
      else contents.push({ kind: 'noise', seed: random.chance(0.4) ? number * 100_000 + at : own })
    }
    const file = join(folder, `image-${this.#images}.img`)
    // one of the first blocks is always its own, so there is always something to write
    contents[0] = { kind: 'noise', seed: number * 100_000 + this.#images * 100 }
    for (const at of [1, 2]) {
      contents[at] = { kind: 'noise', seed: number * 100_000 + this.#images * 100 + at }
    }
    const image = await makeKnownImage(file, contents, TAIL_BYTES)
    for (const [id, length] of image.lengths) this.#lengths.set(id, length)
    return image
  }

  async #removeUnusedImages(): Promise<void> {
    const used = new Set([...this.#names.values()].map(({ file }) => file))
    for (let at = 1; at <= this.#images; at++) {
      const file = join(this.#options.folder, `image-${at}.img`)
      if (!used.has(file)) await rm(file, { force: true })
    }
  }

  /** Damages a backup, so that the next run has something to heal. */
  async #removeSome(image: KnownImage): Promise<void> {
    for (const id of [...image.lengths.keys()].slice(0, 3)) {
      await rm(blockPath(this.#store, id), { force: true })
      this.#removed.add(id)
    }
  }

  async #forgetFile(file: string): Promise<void> {
    await rm(file, { force: true })
    this.#files.delete(file)
  }
}

function assertDone(outcome: Outcome): void {
  assert.equal(outcome.code, 0, `code ${outcome.code}, ${outcome.signal}: ${outcome.stderr}`)
}

/** Nothing that was in the pool is written again, and everything else is. */
function assertReuse(
  outcome: Outcome,
  { image, was }: Operation & { kind: 'backup' },
  pool: ReadonlySet<string>,
  standing: KnownImage | undefined,
): void {
  const { blocks, outcome: result, checksum } = outcome.json()
  const missing = [...image.lengths.keys()].filter((id) => !pool.has(id)).length
  assert.deepEqual(blocks, {
    total: BLOCKS_AN_IMAGE,
    zero: BLOCKS_AN_IMAGE - image.entries.length,
    reused: image.entries.length - missing,
    new: missing,
  })
  assert.equal(checksum, image.sha512)
  assert.equal(result, standing === image ? 'unchanged' : was ? 'replaced' : 'created')
}

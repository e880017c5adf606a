/** What a crash test runs, when it kills it, and how far the dead one had come. */
import { existsSync, lstatSync, readdirSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { KnownImage } from './known-image.ts'
import type { Moment } from './kill.ts'
import type { Step } from './preloads.ts'
import type { Random } from './random.ts'
import type { StoreState } from './store-state.ts'
import { blockPath, configPath, readLockFile } from './store-state.ts'

export type Operation =
  | {
      readonly kind: 'backup'
      readonly name: string
      readonly image: KnownImage
      /** What the name held before. */
      readonly was: KnownImage | undefined
    }
  | {
      readonly kind: 'restore'
      readonly name: string
      readonly image: KnownImage
      readonly file: string
      /** What the file held before. */
      readonly was: KnownImage | undefined
    }
  | { readonly kind: 'delete'; readonly name: string; readonly was: KnownImage }
  | { readonly kind: 'gc' }

/** Shared locks keep deletions out and the other way round; a good restore waits for none. */
export const lockTypeOf = ({ kind }: Operation): 1 | 2 =>
  kind === 'delete' || kind === 'gc' ? 2 : 1

/** Arguments with no time to wait for a busy store: who is kept out by a dead run fails at once. */
export function argsOf(operation: Operation, target: string, compression: string): string[] {
  const common = ['--json', '--quiet', '--lock-timeout', '0']
  switch (operation.kind) {
    case 'backup': {
      const { name, image, was } = operation
      const replace = was && was !== image ? ['--replace'] : []
      const how = ['--name', name, '--compression', compression, ...replace]
      return ['backup', image.file, '--target', target, ...how, ...common]
    }
    case 'restore': {
      const force = operation.was ? ['--force'] : []
      const url = `${target}?backingImage=${operation.name}`
      return ['restore', url, operation.file, ...force, ...common]
    }
    case 'delete': {
      const url = `${target}?backingImage=${operation.name}`
      return ['delete', url, '--min-age', '0s', ...common]
    }
    case 'gc':
      return ['gc', '--target', target, '--min-age', '0s', ...common]
  }
}

/** A moment to kill at, most of them where something is made, moved or removed. */
export function pickMoment(
  operation: Operation,
  store: string,
  before: StoreState,
  random: Random,
): Moment {
  const time = (from: number, to: number): Moment => ({ kind: 'time', ms: random.int(from, to) })
  const event = (what: string, seen: () => boolean, uptoMs: number): Moment => ({
    kind: 'event',
    what,
    seen,
    thenMs: random.int(0, uptoMs),
  })
  const step = (call: string, path: string | undefined, uptoNth: number): Moment => {
    const when = random.pick(['before', 'during', 'after'] as const)
    const nth = random.int(1, Math.max(1, uptoNth))
    return { kind: 'step', step: stepOf(call, path, nth, when) }
  }
  const lockSteps = [
    () => step('rename', '\\.lck$', 2),
    () => step('unlink', '\\.lck$', 1),
    () => step('rm', 'staging/', 1),
    () => step('mkdir', undefined, 12),
  ]
  const settling = [() => time(0, 1950), () => time(1980, 2300), () => time(2000, 2150)]

  switch (operation.kind) {
    case 'backup': {
      const { name, image } = operation
      const missing = [...image.lengths.keys()].filter((id) => !before.blocks.has(id))
      const config = configPath(store, name)
      const configBefore = versionOf(config)
      const moments = [
        ...settling,
        ...lockSteps,
        () => event('the config', () => versionOf(config) !== configBefore, 3),
        () => commitStep(operation, random.pick(['before', 'during', 'after'] as const)),
        () => commitStep(operation, 'after'),
        () => step('mkdir', `/${name}$`, 1),
      ]
      if (missing.length > 0) {
        const one = blockPath(store, random.pick(missing))
        moments.push(
          () => time(2000, 2150),
          () => event('the first staged block', () => stagedIn(store, before) > 0, 30),
          () => event('a published block', () => existsSync(one), 2),
          () => event('a published block', () => existsSync(one), 0),
          () => step('link', '\\.blk$', missing.length),
          () => step('link', '\\.blk$', missing.length),
          () => step('unlink', 'staging/', missing.length),
          () => step('handle.writeFile', undefined, missing.length + 3),
          () => step('handle.datasync', undefined, missing.length + 1),
        )
      }
      return random.pick(moments)()
    }
    case 'restore': {
      const { file, image } = operation
      const partials = partialsBeside(file).length
      const appeared = () => partialsBeside(file).length > partials
      return random.pick([
        () => time(40, 400),
        () => event('the partial file', appeared, 60),
        () => event('the partial file', appeared, 20),
        () => step('handle.truncate', undefined, 1),
        () => step('handle.write', undefined, image.entries.length),
        () => step('handle.write', undefined, image.entries.length),
        () => step('handle.sync', undefined, 1),
        () => step(operation.was ? 'rename' : 'link', '\\.partial$', 1),
        () => step('unlink', '\\.partial$', 1),
      ])()
    }
    case 'delete':
    case 'gc': {
      const watched = [...before.blocks].filter((id) => random.chance(0.5) && id)
      const blockGone = () => watched.some((id) => !existsSync(blockPath(store, id)))
      const moments = [
        ...settling,
        ...lockSteps,
        () => event('a removed block', blockGone, 2),
        () => step('unlink', '\\.blk$', 6),
        () => step('unlink', '\\.blk$', 6),
        () => step('rmdir', undefined, 12),
      ]
      if (operation.kind === 'delete') {
        const config = configPath(store, operation.name)
        moments.push(
          () => event('the removed config', () => !existsSync(config), 2),
          () => step('unlink', '\\.cfg$', 1),
          () => step('rmdir', `/${operation.name}$`, 1),
        )
      }
      return random.pick(moments)()
    }
  }
}

/** A new config gets its name by a link, which replaces nothing; a changed one by a rename. */
export const commitStep = (
  { was }: Operation & { kind: 'backup' },
  when: Step['when'],
): Moment => ({
  kind: 'step',
  step: stepOf(was ? 'rename' : 'link', 'backing-image\\.cfg$', 1, when),
})

export function stepOf(
  call: string,
  path: string | undefined,
  nth: number,
  when: Step['when'],
): Step {
  return { call, ...(path === undefined ? {} : { path }), nth, when, action: 'SIGKILL' }
}

/** How far a run came, told by what it left. */
export function phaseOf(
  operation: Operation,
  store: string,
  before: StoreState,
  after: StoreState,
): string {
  const started = () => {
    const fresh = after.locks.filter((path) => !before.locks.includes(path))
    const lock = fresh.map((path) => readLockFile(store, path)).find((found) => found)
    if (lock?.Acquired) return 'lock held'
    if (!lock) return 'starting or ending'
    const stages = after.staged.length > before.staged.length
    return stages ? 'settling, blocks staged' : 'settling'
  }
  const removed = [...before.blocks].filter((id) => !after.blocks.has(id)).length
  switch (operation.kind) {
    case 'backup': {
      const { image, name } = operation
      const missing = [...image.lengths.keys()].filter((id) => !before.blocks.has(id))
      const published = missing.filter((id) => after.blocks.has(id)).length
      const committed = after.configs.includes(name) && !before.configs.includes(name)
      if (committed) return 'committed'
      if (published === 0) return started()
      return published < missing.length ? 'publishing' : 'published'
    }
    case 'restore':
      if (partialsBeside(operation.file).length > 0) return 'restoring'
      return started()
    case 'delete':
      if (removed > 0) return 'collecting'
      return after.configs.includes(operation.name) ? started() : 'config removed'
    case 'gc':
      return removed > 0 ? 'collecting' : started()
  }
}

/** Files beside a file that is, or was, being restored. */
export const partialsBeside = (file: string): string[] =>
  readdirSync(dirname(file)).filter(
    (name) => name.startsWith(`.${basename(file)}.`) && name.endsWith('.partial'),
  )

function stagedIn(store: string, before: StoreState): number {
  const staging = join(store, 'backupstore/drover/staging')
  try {
    return readdirSync(staging)
      .filter((run) => !before.staged.some((path) => path.includes(run)))
      .flatMap((run) => readdirSync(join(staging, run)).map((file) => join(staging, run, file)))
      .filter((path) => lstatSync(path).size > 4096).length
  } catch {
    return 0 // gone meanwhile
  }
}

function versionOf(path: string): string {
  const stats = lstatSync(path, { bigint: true, throwIfNoEntry: false })
  return stats ? `${stats.ino} ${stats.mtimeNs}` : ''
}

/** A store and a folder for images; where things lie in a store, and hand-written ones. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { lstat, mkdir, readFile, readdir, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { TestContext } from 'node:test'
import type { Outcome } from './drover.ts'
import { droverJson, startDrover } from './drover.ts'
import { filesBelow } from './stores.ts'
import { tempFolder } from './temp.ts'

export const CONFIGS = 'backupstore/backing-images/backing-images'
export const BLOCKS = 'backupstore/backing-images/blocks'
export const LOCKS = 'backupstore/volumes/22/fc/BACKINGIMAGE/locks'

export interface Workspace {
  readonly folder: string
  readonly store: string
  readonly target: string
  /** A path beside the store. */
  readonly path: (name: string) => string
  readonly url: (backup: string) => string
}

/** An empty store with room beside it. */
export async function openWorkspace(t: Pick<TestContext, 'after'>): Promise<Workspace> {
  const folder = await tempFolder(t)
  const store = join(folder, 'store')
  await mkdir(store)
  return {
    folder,
    store,
    target: `vfs://${store}`,
    path: (name) => join(folder, name),
    url: (backup) => `vfs://${store}?backingImage=${backup}`,
  }
}

export const configPath = (store: string, name: string): string =>
  join(store, CONFIGS, name, 'backing-image.cfg')

export const blockPath = (store: string, id: string): string =>
  join(store, BLOCKS, id.slice(0, 2), id.slice(2, 4), `${id}.blk`)

export const idOf = (bytes: Uint8Array): string =>
  createHash('sha512').update(bytes).digest('hex').slice(0, 64)

/** A config as Longhorn sees it: plain JSON. */
export interface RawConfig {
  Name: string
  Size: string
  BlockCount: string
  Checksum: string
  Labels: Record<string, string> | null
  CompressionMethod: string
  CreatedTime: string
  CompleteTime: string
  Blocks?: Array<{ Offset: number; BlockChecksum: string }>
  [other: string]: unknown
}

export const readConfig = async (store: string, name: string): Promise<RawConfig> =>
  JSON.parse(await readFile(configPath(store, name), 'utf8'))

/** Writes a config, or whatever stands for one. */
export async function writeConfig(
  store: string,
  name: string,
  config: object | string | Uint8Array,
): Promise<void> {
  const path = configPath(store, name)
  await mkdir(dirname(path), { recursive: true })
  const plain = typeof config === 'string' || config instanceof Uint8Array
  await writeFile(path, plain ? config : JSON.stringify(config))
}

/** The config of a backup that was never completed. */
export const placeholder = (name: string): RawConfig => ({
  Name: name,
  Size: '8388608',
  BlockCount: '0',
  Checksum: '',
  Labels: { by: 'someone' },
  CompressionMethod: 'lz4',
  CreatedTime: '2026-01-31T03:00:00Z',
  CompleteTime: '',
  Secret: '',
  SecretNamespace: '',
  ProcessingBlocks: null,
})

export interface HandLock {
  readonly type?: 1 | 2
  readonly acquired?: boolean
  readonly ageSeconds?: number
  /** Instead of what a lock file should say. */
  readonly raw?: string
  readonly name?: string
}

/** Puts a lock file into a store, as another program would. Returns its path. */
export async function writeLock(store: string, lock: HandLock): Promise<string> {
  const { type = 2, acquired = true, ageSeconds = 0, name = 'lock-0123456789abcdef' } = lock
  const path = join(store, LOCKS, `${name}.lck`)
  await mkdir(dirname(path), { recursive: true })
  const text = lock.raw ?? JSON.stringify({ Name: name, Type: type, Acquired: acquired })
  await writeFile(path, text)
  await ageFile(path, ageSeconds)
  return path
}

export async function ageFile(path: string, seconds: number): Promise<void> {
  const then = new Date(Date.now() - seconds * 1000)
  await utimes(path, then, then)
}

export const lockFiles = async (store: string): Promise<string[]> =>
  (await filesBelow(store)).filter((path) => path.endsWith('.lck'))

/** All files of a store with their content and time: equal only when nothing was touched. */
export async function snapshot(store: string): Promise<Record<string, string>> {
  const entries: Array<[string, string]> = []
  for (const path of await filesBelow(store)) {
    const full = join(store, path)
    const { mtimeMs, size } = await lstat(full)
    const hash = createHash('sha256').update(await readFile(full))
    entries.push([path, `${size} ${mtimeMs} ${hash.digest('hex')}`])
  }
  return Object.fromEntries(entries)
}

export async function foldersBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort()
}

/** What a run may leave in a store: finished configs in folders of their own, blocks, and no more. */
export async function assertTidy(store: string): Promise<void> {
  for (const path of await filesBelow(store)) {
    assert.match(
      path,
      /^backupstore\/backing-images\/(backing-images\/[^/]+\/backing-image\.cfg|blocks\/(..)\/(..)\/\2\3[0-9a-f]{60}\.blk)$/,
      `${path} has no place in a store`,
    )
  }
  for (const name of await readdir(join(store, CONFIGS)).catch(() => [])) {
    const config = await readConfig(store, name)
    assert.notEqual(config.CompleteTime, '', `${name} is not complete`)
  }
}

/** Backs a file up to the store; fails the test unless that succeeds. */
export const backUp = (
  { target }: Pick<Workspace, 'target'>,
  file: string,
  ...more: string[]
): Promise<any> => droverJson('backup', file, '--target', target, ...more)

export interface Told {
  readonly code: number | null
  readonly document: any
  readonly stderr: string
}

/** Runs a command with `--json`, whatever comes of it. */
export async function runJson(args: readonly string[]): Promise<Told> {
  const outcome = await startDrover([...args, '--json']).done
  return { code: outcome.code, document: documentOf(outcome), stderr: outcome.stderr }
}

function documentOf(outcome: Outcome): any {
  assert.notEqual(outcome.stdout, '', `no document, exit code ${outcome.code}: ${outcome.stderr}`)
  return outcome.json()
}

export interface Failure {
  readonly code: string
  readonly message: string
  readonly details: Record<string, any>
}

/**
 * Runs a command that must fail: with this exit code, one JSON document that holds the error and
 * nothing else, and one line for a person.
 */
export async function fails(
  exitCode: number,
  code: string,
  args: readonly string[],
): Promise<Failure> {
  return failed(await startDrover([...args, '--json']).done, exitCode, code)
}

/** As `fails`, for a run with `--json` that is over. */
export function failed(outcome: Outcome, exitCode: number, code: string): Failure {
  const told = `${outcome.stdout}\n${outcome.stderr}`
  assert.equal(outcome.code, exitCode, told)
  const document = documentOf(outcome)
  assert.deepEqual(Object.keys(document), ['error'], told)
  assert.deepEqual(Object.keys(document.error), ['code', 'message', 'details'], told)
  assert.equal(document.error.code, code, told)
  assert.equal(typeof document.error.message, 'string')
  assert.equal(typeof document.error.details, 'object')
  const lines = outcome.stderr.trimEnd().split('\n')
  assert.ok(lines.at(-1)?.startsWith(`drover: ${code}: `), told)
  assert.doesNotMatch(outcome.stderr, /^ {4}at /m, 'a stack without --debug')
  return document.error
}

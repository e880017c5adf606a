/** What is tried in a folder; by whom, its own process or the helper of a share, does not matter. */
import { randomBytes } from 'node:crypto'
import { access, constants, link, lstat, rename, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import prettyBytes from 'pretty-bytes'
import { DroverError, systemCode } from '../../lib/errors.ts'
import type { Key, RunId } from '../../backupstore/layout.ts'
import { STORE_PREFIX, stagingKey } from '../../backupstore/layout.ts'
import { bodyOf } from '../../backupstore/object-store.ts'
import { mibPerSecond, paceOf, rateOf } from '../doctor/speed.ts'
import type { Finding } from '../doctor/steps.ts'
import { isAbsent, targetError } from './fs-errors.ts'
import type { FsStore } from './fs-store.ts'
import { NO_LINKS } from './naming.ts'
import { judgeFileSystem, judgeMountOptions, mountOf } from './probe-mount.ts'

export interface ProbedFolder {
  /** With all links resolved. */
  readonly path: string
  readonly store: Pick<FsStore, 'put' | 'readInto' | 'list'>
  readonly run: RunId
  readonly concurrency: number
  /** How long the measuring may take. */
  readonly budgetMs: number
}

export interface FolderStep {
  readonly name: string
  readonly needs: readonly string[]
  readonly probe: (folder: ProbedFolder, signal: AbortSignal) => Promise<Finding>
}

/** A block is never larger. */
const OBJECT_BYTES = 2 * 1024 * 1024
/** What a throughput is measured with, and so many times more has to be free. */
const MEASURED_BYTES = 64 * 1024 * 1024
const SPARE = 2
const LITTLE_BYTES = 1024 ** 3
const FEW_FILES = 10_000

export const FOLDER_STEPS: readonly FolderStep[] = [
  {
    name: 'file system',
    needs: [],
    probe: async ({ path }) => judgeFileSystem(await mountOf(path)),
  },
  {
    name: 'mount options',
    needs: [],
    probe: async ({ path }) => judgeMountOptions(await mountOf(path)),
  },
  { name: 'free space', needs: [], probe: freeSpace },
  { name: 'permissions', needs: [], probe: permissions },
  { name: 'write', needs: ['permissions', 'free space'], probe: write },
  { name: 'durable write', needs: ['write'], probe: durableWrite },
  { name: 'hard link', needs: ['write'], probe: hardLink },
  { name: 'rename', needs: ['write'], probe: renaming },
  { name: 'list', needs: ['write'], probe: list },
  { name: 'read', needs: ['write'], probe: read },
  { name: 'throughput', needs: ['durable write', 'read'], probe: throughput },
]

export function probeStep(
  name: string,
  folder: ProbedFolder,
  signal: AbortSignal,
): Promise<Finding> {
  const step = FOLDER_STEPS.find((each) => each.name === name)
  if (!step) throw new DroverError('INTERNAL', `there is no step ${JSON.stringify(name)}`)
  return step.probe(folder, signal)
}

const keyOf = ({ run }: ProbedFolder, name: string): Key => stagingKey(run, `probe-${name}`)
const pathOf = (folder: ProbedFolder, name: string): string =>
  join(folder.path, keyOf(folder, name))

async function freeSpace({ path }: ProbedFolder): Promise<Finding> {
  const { bavail, bsize, files, ffree } = await statfs(path).catch((error: unknown) => {
    throw targetError(error, 'asking for free space')
  })
  const freeBytes = bavail * bsize
  const details = { freeBytes, freeFiles: files > 0 ? ffree : null }
  if (freeBytes < SPARE * OBJECT_BYTES) {
    throw new DroverError('NO_SPACE', `${freeBytes} bytes are free`, { details })
  }
  const message = `${prettyBytes(freeBytes, { binary: true })} are free`
  // not every file system counts its files
  const fewFiles = files > 0 && ffree < FEW_FILES
  if (freeBytes >= LITTLE_BYTES && !fewFiles) return { verdict: 'ok', message, details }
  return {
    verdict: 'warning',
    message: fewFiles ? `${message}, for no more than ${ffree} files` : message,
    hint: 'make room: a backup may need as much as its image has data, in a file for each 2 MiB',
    details,
  }
}

async function permissions({ path }: ProbedFolder): Promise<Finding> {
  const storeFolder = join(path, STORE_PREFIX)
  try {
    const there = await lstat(join(path, STORE_PREFIX.slice(0, -1))).catch((error: unknown) => {
      if (isAbsent(error)) return undefined
      throw error
    })
    if (there && !there.isDirectory()) {
      throw new DroverError('UNSAFE_PATH', `${STORE_PREFIX} is no folder: expected one, or nothing`)
    }
    const { uid, gid, mode } = there ?? (await stat(path))
    const whose = `${there ? STORE_PREFIX : 'the folder'} belongs to ${uid}:${gid}, mode ${(mode & 0o7777).toString(8).padStart(4, '0')}`
    const own = process.geteuid?.() ?? null
    await access(there ? storeFolder : path, constants.W_OK | constants.X_OK).catch(
      (error: unknown) => {
        const { code, message } = targetError(error, 'writing')
        throw new DroverError(code, `${message}; ${whose}, and drover runs as ${own}`, {
          cause: error,
        })
      },
    )
    return {
      verdict: 'ok',
      message: `${whose}; drover runs as ${own}${there ? '' : '; no store is there yet'}`,
      details: { isStore: there !== undefined, uid, gid, mode: mode & 0o7777, euid: own },
    }
  } catch (error) {
    throw targetError(error, 'looking at the folder')
  }
}

async function put(
  folder: ProbedFolder,
  name: string,
  bytes: Uint8Array,
  signal: AbortSignal,
  durable = false,
): Promise<void> {
  await folder.store.put(keyOf(folder, name), bodyOf(bytes), { signal, durable })
}

async function write(folder: ProbedFolder, signal: AbortSignal): Promise<Finding> {
  const startMs = performance.now()
  await put(folder, 'object', randomBytes(OBJECT_BYTES), signal)
  const ms = performance.now() - startMs
  return { verdict: 'ok', message: `${OBJECT_BYTES} bytes, ${rateOf({ bytes: OBJECT_BYTES, ms })}` }
}

async function durableWrite(folder: ProbedFolder, signal: AbortSignal): Promise<Finding> {
  const startMs = performance.now()
  await put(folder, 'durable', randomBytes(OBJECT_BYTES), signal, true)
  const tookMs = Math.round(performance.now() - startMs)
  const message = `${OBJECT_BYTES} bytes and their name were safe on the disk after ${tookMs} ms`
  return { verdict: 'ok', message, details: { tookMs } }
}

async function hardLink(folder: ProbedFolder): Promise<Finding> {
  try {
    await link(pathOf(folder, 'object'), pathOf(folder, 'link'))
    return { verdict: 'ok', message: 'names are given without replacing what stands there' }
  } catch (error) {
    if (!NO_LINKS.has(systemCode(error) ?? '')) throw targetError(error, 'making a hard link')
  }
  return {
    verdict: 'warning',
    message:
      'the file system has no hard links, so names are given by renaming: two racing backups of one name may overwrite each other',
    hint: 'never let two backups of one name run at the same time, or take another file system',
  }
}

/** Replacing is what matters: a config appears by that. */
async function renaming(folder: ProbedFolder, signal: AbortSignal): Promise<Finding> {
  const bytes = Buffer.from('the new one')
  await put(folder, 'new', bytes, signal)
  await put(folder, 'old', Buffer.from('the one that is replaced'), signal)
  try {
    await rename(pathOf(folder, 'new'), pathOf(folder, 'old'))
    const { size } = await stat(pathOf(folder, 'old'))
    if (size === bytes.length) return { verdict: 'ok', message: 'one file replaces another' }
  } catch (error) {
    throw targetError(error, 'renaming a file over another')
  }
  throw new DroverError('STORE_CHANGED', 'a file that was renamed over another did not replace it')
}

async function list(folder: ProbedFolder, signal: AbortSignal): Promise<Finding> {
  const wanted = keyOf(folder, 'object')
  let found = false
  for await (const page of folder.store.list(stagingKey(folder.run, ''), { signal })) {
    found ||= page.some(({ key }) => key === wanted)
  }
  if (found) return { verdict: 'ok', message: 'what was written is listed' }
  throw new DroverError('STORE_CHANGED', 'what was just written is missing in the listing')
}

async function read(folder: ProbedFolder, signal: AbortSignal): Promise<Finding> {
  const bytes = randomBytes(OBJECT_BYTES)
  await put(folder, 'object', bytes, signal)
  const into = Buffer.alloc(OBJECT_BYTES)
  const length = await folder.store.readInto(keyOf(folder, 'object'), into, { signal })
  if (length === bytes.length && into.equals(bytes)) {
    return { verdict: 'ok', message: 'the same bytes that were written' }
  }
  throw new DroverError('OBJECT_UNREADABLE', 'what was read is not what was written')
}

async function throughput(folder: ProbedFolder, signal: AbortSignal): Promise<Finding> {
  const { path, concurrency, budgetMs, store } = folder
  const { bavail, bsize } = await statfs(path)
  if (bavail * bsize < SPARE * MEASURED_BYTES) {
    return { verdict: 'skipped', message: 'there is too little room to measure' }
  }
  const bytes = randomBytes(OBJECT_BYTES)
  const course = { lanes: concurrency, most: MEASURED_BYTES / OBJECT_BYTES, budgetMs: budgetMs / 2 }
  const writing = await paceOf(course, signal, async (number, joined) => {
    await put(folder, `speed-${number}`, bytes, joined, true)
    return bytes.length
  })
  const reading = await paceOf(
    { ...course, most: writing.transfers },
    signal,
    async (number, joined) => {
      const into = Buffer.allocUnsafe(bytes.length)
      const key = keyOf(folder, `speed-${number}`)
      return (await store.readInto(key, into, { signal: joined })) ?? 0
    },
  )
  const details = {
    concurrency,
    bytes: writing.bytes,
    writeMiBPerSecond: mibPerSecond(writing),
    readMiBPerSecond: mibPerSecond(reading),
  }
  // nobody but the kernel knows what it still has in memory
  const message = `at concurrency ${concurrency}: write ${rateOf(writing)} (to the disk), read ${rateOf(reading)} (may be from memory)`
  return { verdict: 'ok', message, details }
}

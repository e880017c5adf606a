/** The steps in which a folder is looked over. */
import { realpath, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { ErrorCode } from '../../lib/errors.ts'
import { DroverError } from '../../lib/errors.ts'
import type { RunId } from '../../backupstore/layout.ts'
import { stagingKey } from '../../backupstore/layout.ts'
import type { StorageSettings } from '../settings.ts'
import type { Finding, Probe, Step } from '../doctor/steps.ts'
import { isAbsent, targetError } from './fs-errors.ts'
import type { FsStore } from './fs-store.ts'
import { openFsStore } from './fs-store.ts'
import type { ProbedFolder } from './probe-steps.ts'
import { FOLDER_STEPS } from './probe-steps.ts'

const MOST_MEASURING_MS = 10_000

/** The measuring has to fit into the deadline of its step. */
export const measuringMs = ({ callTimeoutMs }: StorageSettings): number =>
  Math.min(MOST_MEASURING_MS, callTimeoutMs / 2)

/** Touches nothing before the first step. */
export function folderProbe(path: string, run: RunId, settings: StorageSettings): Probe {
  let folder: (ProbedFolder & { readonly store: FsStore }) | undefined
  const open: Step = {
    name: 'folder',
    hintFor: folderHint,
    async run() {
      const store = await openFsStore(path, run)
      const real = await realpath(path)
      const { concurrency } = settings
      folder = { path: real, store, run, concurrency, budgetMs: measuringMs(settings) }
      const message = real === path ? `${path} exists` : `${path} is ${real}`
      return { verdict: 'ok', message }
    },
  }
  const steps = FOLDER_STEPS.map(({ name, needs, probe }): Step => ({
    name,
    needs: ['folder', ...needs],
    hintFor: folderHint,
    run(signal) {
      if (!folder) throw new DroverError('INTERNAL', 'no folder is open')
      return probe(folder, signal)
    },
  }))
  const cleanUp: Step = {
    name: 'clean-up',
    always: true,
    hintFor: (error) => `${folderHint(error)}; drover gc removes what is left, too`,
    run: () => tidy(folder),
  }
  return { steps: [open, ...steps, cleanUp], close: () => undefined }
}

async function tidy(folder: (ProbedFolder & { store: FsStore }) | undefined): Promise<Finding> {
  if (!folder) return { verdict: 'skipped', message: 'nothing was written' }
  const staging = join(folder.path, stagingKey(folder.run, ''))
  await folder.store.close()
  try {
    await stat(staging)
  } catch (error) {
    if (isAbsent(error)) return { verdict: 'ok', message: 'all that was written is removed' }
    throw targetError(error, 'looking for what is left')
  }
  throw new DroverError('STORE_CHANGED', `${staging} is still there`)
}

const HINTS: Partial<Record<ErrorCode, string>> = {
  TARGET_NOT_FOUND:
    'make the folder first, or mount the share that it is: Drover makes no target by itself',
  TARGET_FORBIDDEN:
    'run drover as the owner, or change owner or mode of the folder and all below backupstore/; for a share, see how the server maps users (root_squash)',
  TARGET_READ_ONLY:
    "mount it for writing, and see in the kernel's log (dmesg) whether a damaged disk made it read-only",
  NO_SPACE: 'make room, or raise the quota',
  TARGET_UNREACHABLE:
    "see whether the disk or the share is still there and works: mount, ls, and the kernel's log (dmesg)",
  OBJECT_UNREADABLE: "the disk or the share is not reliable: see the kernel's log (dmesg)",
  UNSAFE_PATH: 'move away what stands in the way: a store has plain files and folders only',
  STORE_CHANGED: 'see whether somebody else removes files there, and run it again',
}

/** What to do about an error in a folder. */
export const folderHint = ({ code }: DroverError): string =>
  HINTS[code] ?? 'run it again with --debug, and report what it says'

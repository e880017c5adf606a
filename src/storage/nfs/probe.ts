/**
 * The steps in which an NFS export is looked over: the way to it here, everything that touches it in
 * the helper, where the steps are those of any folder.
 */
import { lookup } from 'node:dns/promises'
import { connect, isIP } from 'node:net'
import type { ErrorCode } from '../../lib/errors.ts'
import { DroverError, systemCode, throwIfAborted } from '../../lib/errors.ts'
import type { RunId } from '../../backupstore/layout.ts'
import { folderHint, measuringMs } from '../fs/probe.ts'
import { FOLDER_STEPS } from '../fs/probe-steps.ts'
import { opened } from '../doctor/opened.ts'
import type { StorageSettings } from '../settings.ts'
import type { Finding, Probe, Step } from '../doctor/steps.ts'
import { HelperKeeper } from './helper-keeper.ts'
import type { NfsTarget } from './nfs-store.ts'
import { helperOptions } from './nfs-store.ts'

const DEFAULT_PORT = 2049
/** A helper that is late tells more than the end of a step. */
const PATIENCE_PART = 0.5

interface Bench {
  readonly target: NfsTarget
  readonly settings: StorageSettings
  readonly run: RunId
  /** There when the options are good. */
  keeper: HelperKeeper | undefined
  mounted: boolean
}

/** Starts no helper before the step that mounts. */
export function nfsProbe(target: NfsTarget, run: RunId, settings: StorageSettings): Probe {
  const bench: Bench = { target, settings, run, keeper: undefined, mounted: false }
  const { callTimeoutMs, concurrency } = settings
  const way: Step[] = [
    { name: 'options', hintFor: nfsHint, run: () => Promise.resolve(options(bench)) },
    {
      name: 'name resolution',
      needs: ['options'],
      hintFor: () => "check the server's name in the URL, and the DNS of this machine",
      run: () => nameResolution(target),
    },
    {
      name: 'connection',
      needs: ['name resolution'],
      hintFor: nfsHint,
      run: (signal) => connection(target, signal),
    },
    {
      name: 'mount',
      needs: ['connection'],
      // each attempt has a deadline of its own
      extraMs: MOST_ATTEMPTS * callTimeoutMs,
      hintFor: nfsHint,
      run: (signal) => mount(bench, signal),
    },
  ]
  const inside = FOLDER_STEPS.map(({ name, needs }): Step => ({
    name,
    needs: ['mount', ...needs],
    extraMs: PATIENCE_PART * callTimeoutMs,
    hintFor: nfsHint,
    async run(signal) {
      const helper = await keeperOf(bench).get(signal)
      const given = { step: name, concurrency, budgetMs: measuringMs(settings) }
      return helper.call('probe', given, { signal })
    },
  }))
  const cleanUp: Step = {
    name: 'clean-up',
    always: true,
    extraMs: PATIENCE_PART * callTimeoutMs,
    hintFor: (error) => `${nfsHint(error)}; drover gc removes what is left, too`,
    run: (signal) => tidy(bench, signal),
  }
  return {
    steps: [...way, ...inside, cleanUp],
    close: () => bench.keeper?.close(() => Promise.resolve()),
  }
}

/** 4.2, 4.1 and 4.0. */
const MOST_ATTEMPTS = 3

function options(bench: Bench): Finding {
  const options = helperOptions(bench.target, bench.run, bench.settings)
  bench.keeper = new HelperKeeper(options)
  const { attempts, source } = options.place
  const message = `${source}, mounted with ${attempts.join(', or with ')}`
  return { verdict: 'ok', message, details: { source, attempts } }
}

const hostOf = ({ server }: NfsTarget): string => server.replace(/^\[|\]$/g, '')

async function nameResolution(target: NfsTarget): Promise<Finding> {
  const host = hostOf(target)
  if (isIP(host)) return { verdict: 'skipped', message: `${host} is an address` }
  try {
    const addresses = (await lookup(host, { all: true })).map(({ address }) => address)
    const message = `${host} is ${addresses.slice(0, 4).join(', ')}`
    return { verdict: 'ok', message, details: { host, addresses } }
  } catch (error) {
    throw new DroverError(
      'TARGET_UNREACHABLE',
      `${host} could not be looked up (${systemCode(error) ?? String(error)})`,
      { cause: error },
    )
  }
}

async function connection(target: NfsTarget, signal: AbortSignal): Promise<Finding> {
  const host = hostOf(target)
  const port = Number(valueOf(target, 'port') ?? DEFAULT_PORT)
  if (valueOf(target, 'proto')?.startsWith('rdma') || target.options.includes('rdma')) {
    return { verdict: 'skipped', message: 'it is not made by TCP' }
  }
  try {
    const socket = await opened(connect({ host, port }), 'connect', signal)
    socket.destroy()
    return { verdict: 'ok', message: `port ${port} of ${host} is open` }
  } catch (error) {
    throw new DroverError(
      'TARGET_UNREACHABLE',
      `port ${port} of ${host} cannot be reached (${systemCode(error) ?? String(error)})`,
      { cause: error },
    )
  }
}

const valueOf = ({ options }: NfsTarget, name: string): string | undefined =>
  options.findLast((option) => option.startsWith(`${name}=`))?.slice(name.length + 1)

async function mount(bench: Bench, signal: AbortSignal): Promise<Finding> {
  await keeperOf(bench).get(signal)
  bench.mounted = true
  return { verdict: 'ok', message: `below ${bench.settings.nfs.mountDir}` }
}

/** With another helper where the one that wrote was lost. */
async function tidy(bench: Bench, signal: AbortSignal): Promise<Finding> {
  if (!bench.mounted) return { verdict: 'skipped', message: 'nothing was written' }
  const keeper = keeperOf(bench)
  await keeper.get(signal)
  throwIfAborted(signal)
  await keeper.close(async (helper) => {
    await helper.call('close', {})
  })
  return {
    verdict: 'ok',
    message: 'all that was written is removed, and the share unmounted unless others use it',
  }
}

function keeperOf({ keeper }: Bench): HelperKeeper {
  if (keeper) return keeper
  throw new DroverError('INTERNAL', 'the options of the target are not known')
}

const HINTS: Partial<Record<ErrorCode, string>> = {
  INVALID_URL:
    'correct nfsOptions in the URL, as in nfs://server:/path?nfsOptions=nfsvers=4.1,soft',
  INVALID_CONFIG: 'name a folder that can be made and written in DROVER_MOUNT_DIR',
  TARGET_NOT_FOUND:
    'check the exported path in the URL: NFS 4 paths begin at the root of all exports',
  TARGET_FORBIDDEN:
    'export it to this machine, for writing (rw), and with no_root_squash or to the user that drover runs as: exports(5)',
  TARGET_READ_ONLY: 'export it for writing (rw), and take ro out of nfsOptions',
  TARGET_UNSUPPORTED:
    'do what it says, or mount the share yourself and use vfs:///the/mount/point as the target',
  TARGET_UNREACHABLE:
    'see whether the NFS server runs, and whether a firewall lets this machine to its port 2049',
  NO_SPACE: "make room in the server's file system, or raise its quota",
}

const nfsHint = (error: DroverError): string => HINTS[error.code] ?? folderHint(error)

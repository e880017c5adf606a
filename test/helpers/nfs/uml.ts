/**
 * A real Linux kernel with an NFS client, whatever the kernel of this machine: user-mode Linux, a
 * kernel that is a process. Its root is the root of this machine (files are read and written here,
 * except those on its own file systems in memory: /mnt, /run and /dev/shm), its network is its own,
 * and this machine's 127.0.0.1 is its 10.0.2.2. It has one processor, and every page of memory that
 * a process in it touches first costs some 100 µs.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, readdir, rm, statfs, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { output, unlessThere } from '../command.ts'

export const HOST = '10.0.2.2'

/** In the environment of a guest that tests run in: how it reaches `serveControl`. */
export const CONTROL = 'DROVER_TEST_CONTROL'

/** In the guest: gone with it. */
export const GUEST_TEMP = '/mnt/tmp'

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
const MODULES = '/usr/lib/uml/modules'
// the programs that only root needs lie outside an ordinary user's PATH
const PATH = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`

export interface UmlOptions {
  /** Kills the guest and all that runs in it. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
  readonly memoryMiB?: number
  /** All that the command gets, besides PATH, HOME and TMPDIR. */
  readonly env?: Readonly<Record<string, string>>
}

export interface UmlResult {
  /** Undefined when the guest did not get to the end of the command. */
  readonly code: number | undefined
  readonly stdout: string
  readonly stderr: string
  /** What the kernel said. */
  readonly console: string
}

/** For a test's `skip`. */
export const unlessUml = (): string | false =>
  unlessThere('linux.uml', 'slirp-fullbolt', 'depmod', 'modprobe', 'mount.nfs4', 'taskset')

/** Boots, runs a program in the folder of the project, and leaves nothing behind. */
export async function runInUml(
  command: readonly string[],
  { timeoutMs = 120_000, signal, memoryMiB = 1024, env = {} }: UmlOptions = {},
): Promise<UmlResult> {
  const name = `drover-uml-${process.pid}-`
  const folder = await mkdtemp(join(tmpdir(), name))
  const memory = await mkdtemp(join(await memoryFolder(memoryMiB), name))
  try {
    await prepareModules(folder)
    await writeFile(join(folder, 'stdout'), '')
    await writeFile(join(folder, 'stderr'), '')
    const init = initScript({ folder, command, timeoutMs, env })
    await writeFile(join(folder, 'init'), init, { mode: 0o755 })
    const console = await boot(folder, memory, memoryMiB, timeoutMs, signal)
    const code = await readFile(join(folder, 'code'), 'utf8').catch(() => '')
    return {
      code: code === '' ? undefined : Number(code),
      stdout: await readFile(join(folder, 'stdout'), 'utf8'),
      stderr: await readFile(join(folder, 'stderr'), 'utf8'),
      console,
    }
  } finally {
    await rm(memory, { recursive: true, force: true })
    await rm(folder, { recursive: true, force: true })
  }
}

/** The guest's memory is a mapped file: in memory too, where that has room and may be executed. */
async function memoryFolder(memoryMiB: number): Promise<string> {
  const mounts = await readFile('/proc/mounts', 'utf8')
  const options = /^\S+ \/dev\/shm tmpfs (\S+)/m.exec(mounts)?.[1]?.split(',')
  if (!options || options.includes('noexec')) return tmpdir()
  const { bavail, bsize } = await statfs('/dev/shm')
  return bavail * bsize > memoryMiB * 1024 * 1024 ? '/dev/shm' : tmpdir()
}

/** Where modprobe looks: the kernel's modules, and a list of which needs which. */
async function prepareModules(folder: string): Promise<void> {
  for (const version of await readdir(MODULES)) {
    const modules = join(folder, 'lib/modules', version)
    await mkdir(modules, { recursive: true })
    await symlink(join(MODULES, version, 'kernel'), join(modules, 'kernel'))
    await output('depmod', ['-b', folder, version], { env: { PATH } })
  }
}

interface Init {
  readonly folder: string
  readonly command: readonly string[]
  readonly timeoutMs: number
  readonly env: Readonly<Record<string, string>>
}

/**
 * The guest ends itself in the end, in case that nobody is left who would. What it writes to files
 * of the host stays in its memory for a while: without the loop, one that had to be killed would
 * have said nothing.
 */
const initScript = ({ folder, command, timeoutMs, env }: Init): string => `#!/bin/bash
exec >/dev/console 2>&1 </dev/null
export ${assignments({ PATH, HOME: '/mnt', TMPDIR: GUEST_TEMP })}
mount -t proc proc /proc
mount -t sysfs sys /sys
for each in /mnt /run /dev/shm; do mkdir -p $each; mount -t tmpfs tmpfs $each; done
mkdir -p ${GUEST_TEMP}
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via ${HOST}
modprobe -d ${quote(folder)} nfsv4
cd ${quote(ROOT)}
(sleep ${Math.ceil(timeoutMs / 1000) + 10}; echo o >/proc/sysrq-trigger) &
while sleep 3; do sync -f ${quote(folder)}; done &
env ${assignments(env)} ${command.map(quote).join(' ')} \\
  >${quote(`${folder}/stdout`)} 2>${quote(`${folder}/stderr`)}
echo $? >${quote(`${folder}/code`)}
sync -f ${quote(folder)}
echo o >/proc/sysrq-trigger
sleep 60
`

const assignments = (env: Readonly<Record<string, string>>): string =>
  Object.entries(env)
    .map(([name, value]) => `${name}=${quote(value)}`)
    .join(' ')

const quote = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`

/** @returns what appeared on the console */
async function boot(
  folder: string,
  memory: string,
  memoryMiB: number,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<string> {
  const slirp = (await output('which', ['slirp-fullbolt'])).toString().trim()
  const kernel = [
    `mem=${memoryMiB}M`,
    `uml_dir=${folder}`,
    'umid=uml',
    'root=/dev/root',
    'rootfstype=hostfs',
    'rootflags=/',
    'rw',
    `init=${folder}/init`,
    `eth0=slirp,,${slirp}`,
    'con=null',
    'con0=fd:0,fd:1',
    // notices, and what is worse
    'loglevel=6',
  ]
  // All of it is one process group, which has to go at once: the processes of a guest whose kernel is
  // gone would go on as processes of this machine. On one processor they hand over to each other in
  // half of the time.
  const child = spawn('taskset', ['-c', String(await idlestProcessor()), 'linux.uml', ...kernel], {
    detached: true,
    env: { PATH, HOME: folder, TMPDIR: memory },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let console = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (console += text))
  }
  const closed = once(child, 'close')
  await once(child, 'spawn')
  const killAll = () => {
    try {
      process.kill(-(child.pid ?? Number.NaN), 'SIGKILL')
    } catch {
      // gone already
    }
  }
  const timer = setTimeout(killAll, timeoutMs)
  process.once('exit', killAll)
  signal?.addEventListener('abort', killAll)
  if (signal?.aborted) killAll()
  await once(child, 'exit')
  killAll()
  await closed
  clearTimeout(timer)
  process.off('exit', killAll)
  signal?.removeEventListener('abort', killAll)
  return console
}

/** The one of those we may use that has the fewest processes of guests. */
async function idlestProcessor(): Promise<number> {
  const guests = new Map((await allowedProcessors('self')).map((processor) => [processor, 0]))
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (!command.startsWith('linux.uml\0')) continue
    const [processor = -1, ...others] = await allowedProcessors(pid)
    const count = guests.get(processor)
    if (count !== undefined && others.length === 0) guests.set(processor, count + 1)
  }
  const [idlest] = [...guests].sort(([, a], [, b]) => a - b)
  return idlest?.[0] ?? 0
}

/** @param pid or `self` */
async function allowedProcessors(pid: string): Promise<number[]> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? ''
  return list.split(',').flatMap((range) => {
    const [from = 0, to = from] = range.split('-').map(Number)
    return Array.from({ length: to - from + 1 }, (_, n) => from + n)
  })
}

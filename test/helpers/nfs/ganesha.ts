/**
 * A real NFSv4 server: nfs-ganesha on a loopback port, with all that it has in a folder of the
 * test's own. It speaks of D-Bus and Kerberos in its log; neither is needed.
 */
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createConnection, createServer } from 'node:net'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { output } from '../command.ts'
import { filesBelow } from '../stores.ts'
import { tempFolder } from '../temp.ts'
import { waitUntil } from '../wait-until.ts'

export interface GaneshaOptions extends Manners {
  /** A free one unless given. */
  readonly port?: number
  /** Bytes that fit into the export, which is then a file system of its own; needs root. */
  readonly sizeBytes?: number
}

/** What may be another with each start. */
export interface Manners {
  /** Of NFSv4; 0, 1 and 2 unless given. */
  readonly minorVersions?: readonly number[]
  /** `squashed` takes away what only root may do; `read-write` unless given. */
  readonly access?: 'read-write' | 'read-only' | 'squashed'
  /** Whether clients get 5 s to claim back what they had open, while all else has to wait. */
  readonly grace?: boolean
}

/** What can be done to a server, also from within a guest. */
export interface Faults {
  /** Ends the server as a crash would. */
  kill(): Promise<void>
  /** Starts it again, on the same port. */
  start(manners?: Manners): Promise<void>
  /** Stops it from answering: connections stay, and new ones are accepted. */
  pause(): Promise<void>
  resume(): Promise<void>
  /**
   * Restarts it with another, empty folder in place of what it exported. (One that was only moved
   * away would stay reachable by those who have it open: a handle names a file, not its path.)
   */
  replaceExport(): Promise<void>
  /** Settles when so many more files lie below a folder of the export than now. */
  untilMoreFiles(path: string, more: number): Promise<void>
}

export interface Ganesha extends Faults {
  readonly port: number
  /** The folder that clients see as /export. */
  readonly exported: string
  readonly log: () => Promise<string>
}

/** The server ends with the test. */
export async function startGanesha(
  t: Pick<TestContext, 'after'>,
  options: GaneshaOptions = {},
): Promise<Ganesha> {
  let child: ChildProcess | undefined
  let folder = ''
  let exported = ''
  let isMounted = false
  // hooks run in the order they were given: this one before the folder is removed
  t.after(async () => {
    await kill()
    if (isMounted) await output('umount', ['-l', exported])
  })
  folder = await tempFolder(t)
  exported = join(folder, 'export')
  await mkdir(exported)
  await mkdir(join(folder, 'recovery'))
  if (options.sizeBytes !== undefined) {
    const size = `size=${options.sizeBytes},mode=755`
    await output('mount', ['-t', 'tmpfs', '-o', size, 'tmpfs', exported])
    isMounted = true
  }
  const port = options.port ?? (await freePort())
  if (await accepts(port)) throw new Error(`port ${port} is taken by another server`)

  async function start(manners: Manners = options): Promise<void> {
    if (child) throw new Error('the NFS server runs already')
    const config = join(folder, 'ganesha.conf')
    await writeFile(config, configOf({ ...manners, port, folder, exported }))
    const log = join(folder, 'ganesha.log')
    const args = ['-F', '-f', config, '-L', log, '-p', join(folder, 'pid'), '-N', 'NIV_EVENT']
    const started = spawn('ganesha.nfsd', args, { stdio: 'ignore' })
    await once(started, 'spawn')
    child = started
    await waitUntil(async () => {
      if (hasEnded(started)) throw new Error(`the NFS server ended:\n${await readLog()}`)
      return accepts(port)
    }, `the NFS server accepts on port ${port}`)
  }

  async function kill(): Promise<void> {
    const running = child
    child = undefined
    if (!running || hasEnded(running)) return
    running.kill('SIGKILL')
    await once(running, 'exit')
  }

  const readLog = () => readFile(join(folder, 'ganesha.log'), 'utf8').catch(() => '')

  await start()
  return {
    port,
    exported,
    log: readLog,
    start,
    kill,
    async pause() {
      child?.kill('SIGSTOP')
    },
    async resume() {
      child?.kill('SIGCONT')
    },
    async replaceExport() {
      await kill()
      await rm(exported, { recursive: true })
      await mkdir(exported)
      await start()
    },
    async untilMoreFiles(path, more) {
      const count = async () => (await filesBelow(join(exported, path))).length
      const enough = (await count()) + more
      const isThere = async () => (await count()) >= enough
      await waitUntil(isThere, `${more} more files in ${path}`, PATIENCE_MS)
    },
  }
}

/** A guest may be slow. */
const PATIENCE_MS = 120_000

const hasEnded = ({ exitCode, signalCode }: ChildProcess): boolean =>
  exitCode !== null || signalCode !== null

interface Config extends Manners {
  readonly port: number
  readonly folder: string
  readonly exported: string
}

/** Attributes are not cached, as tests change what lies in the export behind the server's back. */
const configOf = (config: Config): string => `
NFS_CORE_PARAM {
  Bind_addr = 127.0.0.1;
  NFS_Port = ${config.port};
  Protocols = 4;
  Enable_NLM = false;
  Enable_RQUOTA = false;
}
NFS_KRB5 { Active_krb5 = false; }
NFSv4 {
  Minor_Versions = ${(config.minorVersions ?? [0, 1, 2]).join(',')};
  Graceless = ${!config.grace};
  Grace_Period = 5;
  Lease_Lifetime = 5;
  RecoveryBackend = fs;
  RecoveryRoot = ${config.folder}/recovery;
  Only_Numeric_Owners = true;
  Allow_Numeric_Owners = true;
}
EXPORT {
  Export_Id = 1;
  Path = ${config.exported};
  Pseudo = /export;
  Protocols = 4;
  Transports = TCP;
  SecType = sys;
  Access_Type = ${config.access === 'read-only' ? 'RO' : 'RW'};
  Squash = ${config.access === 'squashed' ? 'All_Squash' : 'No_Root_Squash'};
  Attr_Expiration_Time = 0;
  FSAL { Name = VFS; }
}
LOG { Default_Log_Level = EVENT; }
`

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ port, host: '127.0.0.1' })
    const settle = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.on('connect', () => settle(true)).on('error', () => settle(false))
  })
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

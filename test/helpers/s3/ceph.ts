/**
 * A real S3 server: Ceph on one node, with its objects in memory. Monitor, object daemon and
 * gateway are child processes on loopback with their files in a temp folder. The objects live as
 * long as the object daemon, so the gateway may be killed and started again in between.
 *
 * What cost time to find out: without a short `paxos propose interval` it takes 12 s to be ready;
 * cephx is needed (without, it hangs); `ceph-osd --mkfs` must get the uuid of `ceph osd new`. A
 * killed gateway still counts as a watcher of buckets and users, and whoever makes one waits until
 * that has timed out: 30 s, unless `osd client watch timeout` is short.
 */
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before } from 'node:test'
import { output, unlessThere } from '../command.ts'
import { waitUntil } from '../wait-until.ts'
import type { S3Admin, S3Keys } from './admin.ts'
import { openS3Admin } from './admin.ts'
import { makeCertificates } from './certificates.ts'
import { DNS_NAME, KEYS } from './names.ts'
import { freePorts } from './ports.ts'
import type { ServerProcess } from './server-process.ts'
import { startProcess } from './server-process.ts'

export { KEYS }

/** For `skip`: why there is no Ceph here. */
export const noCeph = unlessThere('ceph-mon', 'ceph-osd', 'radosgw', 'radosgw-admin', 'ceph')

export interface CephOptions {
  /** Another endpoint with TLS, for 127.0.0.1, localhost and the names of buckets. */
  readonly tls?: boolean
  /**
   * Answers at once. As packaged it does not: it waits with small answers for the client's
   * acknowledgement, which the client delays by 40 ms.
   */
  readonly noDelay?: boolean
}

export interface Ceph {
  readonly url: string
  readonly port: number
  /** With `tls`. */
  readonly secure?: { readonly url: string; readonly port: number; readonly caPem: string }
  /** Of a user who may do everything. */
  readonly keys: S3Keys
  readonly admin: S3Admin
  /** A user who may do nothing until a bucket's policy says otherwise. */
  readonly makeUser: (name: string) => Promise<S3Keys>
  /** As when the machine loses power. */
  readonly killGateway: () => Promise<void>
  readonly startGateway: () => Promise<void>
  /** It accepts connections, and answers nothing. */
  readonly pause: () => void
  readonly resume: () => void
  readonly stop: () => Promise<void>
}

export async function startCeph(options: CephOptions = {}): Promise<Ceph> {
  const folder = await mkdtemp(join(tmpdir(), 'drover-ceph-'))
  const started: ServerProcess[] = []
  const stop = async () => {
    for (const server of started.toReversed()) await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
  try {
    return { ...(await start(folder, options, started)), stop }
  } catch (error) {
    const words = started.map((server) => server.lastWords()).join('\n')
    await stop()
    throw new Error(`Ceph did not start: ${words}`, { cause: error })
  }
}

/** One server for all tests of a file; it is there from the first test on. */
export function cephForAll(options?: CephOptions): () => Ceph {
  let ceph: Ceph | undefined
  before(async () => {
    if (noCeph === false) ceph = await startCeph(options)
  })
  after(async () => {
    ceph?.admin.close()
    await ceph?.stop()
  })
  return () => {
    if (!ceph) throw new Error('there is no Ceph: skip what needs it')
    return ceph
  }
}

async function start(
  folder: string,
  { tls = false, noDelay = true }: CephOptions,
  started: ServerProcess[],
): Promise<Omit<Ceph, 'stop'>> {
  const path = (name: string) => join(folder, name)
  const ports = await freePorts(4)
  const [port = 0, securePort = 0, v2 = 0, v1 = 0] = ports
  for (const name of ['mon', 'osd', 'rgw', 'run']) await mkdir(path(name))
  const [fsid, osdId] = [randomUUID(), randomUUID()]
  const certificates = tls ? await makeCertificates(folder, SERVER_NAMES) : undefined
  if (certificates) await writeFile(path('server.pem'), certificates.serverPem, { mode: 0o600 })
  const secureFrontend = ` ssl_endpoint=127.0.0.1:${securePort} ssl_certificate=${path('server.pem')}`
  await writeFile(path('keyring'), keyring(), { mode: 0o600 })
  await writeFile(
    path('ceph.conf'),
    config(folder, {
      fsid,
      monitor: `[v2:127.0.0.1:${v2},v1:127.0.0.1:${v1}]`,
      frontend: `beast tcp_nodelay=${noDelay ? 1 : 0} endpoint=127.0.0.1:${port}${tls ? secureFrontend : ''}`,
    }),
  )
  const conf = ['--conf', path('ceph.conf')]
  const daemon = (program: string, ...args: string[]): ServerProcess => {
    const server = startProcess(program, [...conf, ...args, '-f'], path(`${program}.out`))
    started.push(server)
    return server
  }

  // prettier-ignore
  await output('monmaptool', ['--create', '--fsid', fsid,
    '--addv', 'a', `[v2:127.0.0.1:${v2},v1:127.0.0.1:${v1}]`, path('monmap')])
  // prettier-ignore
  await output('ceph-mon', [...conf, '--no-mon-config', '-i', 'a', '--mkfs',
    '--monmap', path('monmap'), '--keyring', path('keyring')])
  daemon('ceph-mon', '-i', 'a', '--no-mon-config')
  await output('timeout', ['30', 'ceph', ...conf, 'osd', 'new', osdId])
  await output('ceph-osd', [...conf, '-i', '0', '--mkfs', '--osd-uuid', osdId])
  daemon('ceph-osd', '-i', '0')
  const startGateway = () => daemon('radosgw', '-n', 'client.rgw')
  let gateway = startGateway()
  const url = `http://127.0.0.1:${port}`
  const ready = () =>
    waitUntil(
      async () => {
        if (!gateway.alive()) throw new Error(`radosgw ended: ${gateway.lastWords()}`)
        return answers(url)
      },
      'the gateway answers',
      60_000,
    )
  await ready()

  const makeUser = async (name: string, keys: S3Keys = keysOf(name)): Promise<S3Keys> => {
    // prettier-ignore
    await output('timeout', ['60', 'radosgw-admin', ...conf, '-n', 'client.rgw', 'user', 'create',
      `--uid=${name}`, `--display-name=${name}`,
      `--access-key=${keys.accessKeyId}`, `--secret-key=${keys.secretAccessKey}`])
    return keys
  }
  await makeUser('test', KEYS)
  const secure = certificates && {
    url: `https://127.0.0.1:${securePort}`,
    port: securePort,
    caPem: certificates.caPem,
  }
  return {
    url,
    port,
    ...(secure ? { secure } : {}),
    keys: KEYS,
    admin: openS3Admin(url, KEYS),
    makeUser,
    async killGateway() {
      started.splice(started.indexOf(gateway), 1)
      await gateway.kill()
    },
    async startGateway() {
      gateway = startGateway()
      await ready()
    },
    pause: () => gateway.signal('SIGSTOP'),
    resume: () => gateway.signal('SIGCONT'),
  }
}

const SERVER_NAMES = [
  'IP:127.0.0.1',
  'DNS:localhost',
  `DNS:${DNS_NAME}`,
  `DNS:*.${DNS_NAME}`,
] as const

const keysOf = (name: string): S3Keys => ({
  accessKeyId: `AK${name.toUpperCase()}`,
  secretAccessKey: `SK${randomBytes(12).toString('hex')}`,
})

async function answers(url: string): Promise<boolean> {
  try {
    await (await fetch(url)).arrayBuffer()
    return true
  } catch {
    return false
  }
}

/** Each part gets a key of its own: type 1 (AES), a time, a length and the bytes. */
function keyring(): string {
  const key = () => {
    const head = Buffer.alloc(12)
    head.writeUInt16LE(1)
    head.writeUInt32LE(Math.floor(Date.now() / 1000), 2)
    head.writeUInt16LE(16, 10)
    return Buffer.concat([head, randomBytes(16)]).toString('base64')
  }
  const all = ['mon', 'osd', 'mgr', 'mds']
  const entry = (name: string, caps: Record<string, string>) =>
    [
      `[${name}]`,
      `key = ${key()}`,
      ...Object.entries(caps).map(([part, cap]) => `caps ${part} = "${cap}"`),
      '',
    ].join('\n')
  return [
    entry('mon.', { mon: 'allow *' }),
    entry('client.admin', Object.fromEntries(all.map((part) => [part, 'allow *']))),
    entry('client.rgw', { mon: 'allow *', osd: 'allow *', mgr: 'allow *' }),
    entry('osd.0', { mon: 'allow profile osd', osd: 'allow *', mgr: 'allow profile osd' }),
  ].join('')
}

const config = (
  folder: string,
  { fsid, monitor, frontend }: { fsid: string; monitor: string; frontend: string },
): string => `[global]
fsid = ${fsid}
mon host = ${monitor}
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = ${folder}/keyring
run dir = ${folder}/run
admin socket = ${folder}/run/$name.$pid.asok
pid file = ${folder}/run/$name.pid
log file = ${folder}/$name.log
crash dir = ${folder}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 2000
osd crush chooseleaf type = 0
paxos propose interval = 0.05
paxos min wait = 0.01
osd objectstore = memstore
memstore device bytes = 8589934592
osd memory target = 1073741824
mon data = ${folder}/mon
osd data = ${folder}/osd
mon data avail warn = 1
mon data avail crit = 1
mon warn on pool no redundancy = false
ms bind ipv6 = false
osd client watch timeout = 3
objecter tick interval = 1
osd max object name len = 2048
[client.rgw]
rgw data = ${folder}/rgw
rgw frontends = ${frontend}
rgw thread pool size = 64
rgw dns name = ${DNS_NAME}
rgw enable usage log = false
rgw verify ssl = false
`

/**
 * A second S3 server, unlike the first in its code and its storage: versitygw, which keeps objects
 * as files of a temp folder. What one server hides, another shows.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runCommand } from '../command.ts'
import { waitUntil } from '../wait-until.ts'
import type { S3Admin, S3Keys } from './admin.ts'
import { openS3Admin } from './admin.ts'
import { freePort } from './ports.ts'
import { startProcess } from './server-process.ts'

const BUILD = fileURLToPath(new URL('../../s3/versitygw/build.sh', import.meta.url))
const GO_IS_MISSING = 3
const KEYS: S3Keys = { accessKeyId: 'VGWTEST', secretAccessKey: 'VGWSECRET' }

export interface Versity {
  readonly url: string
  readonly port: number
  readonly keys: S3Keys
  readonly admin: S3Admin
  readonly stop: () => Promise<void>
}

/** Builds the server. Returns the reason when that is impossible here and may be. */
export async function buildVersity(): Promise<{ readonly program: string } | string> {
  const { code, stdout, stderr } = await runCommand(BUILD, [])
  if (code === GO_IS_MISSING && !process.env['CI']) return 'go is missing'
  if (code !== 0) throw new Error(`building versitygw failed with ${code}: ${stderr}`)
  return { program: stdout.toString().trim() }
}

export async function startVersity({ program }: { readonly program: string }): Promise<Versity> {
  const folder = await mkdtemp(join(tmpdir(), 'drover-versity-'))
  const path = (name: string) => join(folder, name)
  await mkdir(path('objects'))
  await mkdir(path('attributes'))
  const port = await freePort()
  // prettier-ignore
  const server = startProcess(program, [
    '--port', `127.0.0.1:${port}`, '--keep-alive', '--quiet',
    'posix', '--sidecar', path('attributes'), path('objects'),
  ], path('log'), {
    // not as arguments, which any user of the machine could read
    ROOT_ACCESS_KEY: KEYS.accessKeyId,
    ROOT_SECRET_KEY: KEYS.secretAccessKey,
  })
  const url = `http://127.0.0.1:${port}`
  const stop = async () => {
    await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
  try {
    await waitUntil(async () => {
      if (!server.alive()) throw new Error(`versitygw ended: ${server.lastWords()}`)
      return fetch(url).then(
        () => true,
        () => false,
      )
    }, 'versitygw answers')
  } catch (error) {
    await stop()
    throw error
  }
  return { url, port, keys: KEYS, admin: openS3Admin(url, KEYS), stop }
}

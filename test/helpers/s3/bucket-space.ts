/** A path in a bucket behind a proxy, as a target of the command line, with room for files beside it. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { Running } from '../drover.ts'
import { startDrover } from '../drover.ts'
import { tempFolder } from '../temp.ts'
import type { S3Admin } from './admin.ts'
import type { FaultProxy, FaultProxyOptions } from './fault-proxy.ts'
import { startFaultProxy } from './fault-proxy.ts'
import type { Server } from './target.ts'
import { environmentFor } from './target.ts'

export interface S3Server extends Server {
  readonly port: number
  readonly admin: S3Admin
}

export interface BucketSpace {
  readonly bucket: string
  readonly proxy: FaultProxy
  readonly target: string
  readonly url: (backup: string) => string
  /** A file beside. */
  readonly path: (name: string) => string
  /** Keys below the target's path. */
  readonly keys: () => Promise<string[]>
  /** Of the target's path in the bucket; empty or with a slash at its end. */
  readonly prefix: string
  readonly env: Record<string, string | undefined>
  /** Starts the program with `--json`. */
  readonly start: (args: readonly string[], env?: Record<string, string | undefined>) => Running
  /** Runs the program with `--json` and fails the test unless it succeeds. */
  readonly run: (...args: string[]) => Promise<any>
  /** Fails the test unless the program fails with this code. */
  readonly fails: (
    code: string,
    args: readonly string[],
    env?: Record<string, string | undefined>,
  ) => Promise<any>
}

export interface SpaceOptions extends FaultProxyOptions {
  /** A bucket that is there; another one otherwise. */
  readonly bucket?: string
  readonly env?: Record<string, string | undefined>
}

export async function openSpace(
  t: Pick<TestContext, 'after'>,
  server: S3Server,
  { bucket: given, env: more, ...proxyOptions }: SpaceOptions = {},
): Promise<BucketSpace> {
  const folder = await tempFolder(t)
  const bucket = given ?? (await server.admin.makeBucket())
  const proxy = await startFaultProxy(server.port, proxyOptions)
  t.after(() => proxy.stop())
  const prefix = `${randomBytes(4).toString('hex')}/`
  const target = `s3://${bucket}/${prefix}`
  const base = environmentFor({ url: proxy.url, keys: server.keys }, more)
  const start = (args: readonly string[], env?: Record<string, string | undefined>) =>
    startDrover([...args, '--json'], { env: { ...base, ...env } })
  return {
    bucket,
    proxy,
    prefix,
    target,
    env: base,
    url: (backup) => `${target}?backingImage=${backup}`,
    path: (name) => join(folder, name),
    keys: () => server.admin.keys(bucket, prefix),
    start,
    async run(...args) {
      const outcome = await start(args).done
      assert.equal(outcome.code, 0, `drover ${args.join(' ')}: ${outcome.stderr}`)
      return outcome.json()
    },
    async fails(code, args, env) {
      const outcome = await start(args, env).done
      const told = `drover ${args.join(' ')}: ${outcome.stdout}${outcome.stderr}`
      assert.notEqual(outcome.code, 0, told)
      const { error } = outcome.json()
      assert.equal(error?.code, code, told)
      return { ...error, told }
    },
  }
}

/** What a finished run may leave below a target's path. */
const IN_PLACE =
  /^backupstore\/backing-images\/(backing-images\/[^/]+\/backing-image\.cfg|blocks\/(..)\/(..)\/\2\3[0-9a-f]{60}\.blk)$/

export const strays = (keys: readonly string[]): string[] =>
  keys.filter((key) => !IN_PLACE.test(key))

export const lockKeys = (keys: readonly string[]): string[] =>
  keys.filter((key) => key.endsWith('.lck'))

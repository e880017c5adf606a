/** Where the keys to a target may come from, and that they never show. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { describe, test } from 'node:test'
import type { BucketSpace } from '../helpers/s3/bucket-space.ts'
import { openSpace } from '../helpers/s3/bucket-space.ts'
import { cephForAll, noCeph } from '../helpers/s3/ceph.ts'
import { startForwardProxy } from '../helpers/s3/forward-proxy.ts'
import {
  startContainerAgent,
  startMetadata,
  startTokenService,
} from '../helpers/s3/role-endpoints.ts'
import { countSockets } from '../helpers/s3/tcp-proxy.ts'
import { waitUntil } from '../helpers/wait-until.ts'

describe('credentials', { skip: noCeph, concurrency: 4 }, () => {
  const ceph = cephForAll({ tls: true })
  const NONE = { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined }

  const works = async (
    { start, target }: BucketSpace,
    env: Record<string, string | undefined>,
  ): Promise<void> => {
    const outcome = await start(['list', '--target', target], env).done
    assert.equal(outcome.code, 0, outcome.stderr)
    assert.deepEqual(outcome.json().backups, [])
  }
  const sentToken = ({ proxy }: BucketSpace) => proxy.seen.at(-1)?.headers['x-amz-security-token']

  test('come from the environment, trimmed, as Secrets end in new lines', async (t) => {
    const space = await openSpace(t, ceph())
    const { accessKeyId, secretAccessKey } = ceph().keys
    await works(space, {
      AWS_ENDPOINTS: ` ${space.proxy.url}/ \n`,
      AWS_ACCESS_KEY_ID: `${accessKeyId}\n`,
      AWS_SECRET_ACCESS_KEY: `\t${secretAccessKey}\r\n`,
    })
    assert.equal(sentToken(space), undefined)
    await works(space, { AWS_SESSION_TOKEN: 'the-session\n' })
    assert.equal(sentToken(space), 'the-session')
  })

  test('come from a shared file and its profile', async (t) => {
    const space = await openSpace(t, ceph())
    const { accessKeyId, secretAccessKey } = ceph().keys
    const lines = [
      '[default]',
      'aws_access_key_id = AKWRONG',
      'aws_secret_access_key = wrong',
      '[backups]',
      `aws_access_key_id = ${accessKeyId}`,
      `aws_secret_access_key = ${secretAccessKey}`,
    ]
    await writeFile(space.path('credentials'), `${lines.join('\n')}\n`)
    const file = { ...NONE, AWS_SHARED_CREDENTIALS_FILE: space.path('credentials') }
    await works(space, { ...file, AWS_PROFILE: 'backups' })
    await space.fails('TARGET_CREDENTIALS', ['list', '--target', space.target], file)
  })

  test('come from the metadata of a virtual machine', async (t) => {
    const space = await openSpace(t, ceph())
    const metadata = await startMetadata(ceph().keys)
    t.after(() => metadata.stop())
    await works(space, {
      ...NONE,
      AWS_EC2_METADATA_DISABLED: undefined,
      AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.url,
    })
    assert.equal(sentToken(space), 'the-session')
    assert.equal(metadata.seen[0]?.line, 'PUT /latest/api/token')
  })

  test('come from a web identity that is exchanged for a role', async (t) => {
    const space = await openSpace(t, ceph())
    const expected = { roleArn: 'arn:aws:iam::123456789012:role/backups', token: 'header.body.sig' }
    const service = await startTokenService(ceph().keys, expected)
    t.after(() => service.stop())
    await writeFile(space.path('token'), expected.token)
    const env = {
      ...NONE,
      AWS_REGION: 'us-east-1',
      AWS_ENDPOINT_URL_STS: service.url,
      AWS_ROLE_ARN: expected.roleArn,
      AWS_WEB_IDENTITY_TOKEN_FILE: space.path('token'),
    }
    await works(space, env)
    assert.equal(sentToken(space), 'the-session')
    await writeFile(space.path('token'), 'a.stale.one')
    await space.fails('TARGET_CREDENTIALS', ['list', '--target', space.target], env)
  })

  test('come from the agent beside a container', async (t) => {
    const space = await openSpace(t, ceph())
    const agent = await startContainerAgent(ceph().keys, 'let-me-in')
    t.after(() => agent.stop())
    await writeFile(space.path('token'), 'let-me-in')
    const uri = { ...NONE, AWS_CONTAINER_CREDENTIALS_FULL_URI: `${agent.url}/v1/credentials` }
    await works(space, { ...uri, AWS_CONTAINER_AUTHORIZATION_TOKEN: 'let-me-in' })
    await works(space, { ...uri, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: space.path('token') })
    assert.equal(sentToken(space), 'the-session')
    const wrong = { ...uri, AWS_CONTAINER_AUTHORIZATION_TOKEN: 'no' }
    await space.fails('TARGET_CREDENTIALS', ['list', '--target', space.target], wrong)
  })

  test('that do not come hold up neither the deadline nor an interruption', async (t) => {
    const space = await openSpace(t, ceph())
    const sockets = countSockets()
    const silent = createServer((socket) => {
      sockets.add(socket)
      socket.on('error', () => undefined)
    })
    silent.listen(0, '127.0.0.1')
    await once(silent, 'listening')
    t.after(() => {
      silent.close()
      sockets.destroyAll()
    })
    const { port } = silent.address() as AddressInfo
    const env = {
      ...NONE,
      AWS_CONTAINER_CREDENTIALS_FULL_URI: `http://127.0.0.1:${port}/v1/credentials`,
      DROVER_CALL_TIMEOUT: '2s',
    }
    const list = ['list', '--target', space.target]
    const startedMs = performance.now()
    const { message } = await space.fails('TARGET_CREDENTIALS', list, env)
    assert.match(message, /credentials does not answer in time.*within 2 s/)
    assert.ok(performance.now() - startedMs < 10_000, 'within the deadline')

    const before = sockets.counts().accepted
    const run = space.start(list, { ...env, DROVER_CALL_TIMEOUT: '60s' })
    await waitUntil(() => sockets.counts().accepted > before, 'it asks for credentials')
    const interruptedMs = performance.now()
    run.child.kill('SIGINT')
    const { stdout } = await run.done
    assert.equal(JSON.parse(stdout).error.code, 'INTERRUPTED')
    assert.ok(performance.now() - interruptedMs < 5000, 'at once')
    assert.equal(space.proxy.seen.length, 0)
  })

  test('that are nowhere, or half there, are asked for', async (t) => {
    const space = await openSpace(t, ceph())
    const list = ['list', '--target', space.target]
    const none = await space.fails('TARGET_CREDENTIALS', list, NONE)
    assert.match(none.message, /AWS_ACCESS_KEY_ID/)
    const half = { AWS_SECRET_ACCESS_KEY: '  \n' }
    const missing = await space.fails('INVALID_CONFIG', list, half)
    assert.match(missing.message, /AWS_SECRET_ACCESS_KEY/)
  })

  test('never show, whatever goes wrong', async (t) => {
    const space = await openSpace(t, ceph())
    const { url, keys, secure } = ceph()
    const secrets = ['s3cr3t-of-the-key', 's3ss10n-token', 'pr0xy-passw0rd']
    const [secret = '', session = '', password = ''] = secrets
    const forward = await startForwardProxy(`drover:another-${password}`)
    t.after(() => forward.stop())
    const bad = { AWS_SECRET_ACCESS_KEY: secret, AWS_SESSION_TOKEN: session }
    const proxy = forward.url.replace('another-', '')
    const environments: Array<Record<string, string | undefined>> = [
      bad,
      { ...bad, AWS_ACCESS_KEY_ID: 'AKSTRANGER' },
      { ...bad, AWS_ENDPOINTS: 'http://127.0.0.1:1' },
      { ...bad, AWS_ENDPOINTS: url.replace('//', `//user:${password}@`) },
      { ...bad, AWS_ENDPOINTS: secure?.url },
      { ...bad, HTTP_PROXY: proxy },
      { ...bad, AWS_ENDPOINTS: secure?.url, AWS_CERT: secure?.caPem, HTTPS_PROXY: proxy },
      { ...bad, HTTP_PROXY: `ftp://u:${password}@proxy` },
      { ...bad, AWS_CERT: secret },
      { ...bad, AWS_ACCESS_KEY_ID: undefined },
      { ...bad, DROVER_S3_SSE: 'nonsense', AWS_SECRET_ACCESS_KEY: secret },
    ]
    for (const env of environments) {
      const list = ['list', '--target', space.target, '--debug']
      const { code, stdout, stderr } = await space.start(list, env).done
      const told = stdout + stderr
      assert.notEqual(code, 0, told)
      for (const each of secrets) assert.ok(!told.includes(each), `${each} shows: ${told}`)
      assert.ok(!told.includes(keys.secretAccessKey) || env !== bad)
    }
  })

  test('are sent to servers that are trusted by AWS_CERT, as PEM or base64 of it', async (t) => {
    const space = await openSpace(t, ceph())
    const { secure } = ceph()
    assert.ok(secure)
    const pem = `${secure.caPem}\n`
    const endpoint = { AWS_ENDPOINTS: secure.url }
    await works(space, { ...endpoint, AWS_CERT: pem })
    await works(space, { ...endpoint, AWS_CERT: Buffer.from(pem).toString('base64') })
    const list = ['list', '--target', space.target]
    await space.fails('TARGET_UNTRUSTED', list, endpoint)
  })
})

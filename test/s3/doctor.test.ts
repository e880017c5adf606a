/** A bucket that is looked over: each thing that may be wrong has its verdict and its hint. */
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import { startDrover } from '../helpers/drover.ts'
import type { S3Keys } from '../helpers/s3/admin.ts'
import { cephForAll, noCeph } from '../helpers/s3/ceph.ts'
import { startFaultProxy } from '../helpers/s3/fault-proxy.ts'
import type { Fault, Rule } from '../helpers/s3/faults.ts'
import { startForwardProxy } from '../helpers/s3/forward-proxy.ts'
import { freePort } from '../helpers/s3/ports.ts'
import type { ProfileName } from '../helpers/s3/profiles.ts'
import { profiles } from '../helpers/s3/profiles.ts'
import {
  startContainerAgent,
  startMetadata,
  startTokenService,
} from '../helpers/s3/role-endpoints.ts'
import { environmentFor } from '../helpers/s3/target.ts'
import { buildVersity, startVersity } from '../helpers/s3/versity.ts'
import { tempFolder } from '../helpers/temp.ts'
import { waitUntil } from '../helpers/wait-until.ts'

const PATH = 'a path/in it/'
const OTHER = `${PATH}backupstore/backing-images/backing-images/web/backing-image.cfg`

interface Asked {
  readonly url?: string
  readonly keys?: S3Keys
  readonly bucket?: string
  readonly region?: string
  readonly path?: string
  readonly env?: Record<string, string>
}

interface Told {
  readonly code: number | null
  readonly document: any
  /** Names of the steps that have a verdict. */
  readonly having: (verdict: string) => string[]
  readonly step: (name: string) => any
}

describe('drover doctor on a bucket', { skip: noCeph, concurrency: 3 }, () => {
  const ceph = cephForAll({ tls: true })

  /** Runs it on a bucket that has something of others in it; fails if it leaves anything there. */
  async function doctor(asked: Asked = {}): Promise<Told> {
    const { admin } = ceph()
    const own = await admin.makeBucket()
    await admin.put(own, OTHER, 'of others')
    const told = await run({ ...asked, bucket: own })
    assert.deepEqual(await admin.keys(own), [OTHER])
    assert.deepEqual(await admin.uploads(own), [])
    return told
  }

  async function run({ path = PATH, ...asked }: Asked): Promise<Told> {
    const { url = ceph().url, keys = ceph().keys, bucket = 'nothing', region, env } = asked
    const place = region === undefined ? bucket : `${bucket}@${region}`
    const args = ['doctor', '--target', `s3://${place}/${path}`, '--json', '--debug']
    const more = { DROVER_CALL_TIMEOUT: '10s', ...env }
    const { done } = startDrover(args, { env: environmentFor({ url, keys }, more) })
    const { code, stdout, stderr } = await done
    assert.ok(!`${stdout}${stderr}`.includes(keys.secretAccessKey), 'it tells a secret')
    assert.ok(!`${stdout}${stderr}`.includes(keys.accessKeyId), 'it tells a key')
    const document = JSON.parse(stdout)
    assert.equal(document.ok, code === 0, stdout)
    for (const { name, verdict, hint, message } of document.steps) {
      const needsHint = verdict === 'failed' || verdict === 'warning'
      assert.equal(typeof hint, needsHint ? 'string' : 'undefined', `${name}: ${message}`)
    }
    return {
      code,
      document,
      having: (verdict) =>
        document.steps
          .filter((each: any) => each.verdict === verdict)
          .map(({ name }: { name: string }) => name),
      step: (name) => document.steps.find((each: any) => each.name === name),
    }
  }

  async function behind(t: TestContext, options: { rule?: Rule; profile?: ProfileName }) {
    const { rule, profile } = options
    const proxy = await startFaultProxy(ceph().port, {
      ...(rule ? { rule } : {}),
      ...(profile ? { profile: profiles[profile] } : {}),
    })
    t.after(() => proxy.stop())
    return proxy.url
  }

  test('finds nothing wrong with Ceph', async () => {
    const { code, document, having, step } = await doctor({ region: 'us-east-1' })
    assert.equal(code, 0, JSON.stringify(document))
    assert.deepEqual(having('skipped'), ['name resolution'])
    assert.deepEqual(having('warning'), [])
    assert.deepEqual(
      document.steps.map(({ name }: { name: string }) => name),
      // prettier-ignore
      ['settings', 'name resolution', 'connection', 'credentials', 'list', 'clock', 'delete', 'put',
        'get', 'upload check', 'create once', 'replace known', 'batch delete', 'multipart',
        'latency', 'throughput', 'clean-up'],
    )
    assert.match(step('settings').message, /us-east-1 \(from the URL\), path style, no proxy/)
    assert.equal(step('list').details.hasImages, true)
    assert.equal(step('throughput').details.rates.length, 2)
    assert.equal(document.requests.CreateMultipartUpload, 1)
    assert.ok(document.requests.total < 120, JSON.stringify(document.requests))
  })

  test('says that a new bucket has no image yet', async () => {
    const { step } = await doctor({ path: '' })
    assert.equal(step('list').details.hasImages, false)
  })

  test('says that the secret key is wrong', async () => {
    const keys = { ...ceph().keys, secretAccessKey: 'a-very-secret-thing' }
    const { code, having, step } = await doctor({ keys })
    assert.equal(code, 1)
    assert.deepEqual(having('failed'), ['list'])
    assert.equal(step('list').details.code, 'TARGET_SIGNATURE')
    assert.match(step('list').hint, /AWS_SECRET_ACCESS_KEY/)
    assert.equal(step('put').verdict, 'skipped')
    assert.equal(step('clock').verdict, 'ok')
  })

  test('says that the bucket does not exist', async () => {
    const { code, having, step } = await run({ bucket: 'no-such-bucket' })
    assert.equal(code, 1)
    assert.deepEqual(having('failed'), ['list'])
    assert.equal(step('list').details.code, 'TARGET_NOT_FOUND')
    assert.match(step('list').hint, /make the bucket/)
  })

  const lacking: Record<string, readonly [failed: string, allowed: readonly string[]]> = {
    's3:DeleteObject': ['delete', ['s3:ListBucket', 's3:GetObject', 's3:PutObject']],
    's3:PutObject': ['put', ['s3:ListBucket', 's3:GetObject', 's3:DeleteObject']],
    's3:ListBucket': ['list', ['s3:GetObject', 's3:PutObject', 's3:DeleteObject']],
  }
  for (const [action, [failed, allowed]] of Object.entries(lacking)) {
    test(`says that ${action} is not allowed, and leaves nothing behind`, async () => {
      const user = `lacks-${failed}`
      const keys = await ceph().makeUser(user)
      const bucket = await ceph().admin.makeBucket()
      await ceph().admin.allow(bucket, user, allowed)
      const { code, having, step } = await run({ keys, bucket })
      assert.equal(code, 1)
      assert.ok(having('failed').includes(failed), having('failed').join())
      assert.equal(step(failed).details.code, 'TARGET_FORBIDDEN')
      assert.ok(step(failed).hint.includes(action), step(failed).hint)
      assert.ok(step(failed).hint.includes(`arn:aws:s3:::${bucket}`), step(failed).hint)
      assert.deepEqual(await ceph().admin.keys(bucket), [])
      assert.deepEqual(await ceph().admin.uploads(bucket), [])
      if (failed === 'list') assert.equal(step('get').verdict, 'ok')
    })
  }

  test('says that s3:GetObject is not allowed', async (t) => {
    // on Ceph, who writes an object may read it
    const rule: Rule = ({ operation }) =>
      operation === 'GetObject' ? { kind: 'answer', status: 403, code: 'AccessDenied' } : undefined
    const { code, step } = await doctor({ url: await behind(t, { rule }) })
    assert.equal(code, 1)
    assert.equal(step('get').details.code, 'TARGET_FORBIDDEN')
    assert.match(step('get').hint, /s3:GetObject/)
    assert.equal(step('throughput').verdict, 'skipped')
  })

  const ignoring: Record<string, Fault> = {
    // without the error document that would come with a 200
    ignores: { kind: 'answer', status: 204, code: 'None' },
    refuses: { kind: 'answer', status: 501, code: 'NotImplemented' },
  }
  for (const [does, fault] of Object.entries(ignoring)) {
    test(`warns of racing backups where the server ${does} conditions`, async (t) => {
      const rule: Rule = ({ headers }) =>
        headers['if-none-match'] !== undefined || headers['if-match'] !== undefined
          ? fault
          : undefined
      const { code, having, step } = await doctor({ url: await behind(t, { rule }) })
      assert.equal(code, 0)
      assert.deepEqual(having('warning'), ['create once', 'replace known'])
      assert.match(step('create once').message, /two racing backups of one name may overwrite/)
    })
  }

  test('warns that objects are removed one by one where there is no batch', async (t) => {
    const url = await behind(t, { profile: 'no-delete-objects' })
    const { code, having, document } = await doctor({ url })
    assert.equal(code, 0)
    assert.deepEqual(having('warning'), ['batch delete'])
    assert.ok(document.requests.DeleteObject > 3)
  })

  test('warns where a server takes what was changed on the way', async (t) => {
    const rule: Rule = ({ key }) =>
      key.endsWith('wrong-md5') ? { kind: 'answer', status: 204, code: 'None' } : undefined
    const { code, having, step } = await doctor({ url: await behind(t, { rule }) })
    assert.equal(code, 0)
    assert.deepEqual(having('warning'), ['upload check'])
    assert.match(step('upload check').message, /does not check uploads/)
  })

  test('warns where uploads in parts do not work, and gives up what it began', async (t) => {
    const rule: Rule = ({ operation }) =>
      operation === 'UploadPart' ? { kind: 'answer', status: 403, code: 'AccessDenied' } : undefined
    const { code, having, step } = await doctor({ url: await behind(t, { rule }) })
    assert.equal(code, 0)
    assert.deepEqual(having('warning'), ['multipart'])
    assert.match(step('multipart').hint, /5 GiB/)
  })

  test('names the region that the bucket is in', async (t) => {
    const headers = { 'x-amz-bucket-region': 'eu-west-1' }
    const rule: Rule = () => ({ kind: 'answer', status: 301, code: 'PermanentRedirect', headers })
    const { code, step } = await doctor({ url: await behind(t, { rule }) })
    assert.equal(code, 1)
    assert.equal(step('list').details.code, 'TARGET_WRONG_REGION')
    assert.match(step('list').hint, /s3:\/\/b-[0-9a-f]+@eu-west-1\/a path\/in it/)
  })

  test('says which setting a server refuses', async () => {
    const { code, having, step } = await doctor({ env: { DROVER_S3_STORAGE_CLASS: 'FOREVER' } })
    assert.equal(code, 1)
    assert.deepEqual(having('failed'), ['put'])
    assert.match(step('put').hint, /DROVER_S3_STORAGE_CLASS/)
    assert.match(step('settings').message, /storage class FOREVER/)
  })

  test('says that there are no credentials, and looks at the way to the server all the same', async () => {
    const env = { AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: '' }
    const { code, having, step } = await doctor({ env })
    assert.equal(code, 1)
    assert.deepEqual(having('failed'), ['credentials'])
    assert.match(step('credentials').hint, /AWS_ACCESS_KEY_ID/)
    assert.equal(step('connection').verdict, 'ok')
    assert.equal(step('list').verdict, 'skipped')
  })

  test('says where keys come from, and until when they are good', async (t) => {
    const { keys } = ceph()
    const expected = { roleArn: 'arn:aws:iam::123456789012:role/backups', token: 'header.body.sig' }
    const tokenFile = join(await tempFolder(t), 'token')
    await writeFile(tokenFile, expected.token)
    const metadata = await startMetadata(keys)
    const agent = await startContainerAgent(keys, 'let-me-in')
    const service = await startTokenService(keys, expected)
    for (const { stop } of [metadata, agent, service]) t.after(() => stop())
    const sources: ReadonlyArray<readonly [RegExp, Record<string, string>]> = [
      [
        /this machine/,
        { AWS_EC2_METADATA_DISABLED: '', AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.url },
      ],
      [
        /container or pod/,
        {
          AWS_CONTAINER_CREDENTIALS_FULL_URI: `${agent.url}/v1/credentials`,
          AWS_CONTAINER_AUTHORIZATION_TOKEN: 'let-me-in',
        },
      ],
      [
        /web identity/,
        {
          AWS_REGION: 'us-east-1',
          AWS_ENDPOINT_URL_STS: service.url,
          AWS_ROLE_ARN: expected.roleArn,
          AWS_WEB_IDENTITY_TOKEN_FILE: tokenFile,
        },
      ],
    ]
    for (const [source, env] of sources) {
      const none = { AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: '' }
      const { code, document, step } = await doctor({ env: { ...none, ...env } })
      assert.equal(code, 0, JSON.stringify(document))
      const { message, details } = step('credentials')
      assert.match(message, source)
      assert.match(message, /with a session token, until /)
      assert.ok(Date.parse(details.expiresAt) > Date.now())
      assert.ok(!JSON.stringify(document).includes('the-session'))
    }
  })

  test('says that the clock is wrong, and by how much', async (t) => {
    const date = new Date(Date.now() + 20 * 60_000).toUTCString()
    const rule: Rule = () => ({
      kind: 'answer',
      status: 403,
      code: 'RequestTimeTooSkewed',
      headers: { date },
    })
    const env = { DROVER_CALL_TIMEOUT: '3s' }
    const { code, step } = await doctor({ url: await behind(t, { rule }), env })
    assert.equal(code, 1)
    assert.equal(step('list').details.code, 'TARGET_CLOCK_SKEW')
    assert.equal(step('clock').verdict, 'failed')
    assert.match(step('clock').message, /(19m\d+s|20m0s) behind the server's/)
  })

  test('says that nothing listens there', async () => {
    const { code, having, step } = await doctor({ url: `http://127.0.0.1:${await freePort()}` })
    assert.equal(code, 1)
    assert.deepEqual(having('failed'), ['connection'])
    assert.match(step('connection').message, /nothing listens/)
    assert.match(step('connection').hint, /AWS_ENDPOINTS/)
    assert.deepEqual(having('ok'), ['settings', 'credentials'])
  })

  test('says that the name of a server is not known', async () => {
    const { code, having } = await doctor({ url: 'http://nowhere.invalid:7480' })
    assert.equal(code, 1)
    assert.deepEqual(having('failed'), ['name resolution'])
  })

  test('ends within its deadline where a server accepts and does not answer', async (t) => {
    const rule: Rule = () => ({ kind: 'delay', direction: 'request', ms: 60_000 })
    const env = { DROVER_CALL_TIMEOUT: '2s' }
    const { code, having, document } = await doctor({ url: await behind(t, { rule }), env })
    assert.equal(code, 1)
    assert.deepEqual(having('failed'), ['list'])
    assert.ok(document.seconds < 8, `${document.seconds} s`)
  })

  test('says whose certificate is not trusted, and trusts it with AWS_CERT', async () => {
    const { secure } = ceph()
    assert.ok(secure)
    const untrusted = await doctor({ url: secure.url })
    assert.equal(untrusted.code, 1)
    assert.deepEqual(untrusted.having('failed'), ['connection'])
    assert.equal(untrusted.step('connection').details.code, 'TARGET_UNTRUSTED')
    assert.match(untrusted.step('connection').message, /a test authority/)
    assert.match(untrusted.step('connection').hint, /AWS_CERT/)
    const trusted = await doctor({ url: secure.url, env: { AWS_CERT: secure.caPem } })
    assert.equal(trusted.code, 0)
    const { details } = trusted.step('connection')
    assert.match(details.protocol, /^TLSv1\.[23]$/)
    assert.ok(details.daysLeft >= 28 && details.daysLeft <= 30)
  })

  test('goes through a proxy, and never tells its password', async (t) => {
    const proxy = await startForwardProxy('user:the-password-of-it')
    t.after(() => proxy.stop())
    const { code, having, step, document } = await doctor({ env: { HTTP_PROXY: proxy.url } })
    assert.equal(code, 0)
    assert.deepEqual(having('skipped'), ['name resolution', 'connection'])
    assert.match(step('settings').message, /proxy http:\/\/127\.0\.0\.1:\d+/)
    assert.ok(!JSON.stringify(document).includes('the-password-of-it'))
    assert.ok(proxy.requests.length > 20)
  })

  test('leaves nothing behind when it is interrupted', async () => {
    const { admin, url, keys } = ceph()
    const bucket = await admin.makeBucket()
    const args = ['doctor', '--target', `s3://${bucket}/`, '--json']
    const { child, done } = startDrover(args, { env: environmentFor({ url, keys }) })
    await waitUntil(async () => (await admin.keys(bucket)).length > 0, 'something was written')
    child.kill('SIGINT')
    const outcome = await done
    assert.equal(outcome.code, 130)
    assert.equal(outcome.json().error.code, 'INTERRUPTED')
    assert.deepEqual(await admin.keys(bucket), [])
    assert.deepEqual(await admin.uploads(bucket), [])
  })
})

const versity = await buildVersity()
describe(
  'drover doctor on another server',
  { skip: typeof versity === 'string' && versity },
  () => {
    test('finds nothing that keeps it from working', async (t) => {
      assert.ok(typeof versity === 'object')
      const server = await startVersity(versity)
      t.after(() => server.stop())
      t.after(() => server.admin.close())
      const bucket = await server.admin.makeBucket()
      const args = ['doctor', '--target', `s3://${bucket}/`, '--json', '--quiet']
      const { code, stdout, stderr } = await startDrover(args, { env: environmentFor(server) }).done
      assert.equal(code, 0, stdout + stderr)
      assert.deepEqual(await server.admin.keys(bucket), [])
    })
  },
)

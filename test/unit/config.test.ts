import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { DEFAULT_CALL_TIMEOUT_MS, DEFAULT_MOUNT_DIR, storageSettings } from '../../src/config.ts'
import { isDroverError } from '../../src/lib/errors.ts'

const settings = (env: Record<string, string | undefined>) => storageSettings(env, 2)
const s3 = (env: Record<string, string | undefined>) => settings(env).s3

const PEM = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----'

describe('the environment', () => {
  it('may be empty: then there are defaults, and the credentials are left to the SDK', () => {
    assert.deepEqual(settings({}), {
      callTimeoutMs: DEFAULT_CALL_TIMEOUT_MS,
      concurrency: 2,
      nfs: { mountDir: DEFAULT_MOUNT_DIR },
      s3: {
        credentials: undefined,
        region: undefined,
        endpoint: undefined,
        ca: undefined,
        proxy: {},
        virtualHosted: true,
        encryption: undefined,
        storageClass: undefined,
      },
    })
  })

  it('is trimmed, because what comes from a Secret often ends in a newline', () => {
    const found = s3({
      AWS_ACCESS_KEY_ID: 'AK\n',
      AWS_SECRET_ACCESS_KEY: ' SK\r\n',
      AWS_SESSION_TOKEN: 'T\n',
      AWS_ENDPOINTS: 'https://s3.example.com:9000/\n',
      AWS_REGION: ' eu-1\n',
      AWS_CERT: `\n${PEM}\n`,
      VIRTUAL_HOSTED_STYLE: 'true\n',
      HTTPS_PROXY: 'http://proxy:3128\n',
      NO_PROXY: ' a,b\n',
      DROVER_S3_SSE: 'aws:kms\n',
      DROVER_S3_SSE_KMS_KEY_ID: 'key\n',
      DROVER_S3_STORAGE_CLASS: 'STANDARD_IA\n',
    })
    assert.deepEqual(found, {
      credentials: { accessKeyId: 'AK', secretAccessKey: 'SK', sessionToken: 'T' },
      region: 'eu-1',
      endpoint: 'https://s3.example.com:9000',
      ca: PEM,
      proxy: { HTTPS_PROXY: 'http://proxy:3128/', NO_PROXY: 'a,b' },
      virtualHosted: true,
      encryption: { kind: 'aws:kms', keyId: 'key' },
      storageClass: 'STANDARD_IA',
    })
  })

  it('counts an empty variable, or one of spaces, as not set', () => {
    const names = ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_ENDPOINTS', 'AWS_CERT']
    const more = ['DROVER_CALL_TIMEOUT', 'DROVER_MOUNT_DIR', 'VIRTUAL_HOSTED_STYLE', 'HTTP_PROXY']
    for (const value of ['', ' ', '\n']) {
      const env = Object.fromEntries([...names, ...more].map((name) => [name, value]))
      assert.deepEqual(settings(env), settings({}))
    }
  })

  it('asks for path style where an endpoint is given, unless it is told otherwise', () => {
    const AWS_ENDPOINTS = 'http://10.0.0.1:9000'
    assert.equal(s3({ AWS_ENDPOINTS }).virtualHosted, false)
    assert.equal(s3({ AWS_ENDPOINTS, VIRTUAL_HOSTED_STYLE: 'TRUE' }).virtualHosted, true)
    assert.equal(s3({ VIRTUAL_HOSTED_STYLE: 'false' }).virtualHosted, false)
  })

  it('takes any storage class whose objects can be read at once', () => {
    for (const name of ['GLACIER_IR', 'STANDARD_IA', 'ONEZONE_IA']) {
      assert.equal(s3({ DROVER_S3_STORAGE_CLASS: name }).storageClass, name)
    }
  })

  it('takes certificates as PEM and as base64 of PEM', () => {
    assert.equal(s3({ AWS_CERT: PEM }).ca, PEM)
    assert.equal(s3({ AWS_CERT: Buffer.from(PEM).toString('base64') }).ca, PEM)
  })

  it('knows a proxy by either case of its variable, and without a scheme', () => {
    assert.deepEqual(s3({ http_proxy: 'proxy:1', no_proxy: 'x' }).proxy, {
      HTTP_PROXY: 'http://proxy:1/',
      NO_PROXY: 'x',
    })
  })

  it('takes the region of either variable, the more specific one first', () => {
    assert.equal(s3({ AWS_DEFAULT_REGION: 'a' }).region, 'a')
    assert.equal(s3({ AWS_DEFAULT_REGION: 'a', AWS_REGION: 'b' }).region, 'b')
  })

  const wrong: Readonly<Record<string, readonly [Record<string, string>, RegExp]>> = {
    'a key without its secret': [
      { AWS_ACCESS_KEY_ID: 'AK' },
      /AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not: expected both or none/,
    ],
    'a secret without its key': [{ AWS_SECRET_ACCESS_KEY: 'hidden' }, /expected both or none/],
    'an endpoint without a scheme': [
      { AWS_ENDPOINTS: 's3.example.com' },
      /AWS_ENDPOINTS: expected/,
    ],
    'an endpoint with a password': [
      { AWS_ENDPOINTS: 'https://me:hidden@s3.example.com' },
      /without a user/,
    ],
    'an endpoint with a query': [{ AWS_ENDPOINTS: 'https://h/?x=hidden' }, /or a query/],
    'certificates that are none': [{ AWS_CERT: 'hidden' }, /AWS_CERT: expected certificates/],
    'a flag that is none': [{ VIRTUAL_HOSTED_STYLE: 'yes' }, /"true" or "false", got "yes"/],
    'a flag that is none, even one without effect': [
      { AWS_SIGN_ACCEPT_ENCODING: '0' },
      /AWS_SIGN_ACCEPT_ENCODING: expected "true" or "false"/,
    ],
    'a proxy that is no URL': [
      { HTTPS_PROXY: 'socks5://u:hidden@h' },
      /HTTPS_PROXY: expected the URL/,
    ],
    'an unknown encryption': [{ DROVER_S3_SSE: 'rot13' }, /"AES256" or "aws:kms", got "rot13"/],
    'a key for another encryption': [
      { DROVER_S3_SSE: 'AES256', DROVER_S3_SSE_KMS_KEY_ID: 'k' },
      /expected "aws:kms" beside DROVER_S3_SSE_KMS_KEY_ID/,
    ],
    'a storage class that is no word': [
      { DROVER_S3_STORAGE_CLASS: 'a b' },
      /STORAGE_CLASS: expected/,
    ],
    'a storage class that is read after hours': [
      { DROVER_S3_STORAGE_CLASS: 'GLACIER' },
      /read at once.*GLACIER_IR.*got "GLACIER"/,
    ],
    'the deepest storage class': [
      { DROVER_S3_STORAGE_CLASS: 'DEEP_ARCHIVE' },
      /read at once.*got "DEEP_ARCHIVE"/,
    ],
    'a deadline without sense': [{ DROVER_CALL_TIMEOUT: 'soon' }, /from 1s to 1h, got "soon"/],
    'a deadline of nothing': [{ DROVER_CALL_TIMEOUT: '0' }, /from 1s to 1h/],
    'a deadline of days': [{ DROVER_CALL_TIMEOUT: '2d' }, /from 1s to 1h/],
    'a relative folder': [{ DROVER_MOUNT_DIR: 'mounts' }, /an absolute path, got "mounts"/],
  }
  for (const [what, [env, says]] of Object.entries(wrong)) {
    it(`refuses ${what}, says what was expected, and shows no secret`, () => {
      assert.throws(
        () => settings(env),
        (error) => {
          assert.ok(isDroverError(error, 'INVALID_CONFIG'), String(error))
          assert.match(error.message, says)
          assert.doesNotMatch(JSON.stringify([error.message, error.details]), /hidden/)
          return true
        },
      )
    })
  }
})

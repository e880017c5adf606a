/** Where a program in a cloud gets its keys from: each of these hands out the keys it is given. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import { text } from 'node:stream/consumers'
import type { S3Keys } from './admin.ts'

export interface RoleEndpoint {
  readonly url: string
  /** Method and path of each request, and its body. */
  readonly seen: ReadonlyArray<{ readonly line: string; readonly body: string }>
  readonly stop: () => Promise<void>
}

interface Answer {
  readonly status: number
  readonly type?: string
  readonly body?: string
}

/** What such a service says of the keys: they are for an hour. */
const lease = ({ accessKeyId, secretAccessKey }: S3Keys) => ({
  AccessKeyId: accessKeyId,
  SecretAccessKey: secretAccessKey,
  Token: 'the-session',
  Expiration: new Date(Date.now() + 3_600_000).toISOString(),
})

/** The metadata service of a virtual machine, version 2: `AWS_EC2_METADATA_SERVICE_ENDPOINT`. */
export function startMetadata(keys: S3Keys): Promise<RoleEndpoint> {
  const ROLES = '/latest/meta-data/iam/security-credentials/'
  return start(({ method, url = '', headers }) => {
    if (method === 'PUT' && url === '/latest/api/token') {
      const hasTtl = headers['x-aws-ec2-metadata-token-ttl-seconds'] !== undefined
      return hasTtl ? { status: 200, body: 'a-token' } : { status: 400 }
    }
    if (headers['x-aws-ec2-metadata-token'] !== 'a-token') return { status: 401 }
    if (url === ROLES) return { status: 200, body: 'the-role' }
    if (url === `${ROLES}the-role`)
      return json({ Code: 'Success', Type: 'AWS-HMAC', ...lease(keys) })
    return { status: 404 }
  })
}

/**
 * The service that exchanges a web identity for a role: `AWS_ENDPOINT_URL_STS`, with
 * `AWS_ROLE_ARN` and `AWS_WEB_IDENTITY_TOKEN_FILE`.
 */
export function startTokenService(
  keys: S3Keys,
  expected: { readonly roleArn: string; readonly token: string },
): Promise<RoleEndpoint> {
  return start((_request, body) => {
    const form = new URLSearchParams(body)
    const asked = form.get('Action') === 'AssumeRoleWithWebIdentity'
    const known = form.get('RoleArn') === expected.roleArn
    if (!asked || !known || form.get('WebIdentityToken') !== expected.token) {
      return xml(
        400,
        '<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>',
      )
    }
    const { AccessKeyId, SecretAccessKey, Token, Expiration } = lease(keys)
    return xml(
      200,
      `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>${AccessKeyId}</AccessKeyId>
<SecretAccessKey>${SecretAccessKey}</SecretAccessKey><SessionToken>${Token}</SessionToken>
<Expiration>${Expiration}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>`,
    )
  })
}

/**
 * The agent beside a container: `AWS_CONTAINER_CREDENTIALS_FULL_URI`, with
 * `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
 */
export function startContainerAgent(keys: S3Keys, token: string): Promise<RoleEndpoint> {
  return start(({ headers }) =>
    headers.authorization === token ? json(lease(keys)) : { status: 403 },
  )
}

const json = (value: unknown): Answer => ({
  status: 200,
  type: 'application/json',
  body: JSON.stringify(value),
})

const xml = (status: number, body: string): Answer => ({ status, type: 'text/xml', body })

async function start(
  respond: (request: IncomingMessage, body: string) => Answer,
): Promise<RoleEndpoint> {
  const seen: Array<{ line: string; body: string }> = []
  const serve = async (request: IncomingMessage, response: ServerResponse) => {
    const sent = await text(request)
    seen.push({ line: `${request.method} ${request.url}`, body: sent })
    const { status, type = 'text/plain', body = '' } = respond(request, sent)
    response.writeHead(status, { 'content-type': type }).end(body)
  }
  const server = createServer((request, response) => {
    serve(request, response).catch(() => response.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0
  return {
    url: `http://127.0.0.1:${port}`,
    seen,
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}

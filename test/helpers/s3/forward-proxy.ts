/** A proxy as companies have them: named by HTTP_PROXY and HTTPS_PROXY, and used on purpose. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, request as httpRequest } from 'node:http'
import type { Socket } from 'node:net'
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import type { SocketCounts } from './tcp-proxy.ts'
import { countSockets } from './tcp-proxy.ts'

export interface ForwardProxy {
  readonly url: string
  /** URLs asked for through it, `http:` ones each, and host and port of each tunnel. */
  readonly requests: readonly string[]
  readonly tunnels: readonly string[]
  readonly sockets: () => SocketCounts
  readonly stop: () => Promise<void>
}

/** All names that end in `.localhost` are this machine, whatever its resolver says. */
const addressOf = (host: string): string => (host.endsWith('.localhost') ? '127.0.0.1' : host)

/** @param login `user:password` that it asks for */
export async function startForwardProxy(login?: string): Promise<ForwardProxy> {
  const requests: string[] = []
  const tunnels: string[] = []
  const sockets = countSockets()
  const expected = login && `Basic ${Buffer.from(login).toString('base64')}`
  const allowed = ({ headers }: IncomingMessage): boolean =>
    expected === undefined || headers['proxy-authorization'] === expected

  const server = createServer((incoming: IncomingMessage, answer: ServerResponse) => {
    const url = URL.parse(incoming.url ?? '')
    if (!allowed(incoming) || !url) {
      answer.writeHead(url ? 407 : 400).end()
      return
    }
    requests.push(url.href)
    const forwarded = httpRequest({
      host: addressOf(url.hostname),
      port: url.port || 80,
      method: incoming.method,
      path: url.pathname + url.search,
      headers: [...incoming.rawHeaders],
    })
    forwarded.on('error', () => incoming.socket.destroy())
    forwarded.on('response', (response) => {
      answer.writeHead(response.statusCode ?? 502, [...response.rawHeaders])
      response.pipe(answer)
    })
    answer.on('close', () => forwarded.destroy())
    incoming.pipe(forwarded)
  })
  server.on('connect', (incoming: IncomingMessage, client: Duplex, head: Buffer) => {
    const target = URL.parse(`http://${incoming.url}`)
    if (!allowed(incoming) || !target) {
      client.end(`HTTP/1.1 ${target ? 407 : 400} no\r\n\r\n`)
      return
    }
    tunnels.push(target.host)
    const upstream: Socket = connect(Number(target.port || 443), addressOf(target.hostname))
    const end = () => {
      client.destroy()
      upstream.destroy()
    }
    upstream.on('connect', () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n')
      upstream.write(head)
      client.pipe(upstream).pipe(client)
    })
    for (const side of [client, upstream]) side.on('error', end).on('close', end)
  })
  server.on('connection', sockets.add)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0
  return {
    url: `http://${login ? `${login}@` : ''}127.0.0.1:${port}`,
    requests,
    tunnels,
    sockets: sockets.counts,
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve))
      sockets.destroyAll()
      await closed
    },
  }
}

/**
 * A proxy between a client and an S3 server that knows requests: it counts them, and lets happen
 * to each what a rule says. The client takes the proxy for the server; its Host header, which the
 * signature covers, is forwarded as it came.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Agent, createServer, request as httpRequest } from 'node:http'
import type { Readable } from 'node:stream'
import { DNS_NAME, KEYS } from './names.ts'
import type { Direction, Fault, Rule } from './faults.ts'
import type { S3Request } from './operation.ts'
import { s3Request } from './operation.ts'
import type { Profile } from './profiles.ts'
import { flipping, resetSocket, stoppingAt } from './streams.ts'
import { signedAgain } from './sign.ts'
import type { SocketCounts } from './tcp-proxy.ts'
import { countSockets } from './tcp-proxy.ts'

export interface SeenRequest extends S3Request {
  /** Names and values in turns, as they came. */
  readonly rawHeaders: readonly string[]
  /** When it came, by `performance.now()`. */
  readonly atMs: number
  /** When its answer was over, or its connection. */
  readonly endedMs?: number
  /** Of the answer that was passed on; absent until there is one. */
  readonly status?: number
  readonly fault?: Fault['kind']
  /** The client went away before it had the whole answer. */
  readonly abandoned?: true
}

export interface FaultProxyOptions {
  readonly rule?: Rule
  /** What kind of server the proxy pretends to be. */
  readonly profile?: Profile
}

export interface FaultProxy {
  readonly url: string
  readonly port: number
  /** All requests so far, in order. */
  readonly seen: readonly SeenRequest[]
  /** How many of each operation. */
  readonly counts: () => Record<string, number>
  readonly sockets: () => SocketCounts
  /** Requests that wait for their answer now. */
  readonly underWay: () => number
  readonly setRule: (rule: Rule | undefined) => void
  readonly setProfile: (profile: Profile | undefined) => void
  /** Forgets what it has seen. */
  readonly forget: () => void
  readonly stop: () => Promise<void>
}

const NO_TIMEOUT = { requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 120_000 }

export async function startFaultProxy(
  targetPort: number,
  options: FaultProxyOptions = {},
): Promise<FaultProxy> {
  let { rule, profile } = options
  const seen: SeenRequest[] = []
  let number = 0
  let underWay = 0
  const sockets = countSockets()
  const agent = new Agent({ keepAlive: true })

  const handle = (incoming: IncomingMessage, answer: ServerResponse) => {
    underWay += 1
    number += 1
    const { method = '', url = '/', headers, rawHeaders } = incoming
    const request = s3Request(method, url, headers, DNS_NAME)
    const fault = profile?.answer?.(request) ?? rule?.(request, number)
    const entry: Mutable<SeenRequest> = {
      ...request,
      rawHeaders: [...rawHeaders],
      atMs: performance.now(),
    }
    if (fault) entry.fault = fault.kind
    seen.push(entry)
    answer.sendDate = false
    answer.on('close', () => {
      underWay -= 1
      entry.endedMs = performance.now()
      if (answer.headersSent) entry.status = answer.statusCode
      if (!answer.writableFinished) entry.abandoned = true
    })
    const changed = profile?.headers?.(rawHeaders) ?? rawHeaders
    const raw = profile?.signsAgain ? signedAgain(method, url, changed, KEYS) : changed
    new Exchange(incoming, answer, fault).run({ targetPort, agent, method, url, raw })
  }
  const server = createServer(NO_TIMEOUT, handle)
  server.on('checkContinue', (incoming: IncomingMessage, answer: ServerResponse) => {
    answer.writeContinue()
    handle(incoming, answer)
  })
  server.on('connection', sockets.add)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    seen,
    counts: () => countBy(seen),
    sockets: sockets.counts,
    underWay: () => underWay,
    setRule: (next) => (rule = next),
    setProfile: (next) => (profile = next),
    forget: () => void seen.splice(0),
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve))
      sockets.destroyAll()
      agent.destroy()
      await closed
    },
  }
}

type Mutable<T> = { -readonly [Name in keyof T]: T[Name] }

function countBy(seen: readonly SeenRequest[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { operation } of seen) counts[operation] = (counts[operation] ?? 0) + 1
  return counts
}

interface Upstream {
  readonly targetPort: number
  readonly agent: Agent
  readonly method: string
  readonly url: string
  readonly raw: readonly string[]
}

/** One request and what becomes of it. */
class Exchange {
  readonly #incoming: IncomingMessage
  readonly #answer: ServerResponse
  readonly #fault: Fault | undefined
  #endUpstream = (): void => undefined

  constructor(incoming: IncomingMessage, answer: ServerResponse, fault: Fault | undefined) {
    this.#incoming = incoming
    this.#answer = answer
    this.#fault = fault
    incoming.on('error', () => this.#endUpstream())
    answer.on('error', () => this.#endUpstream())
  }

  run(upstream: Upstream): void {
    const fault = this.#fault
    if (fault?.kind === 'answer') this.#answerItself(fault)
    else if (fault?.kind === 'delay' && fault.direction === 'request') {
      setTimeout(() => this.#forward(upstream), fault.ms).unref()
    } else this.#forward(upstream)
  }

  #answerItself({ status, code, headers = {} }: Fault & { kind: 'answer' }): void {
    const send = () => {
      const text = this.#incoming.method === 'HEAD' ? '' : errorDocument(code)
      this.#answer.writeHead(status, {
        'content-type': 'application/xml',
        ...(text ? { 'content-length': String(Buffer.byteLength(text)) } : {}),
        date: new Date().toUTCString(),
        ...headers,
      })
      this.#answer.end(text)
    }
    if (this.#incoming.readableEnded) send()
    else this.#incoming.on('end', send).resume()
  }

  #forward({ targetPort: port, agent, method, url: path, raw }: Upstream): void {
    if (this.#answer.destroyed) return
    const headers = [...raw]
    const forwarded = httpRequest({ host: '127.0.0.1', port, agent, method, path, headers })
    this.#endUpstream = () => void forwarded.destroy()
    this.#answer.on('close', () => {
      if (!this.#answer.writableFinished) forwarded.destroy()
    })
    forwarded.on('error', () => this.#reset())
    forwarded.on('response', (response) => this.#respond(response))
    this.#through(this.#incoming, 'request').pipe(forwarded)
  }

  #respond(response: IncomingMessage): void {
    const fault = this.#fault
    if (fault?.kind === 'answer-after') {
      response.on('end', () => this.#answerItself({ ...fault, kind: 'answer' })).resume()
      return
    }
    const answer = this.#answer
    const pass = () => {
      if (answer.destroyed) return
      answer.writeHead(response.statusCode ?? 502, response.statusMessage, [...response.rawHeaders])
      // a fault in the middle of a body needs the head to be on its way
      answer.flushHeaders()
      const body = this.#through(response, 'response')
      // the server went away in the middle: so does the proxy
      response.on('aborted', () => this.#reset())
      body.pipe(answer)
    }
    if (fault?.kind === 'delay' && fault.direction === 'response')
      setTimeout(pass, fault.ms).unref()
    else pass()
  }

  #through(bytes: IncomingMessage, direction: Direction): Readable {
    const fault = this.#fault
    if (!fault || !('direction' in fault) || fault.direction !== direction) return bytes
    switch (fault.kind) {
      case 'reset':
        return bytes.pipe(stoppingAt(fault.atByte, () => this.#reset()))
      case 'cut':
        return bytes.pipe(stoppingAt(fault.atByte, () => this.#close()))
      case 'stall':
        return bytes.pipe(stoppingAt(fault.atByte, () => undefined, direction === 'request'))
      case 'flip':
        return bytes.pipe(flipping(fault.atByte))
      case 'delay':
        return bytes
    }
  }

  #reset(): void {
    this.#endUpstream()
    resetSocket(this.#incoming.socket)
  }

  #close(): void {
    this.#endUpstream()
    const { socket } = this.#incoming
    socket.end(() => socket.destroy())
  }
}

const errorDocument = (code: string): string =>
  `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${code}, says the ` +
  `proxy</Message><RequestId>proxy</RequestId></Error>`

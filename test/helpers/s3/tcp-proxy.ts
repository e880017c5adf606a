/** A proxy that knows bytes only: delay, slow accepts, and connections that break at a byte. */
import type { Socket } from 'node:net'
import { connect, createServer } from 'node:net'
import type { Readable } from 'node:stream'
import type { Direction } from './faults.ts'
import { delayed, flipping, resetSocket, stoppingAt } from './streams.ts'

/** What happens to a connection. */
export interface ConnectionPlan {
  /** It is accepted, and served so much later. */
  readonly acceptMs?: number
  /** Every byte arrives so much later; the bandwidth is not limited. */
  readonly requestMs?: number
  readonly responseMs?: number
  readonly fault?: {
    readonly kind: 'reset' | 'cut' | 'stall' | 'flip'
    readonly direction: Direction
    /** Of all that goes this way on the connection, headers included. */
    readonly atByte: number
  }
}

export interface SocketCounts {
  /** All connections so far. */
  readonly accepted: number
  readonly open: number
  /** The most that were open at once. */
  readonly peak: number
}

export interface TcpProxy {
  readonly url: string
  readonly port: number
  readonly sockets: () => SocketCounts
  readonly stop: () => Promise<void>
}

/** @param plan asked for each connection; the number counts them from 1 */
export async function startTcpProxy(
  targetPort: number,
  plan: (connection: number) => ConnectionPlan = () => ({}),
): Promise<TcpProxy> {
  const counter = countSockets()
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    counter.add(client)
    const { acceptMs = 0, ...rest } = plan(counter.counts().accepted)
    const serve = () => pass(client, targetPort, rest)
    if (acceptMs > 0) setTimeout(serve, acceptMs).unref()
    else serve()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    sockets: counter.counts,
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve))
      counter.destroyAll()
      await closed
    },
  }
}

function pass(client: Socket, targetPort: number, plan: Omit<ConnectionPlan, 'acceptMs'>): void {
  if (client.destroyed) return
  const server = connect({
    port: targetPort,
    host: '127.0.0.1',
    allowHalfOpen: true,
    noDelay: true,
  })
  const end = () => {
    client.destroy()
    server.destroy()
  }
  const reset = () => {
    resetSocket(client)
    resetSocket(server)
  }
  client.on('error', () => server.destroy())
  server.on('error', () => resetSocket(client))
  client.on('close', () => server.destroy())
  server.on('close', () => client.destroy())

  const way = (from: Socket, to: Socket, direction: Direction, ms = 0) => {
    let bytes: Readable = from
    const { fault } = plan
    if (fault?.direction === direction) {
      const { kind, atByte } = fault
      if (kind === 'flip') bytes = bytes.pipe(flipping(atByte))
      else {
        const act = { reset, cut: end, stall: () => undefined }[kind]
        bytes = bytes.pipe(stoppingAt(atByte, act, direction === 'request'))
      }
    }
    if (ms > 0) bytes = bytes.pipe(delayed(ms))
    bytes.pipe(to)
  }
  way(client, server, 'request', plan.requestMs)
  way(server, client, 'response', plan.responseMs)
}

/** Keeps count of the sockets of a server. */
export function countSockets(): {
  readonly add: (socket: Socket) => void
  readonly counts: () => SocketCounts
  readonly destroyAll: () => void
} {
  const open = new Set<Socket>()
  let accepted = 0
  let peak = 0
  return {
    add(socket) {
      accepted += 1
      open.add(socket)
      peak = Math.max(peak, open.size)
      socket.on('close', () => open.delete(socket))
    },
    counts: () => ({ accepted, open: open.size, peak }),
    destroyAll() {
      for (const socket of open) socket.destroy()
    },
  }
}

/** Lets a guest do to the servers on its host what only the host can do: over HTTP, on loopback. */
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { createServer } from 'node:http'
import { text } from 'node:stream/consumers'
import type { TestContext } from 'node:test'
import type { Faults, Ganesha, Manners } from './ganesha.ts'
import { HOST } from './uml.ts'

/** A server as a guest knows it. */
export interface RemoteServer extends Faults {
  readonly port: number
  /** The folder of the host that clients see as /export. */
  exported(): Promise<string>
}

type Facts = Pick<Ganesha, 'port' | 'exported'>

interface Control {
  readonly port: number
  readonly servers: Readonly<Record<string, Facts>>
}

/** @returns what `remoteServer` needs, in the guest */
export async function serveControl(
  t: Pick<TestContext, 'after'>,
  servers: Readonly<Record<string, Ganesha>>,
): Promise<string> {
  const http = createServer((request, response) => {
    answer(request, servers).then(
      () => response.end(),
      (error: unknown) => response.writeHead(500).end(String(error)),
    )
  })
  t.after(() => {
    http.closeAllConnections()
    http.close()
  })
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  const address = http.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const facts = Object.entries(servers).map(([name, { port, exported }]) => [
    name,
    { port, exported },
  ])
  const control: Control = { port: address.port, servers: Object.fromEntries(facts) }
  return JSON.stringify(control)
}

async function answer(
  request: IncomingMessage,
  servers: Readonly<Record<string, Ganesha>>,
): Promise<void> {
  const [name = '', verb] = (request.url ?? '').slice(1).split('/')
  const server = servers[name]
  if (!server) throw new Error(`no server ${name}`)
  const given = await text(request)
  switch (verb as keyof Faults) {
    case 'kill':
      return server.kill()
    case 'start':
      return server.start(given === '' ? undefined : (JSON.parse(given) as Manners))
    case 'pause':
      return server.pause()
    case 'resume':
      return server.resume()
    case 'replaceExport':
      return server.replaceExport()
    case 'untilMoreFiles': {
      const { path, more } = JSON.parse(given) as { path: string; more: number }
      return server.untilMoreFiles(path, more)
    }
  }
}

/** In the guest: a server of its host. */
export function remoteServer(control: string, name: string): RemoteServer {
  const { port, servers } = JSON.parse(control) as Control
  const facts = servers[name]
  if (!facts) throw new Error(`no server ${name}`)
  const tell = async (verb: keyof Faults, given = ''): Promise<void> => {
    const url = `http://${HOST}:${port}/${name}/${verb}`
    const response = await fetch(url, { method: 'POST', body: given })
    const body = await response.text()
    if (!response.ok) throw new Error(`${name}: ${verb}: ${body}`)
  }
  return {
    port: facts.port,
    exported: async () => facts.exported,
    kill: () => tell('kill'),
    start: (manners) => tell('start', manners && JSON.stringify(manners)),
    pause: () => tell('pause'),
    resume: () => tell('resume'),
    replaceExport: () => tell('replaceExport'),
    untilMoreFiles: (path, more) => tell('untilMoreFiles', JSON.stringify({ path, more })),
  }
}

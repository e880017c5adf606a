/** A certificate authority of the test's own, and a server certificate that it signed. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { output } from '../command.ts'

export interface Certificates {
  /** What a client has to trust. */
  readonly caPem: string
  /** Key and certificate of the server. */
  readonly serverPem: string
}

/** @param names DNS names and addresses of the server, as `DNS:*.s3.localhost` or `IP:127.0.0.1` */
export async function makeCertificates(
  folder: string,
  names: readonly string[],
): Promise<Certificates> {
  const path = (name: string) => join(folder, name)
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  // prettier-ignore
  await output('openssl', ['req', '-x509', ...newKey, '-keyout', path('ca.key'), '-out', path('ca.crt'),
    '-days', '30', '-subj', '/CN=a test authority',
    '-addext', 'basicConstraints=critical,CA:true', '-addext', 'keyUsage=critical,keyCertSign'])
  // prettier-ignore
  await output('openssl', ['req', ...newKey, '-keyout', path('server.key'), '-out', path('server.csr'),
    '-subj', '/CN=a test server'])
  const extensions = `subjectAltName=${names.join(',')}\nextendedKeyUsage=serverAuth\n`
  await writeFile(path('server.ext'), extensions)
  // prettier-ignore
  await output('openssl', ['x509', '-req', '-in', path('server.csr'), '-CA', path('ca.crt'),
    '-CAkey', path('ca.key'), '-CAcreateserial', '-days', '30',
    '-extfile', path('server.ext'), '-out', path('server.crt')])
  const read = (name: string) => readFile(path(name), 'utf8')
  return {
    caPem: await read('ca.crt'),
    serverPem: (await read('server.key')) + (await read('server.crt')),
  }
}

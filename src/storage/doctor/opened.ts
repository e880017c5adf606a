import type { Socket } from 'node:net'

/**
 * Waits until a socket is connected.
 * @throws Error with the system's code
 */
export function opened<T extends Socket>(
  socket: T,
  event: 'connect' | 'secureConnect',
  signal: AbortSignal,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => socket.destroy(new Error('given up'))
    signal.addEventListener('abort', onAbort, { once: true })
    socket.once(event, () => resolve(socket))
    socket.on('error', reject)
    socket.on('close', () => {
      signal.removeEventListener('abort', onAbort)
      reject(Object.assign(new Error('the connection was cut'), { code: 'ECONNRESET' }))
    })
  })
}

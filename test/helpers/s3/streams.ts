/** What a proxy does to bytes on their way. */
import type { Socket } from 'node:net'
import { Transform } from 'node:stream'

/**
 * Ends a connection by a reset, unless it is ending already: Node 24 never closes a socket that is
 * reset after its end, and then does not exit.
 */
export function resetSocket(socket: Socket): void {
  if (socket.destroyed) return
  if (socket.writableEnded) socket.destroy()
  else socket.resetAndDestroy()
}

/** Takes this many bytes without making the sender wait: a delay is no limit of the bandwidth. */
const ON_THE_WAY = 256 * 1024 * 1024

/** Every chunk leaves so long after it came, however many are on the way by then. */
export function delayed(ms: number): Transform {
  return new Transform({
    writableHighWaterMark: ON_THE_WAY,
    readableHighWaterMark: ON_THE_WAY,
    transform(chunk: Buffer, _encoding, done) {
      // timers of one length fire in the order they were set
      setTimeout(() => this.push(chunk), ms).unref()
      done()
    },
    flush(done) {
      setTimeout(done, ms).unref()
    },
  })
}

/**
 * Calls `act` once so many bytes went through, and lets nothing more pass.
 * @param swallow takes in what is behind, so that the sender's end is noticed
 */
export function stoppingAt(atByte: number, act: () => void, swallow = false): Transform {
  let left = atByte
  let over = false
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      if (over) {
        if (swallow) done()
        return // otherwise what is behind waits
      }
      if (chunk.length < left) {
        left -= chunk.length
        done(null, chunk)
        return
      }
      over = true
      this.push(chunk.subarray(0, left))
      // what went through is to be on its way first
      setImmediate(() => setImmediate(act))
      if (swallow) done()
    },
    flush(done) {
      if (over) return
      // a body that is shorter is let through whole
      if (left > 0) done()
      else act()
    },
  })
}

/** Inverts one bit of the byte at this place; a shorter body stays as it is. */
export function flipping(atByte: number): Transform {
  let position = 0
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      const at = atByte - position
      position += chunk.length
      if (at < 0 || at >= chunk.length) {
        done(null, chunk)
        return
      }
      const changed = Buffer.from(chunk)
      changed[at] = (changed[at] ?? 0) ^ 0x10
      done(null, changed)
    },
  })
}

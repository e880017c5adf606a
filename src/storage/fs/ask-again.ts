import { systemCode } from '../../lib/errors.ts'

/** The client asks the server anew each time; more often than this it is the share that is gone. */
const TRIES = 5

/**
 * Asks again where the file system says ESTALE. On a network share that is what becomes of a look
 * at a name while somebody else removes or replaces what it led to: the client still remembers the
 * old file, and learns only from the server's refusal to look the name up again. It does not mean
 * that there is nothing, so it is never taken for absent.
 */
export async function askAgain<T>(ask: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await ask()
    } catch (error) {
      if (systemCode(error) !== 'ESTALE' || tries >= TRIES) throw error
    }
  }
}

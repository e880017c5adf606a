/**
 * Gives codec outputs back early. A compressed or decoded block comes as a buffer whose 2 MiB lie
 * outside the JavaScript heap. The heap itself hardly grows by it, so V8 sees no reason to collect
 * for hundreds of blocks, and every block in between takes fresh pages from the system. A minor
 * collection takes a fraction of a millisecond here; measured on one thread it made LZ4 more than
 * twice as fast (270 → 620 MB/s) and took peak memory from 585 to 87 MB.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

type Collect = (options: { readonly type: 'minor' }) => void

/** Outputs that may wait: 8 MiB. */
const OUTPUTS = 4

/** Call it after each output is no longer used. */
export function outputFreer(): () => void {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as Collect
  let outputs = 0
  return () => {
    outputs += 1
    if (outputs % OUTPUTS === 0) collect({ type: 'minor' })
  }
}

/**
 * Gives codec outputs back early. A compressed or decoded block comes as a buffer whose 2 MiB lie
 * outside the JavaScript heap. The heap itself hardly grows by it, so V8 sees no reason to collect
 * for hundreds of blocks, and every block in between takes fresh pages from the system. A minor
 * collection takes a fraction of a millisecond here; measured on one thread it made LZ4 more than
 * twice as fast (270 → 620 MB/s) and took peak memory from 585 to 87 MB. One for each output costs
 * no more time than one for every four, and 25 MB less.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

type Collect = (options: { readonly type: 'minor' }) => void

/** Call what it returns after each output that is no longer used. */
export function outputFreer(): () => void {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as Collect
  return () => collect({ type: 'minor' })
}

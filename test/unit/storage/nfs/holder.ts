/**
 * A process that holds a store through a helper: `holder.ts FOLDER MODE`. It prints the helper's
 * pid, and then waits to be killed, or ends without closing anything.
 */
import { openRemoteStore } from '../../../../src/storage/nfs/remote-store.ts'
import { freeze, helpersOf, optionsFor } from './processes.ts'

const [, , folder = '', mode] = process.argv
const store = await openRemoteStore(optionsFor(folder, { callTimeoutMs: 1000 }))
const [helper = 0] = await helpersOf(process.pid)
console.log(helper)
if (mode === 'wait') setInterval(() => undefined, 1000)
if (mode === 'hang') {
  await freeze(helper)
  await store.stat('backupstore/x').catch((error: unknown) => console.log(String(error)))
}
if (mode === 'hang-cancelled') {
  await freeze(helper)
  const signal = AbortSignal.timeout(100)
  await store
    .stat('backupstore/x', { signal })
    .catch((error: unknown) => console.log(String(error)))
}

/** What NFS servers do to their clients in life: all of it is told, and nothing is lost. */
import { test } from 'node:test'
import { unlessThere } from '../helpers/command.ts'
import { startGanesha } from '../helpers/nfs/ganesha.ts'
import { runGuestTests } from '../helpers/nfs/guest-tests.ts'
import { unlessUml } from '../helpers/nfs/uml.ts'
import { isRoot } from '../helpers/privileges.ts'

const skip =
  unlessUml() ||
  unlessThere('ganesha.nfsd') ||
  // in CI it fails for want of the right to mount
  (!isRoot && !process.env['CI'] && 'needs the right to mount a small file system')

test('faults of servers, on NFS', { skip }, async (t) => {
  const main = await startGanesha(t)
  const small = await startGanesha(t, { sizeBytes: 12 * 1024 * 1024 })
  await runGuestTests(t, 'faults', { main, small })
})

/** The NFS driver against the suite of all drivers, on a real mount from a real server. */
import { test } from 'node:test'
import { unlessThere } from '../helpers/command.ts'
import { startGanesha } from '../helpers/nfs/ganesha.ts'
import { runGuestTests } from '../helpers/nfs/guest-tests.ts'
import { unlessUml } from '../helpers/nfs/uml.ts'

const skip = unlessUml() || unlessThere('ganesha.nfsd')

test('the contract of all drivers, on NFS', { skip }, async (t) => {
  await runGuestTests(t, 'contract', { main: await startGanesha(t) })
})

/** An NFS export that is looked over, with a real mount from a real server. */
import { test } from 'node:test'
import { unlessThere } from '../helpers/command.ts'
import { startGanesha } from '../helpers/nfs/ganesha.ts'
import { runGuestTests } from '../helpers/nfs/guest-tests.ts'
import { unlessUml } from '../helpers/nfs/uml.ts'

const skip = unlessUml() || unlessThere('ganesha.nfsd')

test('drover doctor, on NFS', { skip }, async (t) => {
  const main = await startGanesha(t)
  const readOnly = await startGanesha(t, { access: 'read-only' })
  const squashed = await startGanesha(t, { access: 'squashed' })
  await runGuestTests(t, 'doctor', { main, readOnly, squashed })
})

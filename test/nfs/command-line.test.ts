/** Drover's command line on NFS targets, with a real mount of its own. */
import { test } from 'node:test'
import { unlessThere } from '../helpers/command.ts'
import { startGanesha } from '../helpers/nfs/ganesha.ts'
import { runGuestTests } from '../helpers/nfs/guest-tests.ts'
import { unlessUml } from '../helpers/nfs/uml.ts'

const skip = unlessUml() || unlessThere('ganesha.nfsd')
/** The default options name no port. */
const NFS_PORT = 2049

test('the command line, on NFS', { skip }, async (t) => {
  const main = await startGanesha(t)
  const standard = await startGanesha(t, { port: NFS_PORT })
  await runGuestTests(t, 'command-line', { main, standard })
})

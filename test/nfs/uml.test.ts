/** The guest that the tests of NFS run in. */
import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { test } from 'node:test'
import { runInUml, unlessUml } from '../helpers/nfs/uml.ts'

const skip = unlessUml()

test('a command in the guest hands back its exit code and all that it says', { skip }, async () => {
  const script = 'echo "$GREETING"; echo to stderr >&2; grep -c nfs4 /proc/filesystems; exit 7'
  const env = { GREETING: "it's a $HOME \\ of our own" }
  const { code, stdout, stderr } = await runInUml(['bash', '-c', script], { env })
  assert.equal(code, 7)
  assert.equal(stdout, `${env.GREETING}\n1\n`)
  assert.equal(stderr, 'to stderr\n')
  assert.deepEqual(await leftOvers(), [])
})

test('a guest that takes too long ends with all its processes', { skip }, async () => {
  const script = 'echo started; sleep 6543 & sleep 6543'
  const { code, stdout } = await runInUml(['bash', '-c', script], { timeoutMs: 8000 })
  assert.equal(code, undefined)
  assert.equal(stdout, 'started\n')
  assert.deepEqual(await leftOvers(), [])
})

/** Of this process, not of others that run guests now. */
async function leftOvers(): Promise<string[]> {
  const folders = [...(await readdir(tmpdir())), ...(await readdir('/dev/shm'))]
  return folders.filter((name) => name.startsWith(`drover-uml-${process.pid}-`))
}

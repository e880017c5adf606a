/** The ends of both processes: none of them keeps the other. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { tempFolder } from '../../../helpers/temp.ts'
import { waitUntil } from '../../../helpers/wait-until.ts'
import { stateOf, waitUntilGone } from './processes.ts'

const HOLDER = fileURLToPath(new URL('./holder.ts', import.meta.url))

async function startHolder(t: TestContext, mode: string) {
  const folder = join(await tempFolder(t), 'target')
  await mkdir(folder)
  const child = spawn(process.execPath, [HOLDER, folder, mode], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => child.kill('SIGKILL'))
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  const end = new Promise<number | null>((resolve) => child.once('close', resolve))
  await waitUntil(() => output.includes('\n'), 'the helper started')
  return { child, helper: Number.parseInt(output, 10), end, output: () => output }
}

describe('the end of', () => {
  test('a process that is killed is that of its helper', async (t) => {
    const { child, helper, end } = await startHolder(t, 'wait')
    assert.match(await stateOf(helper), /[RS]/)
    child.kill('SIGKILL')
    await end
    await waitUntilGone(helper)
  })

  test('a process that forgot to close its store is that of its helper', async (t) => {
    const { helper, end } = await startHolder(t, 'end')
    assert.equal(await end, 0)
    await waitUntilGone(helper)
  })

  test('a process does not wait for a helper that hangs', async (t) => {
    const { helper, end, output } = await startHolder(t, 'hang')
    assert.equal(await end, 0)
    assert.match(output(), /did not answer within 1s/)
    await waitUntilGone(helper)
  })

  test('a process does not wait for a helper that hangs in a call it gave up', async (t) => {
    const { helper, end, output } = await startHolder(t, 'hang-cancelled')
    assert.equal(await end, 0)
    assert.match(output(), /interrupted/)
    // it was never overdue, so it is still there: it ends as soon as it can
    process.kill(helper, 'SIGCONT')
    await waitUntilGone(helper)
  })
})

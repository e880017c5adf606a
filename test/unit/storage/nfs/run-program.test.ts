import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { DroverError } from '../../../../src/lib/errors.ts'
import { runProgram } from '../../../../src/storage/nfs/run-program.ts'
import { tempFolder } from '../../../helpers/temp.ts'
import { waitUntil } from '../../../helpers/wait-until.ts'
import { waitUntilGone } from './processes.ts'

describe('a system program', () => {
  test('tells its code and what it said on both channels', async () => {
    const outcome = await runProgram('sh', ['-c', 'echo one; echo two >&2; exit 3'], {
      timeoutMs: 10_000,
    })
    assert.ok(outcome.kind === 'ended')
    assert.equal(outcome.code, 3)
    assert.deepEqual(outcome.output.trim().split('\n').sort(), ['one', 'two'])
  })

  test('that is not there is told apart from one that fails', async () => {
    const outcome = await runProgram('no-such-program-anywhere', [], { timeoutMs: 10_000 })
    assert.deepEqual(outcome, { kind: 'missing' })
  })

  test('is killed at its deadline, and what it said until then is kept', async () => {
    const args = ['-c', 'echo $$; exec sleep 600']
    const outcome = await runProgram('sh', args, { timeoutMs: 500 })
    assert.ok(outcome.kind === 'too-late')
    await waitUntilGone(Number(outcome.output))
  })

  test('is killed when nobody wants it any more', async (t) => {
    const file = join(await tempFolder(t), 'pid')
    const abort = new AbortController()
    const reason = new DroverError('INTERRUPTED', 'enough')
    const running = runProgram('sh', ['-c', `echo $$ > ${file}; exec sleep 600`], {
      timeoutMs: 600_000,
      signal: abort.signal,
    })
    running.catch(() => undefined)
    const pid = () => readFile(file, 'utf8').catch(() => '')
    await waitUntil(async () => (await pid()).endsWith('\n'), 'it runs')
    abort.abort(reason)
    await assert.rejects(running, (error) => error === reason)
    await waitUntilGone(Number(await pid()))
  })
})

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { DroverError, interrupted } from '../../../src/lib/errors.ts'
import type { Finding, Step, StepResult } from '../../../src/storage/doctor/steps.ts'
import { runSteps } from '../../../src/storage/doctor/steps.ts'

const ok: Finding = { verdict: 'ok', message: 'fine' }
const forbidden = () =>
  new DroverError('TARGET_FORBIDDEN', 'access is denied', { details: { status: 403 } })

const step = (
  name: string,
  run: Step['run'] = () => Promise.resolve(ok),
  more: Partial<Step> = {},
): Step => ({ name, hintFor: ({ code }) => `what to do about ${code}`, run, ...more })

const failing = (name: string, more?: Partial<Step>): Step =>
  step(name, () => Promise.reject(forbidden()), more)

/** Never settles, whatever its signal says. */
const deaf = () => new Promise<Finding>(() => undefined)

/** Settles when it is told to stop. */
const patient = (signal: AbortSignal) =>
  new Promise<Finding>((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(interrupted()))
  })

async function told(
  steps: readonly Step[],
  { deadlineMs = 60_000, stop = new AbortController() } = {},
): Promise<{ results: readonly StepResult[]; events: readonly string[]; error: unknown }> {
  const events: string[] = []
  const results: StepResult[] = []
  const watch = {
    begin: (name: string) => void events.push(`begin ${name}`),
    end(result: StepResult) {
      results.push(result)
      events.push(`${result.verdict} ${result.name}`)
    },
  }
  let error: unknown
  try {
    const answered = await runSteps(steps, { deadlineMs, signal: stop.signal }, watch)
    assert.deepEqual(answered, results)
  } catch (thrown) {
    error = thrown
  }
  return { results, events, error }
}

const verdicts = ({ results }: { readonly results: readonly StepResult[] }) =>
  Object.fromEntries(results.map(({ name, verdict }) => [name, verdict]))

describe('the steps of a doctor', () => {
  test('run in order, and each is told when it begins and ends', async () => {
    const { events } = await told([step('a'), step('b')])
    assert.deepEqual(events, ['begin a', 'ok a', 'begin b', 'ok b'])
  })

  test('answer what was found, the time it took, and what to do about a failure', async () => {
    const found: Finding = {
      verdict: 'warning',
      message: 'slow',
      hint: 'wait',
      details: { seconds: 3 },
    }
    const { results } = await told([step('a', () => Promise.resolve(found)), failing('b')])
    const [a, b] = results
    assert.ok(a && Number.isInteger(a.ms) && a.ms >= 0)
    assert.deepEqual({ ...a, ms: 0 }, { name: 'a', ...found, ms: 0 })
    assert.deepEqual(b && { ...b, ms: 0 }, {
      name: 'b',
      verdict: 'failed',
      message: 'access is denied',
      hint: 'what to do about TARGET_FORBIDDEN',
      details: { code: 'TARGET_FORBIDDEN', status: 403 },
      ms: 0,
    })
  })

  test('skip what needs one that failed, and what needs that, and name the first cause', async () => {
    const outcome = await told([
      failing('list'),
      step('put', undefined, { needs: ['list'] }),
      step('get', undefined, { needs: ['put'] }),
      step('clock'),
    ])
    assert.deepEqual(verdicts(outcome), {
      list: 'failed',
      put: 'skipped',
      get: 'skipped',
      clock: 'ok',
    })
    assert.match(outcome.results[2]?.message ?? '', /list/)
  })

  test('go on after a warning, a step that skipped itself, and a failure that hinders nobody', async () => {
    const finding = (verdict: Finding['verdict']) => () =>
      Promise.resolve({ verdict, message: 'so' })
    const outcome = await told([
      step('a', finding('warning')),
      step('b', finding('skipped')),
      failing('c', { hinders: ({ code }) => code !== 'TARGET_FORBIDDEN' }),
      step('d', undefined, { needs: ['a', 'b', 'c'] }),
    ])
    assert.equal(verdicts(outcome)['d'], 'ok')
  })

  test('stop at their deadline, also one that never listens, and say what to do', async () => {
    const outcome = await told(
      [step('slow', patient), step('deaf', deaf), step('after', undefined, { needs: ['deaf'] })],
      { deadlineMs: 30 },
    )
    assert.deepEqual(verdicts(outcome), { slow: 'failed', deaf: 'failed', after: 'skipped' })
    for (const { message, hint } of outcome.results.slice(0, 2)) {
      assert.match(message, /no end within 0\.03s/)
      assert.match(hint ?? '', /DROVER_CALL_TIMEOUT/)
    }
  })

  test('may take longer for what they transfer', async () => {
    const slowly = () =>
      new Promise<Finding>((resolve) => {
        setTimeout(() => resolve(ok), 20)
      })
    const steps = [step('small', slowly), step('large', slowly, { extraMs: 60_000 })]
    const outcome = await told(steps, { deadlineMs: 1 })
    assert.deepEqual(verdicts(outcome), { small: 'failed', large: 'ok' })
  })

  test('remove the traces after a failure, although it was one that they need', async () => {
    const outcome = await told([
      failing('put'),
      step('clean-up', undefined, { always: true, needs: ['put'] }),
    ])
    assert.deepEqual(verdicts(outcome), { put: 'failed', 'clean-up': 'ok' })
  })

  test('remove the traces after an interruption, with a signal that is not aborted', async () => {
    const stop = new AbortController()
    let cleaned: boolean | undefined
    const steps = [
      step('a'),
      step('b', (signal) => {
        stop.abort(interrupted())
        return patient(signal)
      }),
      step('c'),
      step(
        'clean-up',
        (signal) => {
          cleaned = !signal.aborted
          return Promise.resolve(ok)
        },
        { always: true },
      ),
    ]
    const { events, error } = await told(steps, { stop })
    assert.equal(cleaned, true)
    assert.deepEqual(events, ['begin a', 'ok a', 'begin b', 'begin clean-up', 'ok clean-up'])
    assert.ok(error instanceof DroverError)
    assert.equal(error.code, 'INTERRUPTED')
  })

  test('let a step that is interrupted finish before the traces are removed', async () => {
    const stop = new AbortController()
    const order: string[] = []
    const put = step('put', async (signal) => {
      queueMicrotask(() => stop.abort(interrupted()))
      await patient(signal).catch(() => undefined)
      await new Promise((resolve) => setImmediate(resolve))
      order.push('put is over')
      return ok
    })
    const cleanUp = step(
      'clean-up',
      () => {
        order.push('clean-up')
        return Promise.resolve(ok)
      },
      { always: true },
    )
    await told([put, cleanUp], { stop })
    assert.deepEqual(order, ['put is over', 'clean-up'])
  })

  test('report an error that nobody thought of as one, and go on', async () => {
    const outcome = await told([
      step('a', () => Promise.reject(new TypeError('x is not a function'))),
      step('b'),
    ])
    assert.deepEqual(verdicts(outcome), { a: 'failed', b: 'ok' })
    assert.match(outcome.results[0]?.message ?? '', /Drover itself.*x is not a function/)
  })
})

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Releasers, withReleasers } from '../../../src/lib/releasers.ts'

describe('releasers', () => {
  it('run in reverse, each after the one before has settled', async () => {
    const log: string[] = []
    const releasers = new Releasers()
    for (const name of ['a', 'b', 'c']) {
      releasers.add(async () => {
        log.push(`${name} begins`)
        await new Promise((resolve) => setImmediate(resolve))
        log.push(`${name} ends`)
      })
    }
    await releasers.releaseAll()
    assert.deepEqual(log, ['c begins', 'c ends', 'b begins', 'b ends', 'a begins', 'a ends'])
  })

  it('run once, however often they are called for', async () => {
    let times = 0
    const releasers = new Releasers()
    releasers.add(() => (times += 1))
    await releasers.releaseAll()
    await releasers.releaseAll()
    assert.equal(times, 1)
  })

  it('all run even when some fail, and the first failure is thrown', async () => {
    const ran: number[] = []
    const releasers = new Releasers()
    releasers.add(() => ran.push(1))
    releasers.add(() => Promise.reject(new Error('second to fail')))
    releasers.add(() => ran.push(2))
    releasers.add(() => {
      throw new Error('first to fail')
    })
    await assert.rejects(releasers.releaseAll(), /first to fail/)
    assert.deepEqual(ran, [2, 1])
  })

  it('run after the work, whose result comes through', async () => {
    const log: string[] = []
    const result = await withReleasers(async (releasers) => {
      releasers.add(() => log.push('released'))
      log.push('worked')
      return 42
    })
    assert.equal(result, 42)
    assert.deepEqual(log, ['worked', 'released'])
  })

  it('run when the work fails, and never hide why it failed', async () => {
    let released = false
    await assert.rejects(
      withReleasers((releasers) => {
        releasers.add(() => (released = true))
        releasers.add(() => Promise.reject(new Error('release failed')))
        return Promise.reject(new Error('work failed'))
      }),
      /work failed/,
    )
    assert.equal(released, true)
  })

  it('make a work that succeeded fail when something could not be let go of', async () => {
    await assert.rejects(
      withReleasers((releasers) => {
        releasers.add(() => Promise.reject(new Error('release failed')))
        return Promise.resolve(42)
      }),
      /release failed/,
    )
  })
})

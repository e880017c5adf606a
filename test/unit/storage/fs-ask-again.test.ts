import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { askAgain } from '../../../src/storage/fs/ask-again.ts'

const saying = (code: string) => Object.assign(new Error(code), { code })

describe('a question to a share', () => {
  test('is asked again while the answer is an old file', async () => {
    // as Node has no name for it
    const stale = Object.assign(saying('Unknown system error -116'), { errno: -116 })
    const answers = [stale, saying('ESTALE'), 'the answer']
    const answer = await askAgain(() => {
      const next = answers.shift()
      return next instanceof Error ? Promise.reject(next) : Promise.resolve(next)
    })
    assert.equal(answer, 'the answer')
  })

  test('is given up in the end, and then it is not absent', async () => {
    let asked = 0
    const ask = () => {
      asked += 1
      return Promise.reject(saying('ESTALE'))
    }
    await assert.rejects(askAgain(ask), { code: 'ESTALE' })
    assert.equal(asked, 5)
  })

  test('is asked once when the answer is another one', async () => {
    let asked = 0
    const ask = () => {
      asked += 1
      return Promise.reject(saying('ENOENT'))
    }
    await assert.rejects(askAgain(ask), { code: 'ENOENT' })
    assert.equal(asked, 1)
  })
})

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import {
  isReadableName,
  isWritableName,
  nameFromFile,
  readableName,
  suggestName,
  writableName,
} from '../../../src/backupstore/names.ts'
import { isDroverError } from '../../../src/lib/errors.ts'

const of = (length: number) => 'a'.repeat(length)

describe('a name that is read', () => {
  it("is any that Longhorn's store accepts", () => {
    for (const name of ['ab', 'A_', '0.', 'Ubuntu_22.04-LTS', 'a--', 'a..b', of(41), of(255)]) {
      assert.equal(isReadableName(name), true, name)
      assert.equal(readableName(name), name)
    }
  })

  it('is never one that could leave its folder or confuse a listing', () => {
    for (const name of [
      '',
      'a',
      '.',
      '..',
      '.a',
      '-a',
      '_a',
      'a/b',
      '../a',
      'a b',
      'a\n',
      'a\0b',
      'é1',
      'a\\b',
      'a%2fb',
      of(256),
    ]) {
      assert.equal(isReadableName(name), false, JSON.stringify(name))
      assert.throws(
        () => readableName(name),
        (error) => isDroverError(error, 'INVALID_NAME') && /expected a letter/.test(error.message),
      )
    }
  })
})

describe('a name that is written', () => {
  const good = ['ab', 'a1', '0a', 'a-b', 'a--b', 'a.b', 'ubuntu-22.04', 'a.b.c-d', of(40)]
  const bad = [
    '',
    'a',
    'A1',
    'aB',
    'a_b',
    '-a',
    'a-',
    '.a',
    'a.',
    'a..b',
    'a.-b',
    'a-.b',
    'a b',
    'a/b',
    'ab\n',
    'éa',
    of(41),
  ]

  it('is a lower-case RFC 1123 name of 2 to 40 characters', () => {
    for (const name of good) assert.equal(writableName(name, false), name)
    for (const name of bad) {
      assert.equal(isWritableName(name), false, JSON.stringify(name))
      assert.throws(
        () => writableName(name, false),
        (error) =>
          isDroverError(error, 'INVALID_NAME') &&
          /expected 2 to 40 lower-case/.test(error.message) &&
          /--allow-any-name/.test(error.message),
      )
    }
  })

  it('comes with a proposal when it is refused', () => {
    assert.throws(
      () => writableName('My_Disk', false),
      (error) =>
        isDroverError(error) &&
        /--name my-disk/.test(error.message) &&
        error.details['suggestion'] === 'my-disk',
    )
  })

  it('may be any readable one when that was asked for, and no other', () => {
    assert.equal(writableName('My_Disk', true), 'My_Disk')
    assert.throws(
      () => writableName('../x', true),
      (error) => isDroverError(error, 'INVALID_NAME'),
    )
  })

  it('can always be read', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[a-z0-9.-]{2,40}$/), (name) => {
        if (isWritableName(name)) assert.equal(isReadableName(name), true)
      }),
      { numRuns: 1000 },
    )
  })
})

describe('the name proposed for a text', () => {
  const texts = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 80 }),
    fc.string({ unit: fc.constantFrom(...Array.from('aZ0.-_ é/\u0130\u212a')), maxLength: 80 }),
    fc.stringMatching(/^[a-zA-Z0-9._ -]{0,80}$/),
  )

  it('can be written, or there is none', () => {
    fc.assert(
      fc.property(texts, (text) => {
        const name = suggestName(text)
        if (name !== undefined) assert.equal(isWritableName(name), true, name)
      }),
      { numRuns: 3000 },
    )
  })

  it('is there whenever the text has one usable character', () => {
    fc.assert(
      fc.property(texts, (text) => {
        assert.equal(suggestName(text) !== undefined, /[a-z0-9]/.test(text.toLowerCase()))
      }),
      { numRuns: 3000 },
    )
  })

  it('is proposed for itself', () => {
    fc.assert(
      fc.property(texts, (text) => {
        const name = suggestName(text)
        if (name !== undefined) assert.equal(suggestName(name), name)
      }),
      { numRuns: 3000 },
    )
  })
})

describe("the name derived from a file's", () => {
  const cases: Array<[file: string, name: string]> = [
    ['/images/ubuntu.qcow2', 'ubuntu'],
    ['ubuntu.raw', 'ubuntu'],
    ['Ubuntu Server.img', 'ubuntu-server'],
    ['disk_1.img', 'disk-1'],
    ['image.tar.gz', 'image.tar'],
    ['noext', 'noext'],
    ['.hidden', 'hidden'],
    ['a.img', 'a-image'],
    ['--x--y--.img', 'x-y'],
    ['a..b.-c.img', 'a.b.c'],
    [`${of(60)}.img`, of(40)],
    [`${of(39)}-b.img`, of(39)],
    [`${of(39)}.b.img`, of(39)],
    ['café.img', 'caf'],
  ]
  for (const [file, name] of cases) {
    it(`is ${name} for ${file.length > 30 ? `${file.slice(0, 30)}…` : file}`, () => {
      assert.equal(nameFromFile(file), name)
    })
  }

  it('has to be given when nothing usable is left', () => {
    for (const file of ['/', '___.img', '日本.raw', '--.qcow2']) {
      assert.throws(
        () => nameFromFile(file),
        (error) =>
          isDroverError(error, 'INVALID_NAME') && /give one with --name/.test(error.message),
      )
    }
  })
})

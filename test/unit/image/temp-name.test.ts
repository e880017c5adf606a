import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import { FOREIGN_DEAD_AFTER_MS, isDeadTemp, tempNameFor } from '../../../src/image/temp-name.ts'

const MODULE = new URL('../../../src/image/temp-name.ts', import.meta.url).href
const OLD = FOREIGN_DEAD_AFTER_MS + 1

/** What another process calls its temporary file, and that process. */
async function otherWriter(base: string) {
  const script = `
    const { tempNameFor } = await import(process.argv[1])
    console.log(JSON.stringify(tempNameFor(process.argv[2])))
    process.stdin.resume()`
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script, MODULE, base],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  )
  let out = ''
  for await (const chunk of child.stdout) {
    out += String(chunk)
    if (out.endsWith('\n')) break
  }
  const exited = once(child, 'exit')
  return {
    name: JSON.parse(out) as string,
    async kill() {
      child.kill('SIGKILL')
      await exited
    },
  }
}

describe('the temporary file of a restore', () => {
  it('is hidden, beside its file, and tells whose it is', () => {
    assert.match(tempNameFor('disk.img'), /^\.disk\.img\.drover-[0-9a-f]{8}-\d+-\d+\.partial$/)
    assert.match(tempNameFor('disk.img'), new RegExp(`-${process.pid}-`))
    assert.equal(tempNameFor('disk.img'), tempNameFor('disk.img'))
  })

  it('is not dead while its writer lives, however old it looks', async () => {
    assert.equal(isDeadTemp(tempNameFor('disk.img'), 'disk.img', 10 * OLD), false)
    const writer = await otherWriter('disk.img')
    try {
      assert.notEqual(writer.name, tempNameFor('disk.img'))
      assert.equal(isDeadTemp(writer.name, 'disk.img', 10 * OLD), false)
    } finally {
      await writer.kill()
    }
  })

  it('is dead at once when its writer was killed', async () => {
    const writer = await otherWriter('disk.img')
    await writer.kill()
    assert.equal(isDeadTemp(writer.name, 'disk.img', 0), true)
  })

  it('is dead when another process has its number now', () => {
    const name = tempNameFor('disk.img').replace(/-(\d+)\.partial$/, '-1.partial')
    assert.equal(isDeadTemp(name, 'disk.img', 0), true)
  })

  it('of another machine is dead only when it was not touched for ten minutes', () => {
    const name = tempNameFor('disk.img').replace(/drover-[0-9a-f]{8}/, 'drover-00000000')
    assert.equal(isDeadTemp(name, 'disk.img', FOREIGN_DEAD_AFTER_MS), false)
    assert.equal(isDeadTemp(name, 'disk.img', OLD), true)
  })

  it('of another file is none of ours, nor is any other file', () => {
    const dead = tempNameFor('disk.img').replace(/-(\d+)\.partial$/, '-1.partial')
    for (const [name, base] of [
      [dead, 'other.img'],
      [dead, 'isk.img'],
      [dead, 'disk'],
      [dead.slice(1), 'disk.img'],
      [`${dead}.bak`, 'disk.img'],
      [dead.replace('.partial', ''), 'disk.img'],
      ['disk.img', 'disk.img'],
      ['.disk.img.partial', 'disk.img'],
      ['.disk.img.drover-00000000-x-1.partial', 'disk.img'],
    ] as const) {
      assert.equal(isDeadTemp(name, base, OLD), false, `${name} for ${base}`)
    }
  })

  const legal = fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 255 })
    .map((text) => text.replaceAll(/[/\0\n\r\u2028\u2029]/g, '_'))
    .filter((text) => text.isWellFormed() && Buffer.byteLength(text) <= 255)
  const bases = fc.oneof(
    legal,
    fc.integer({ min: 1, max: 255 }).map((length) => 'x'.repeat(length)),
    fc.constantFrom('.drover-00000000-1-1.partial', 'é'.repeat(127)),
  )

  it('has a legal name that is recognised, whatever the file is called', () => {
    fc.assert(
      fc.property(bases, (base) => {
        const name = tempNameFor(base)
        assert.ok(Buffer.byteLength(name) <= 255, `${Buffer.byteLength(name)} bytes`)
        const dead = name.replace(/-(\d+)\.partial$/, '-1.partial')
        assert.equal(isDeadTemp(name, base, OLD), false)
        assert.equal(isDeadTemp(dead, base, 0), true, JSON.stringify(base))
      }),
      { numRuns: 500 },
    )
  })

  it('is recognised for a file with a line break in its name', () => {
    for (const base of ['a\nb', '\n', 'a\r', '\u2028b']) {
      const dead = tempNameFor(base).replace(/-(\d+)\.partial$/, '-1.partial')
      assert.equal(isDeadTemp(dead, base, 0), true, JSON.stringify(base))
    }
  })

  it('is not shared by two files whose long names begin alike', () => {
    const long = 'x'.repeat(250)
    const dead = tempNameFor(`${long}a`).replace(/-(\d+)\.partial$/, '-1.partial')
    assert.notEqual(tempNameFor(`${long}a`), tempNameFor(`${long}b`))
    assert.equal(isDeadTemp(dead, `${long}b`, OLD), false)
    assert.equal(isDeadTemp(dead, `${long}a`, 0), true)
  })
})

import assert from 'node:assert/strict'
import { access, readFile, readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { exitCodeOf } from '../../src/cli/exit-codes.ts'
import type { ErrorCode } from '../../src/lib/errors.ts'
import { errorMeanings } from '../../src/lib/errors.ts'

test('the command-line page lists every error code, what it means and its exit code', async () => {
  const page = await readFile(new URL('../../docs/command-line.md', import.meta.url), 'utf8')
  const listed = [...page.matchAll(/^\| `([A-Z_]+)` +\| (.+?) +\| (\d+) +\|$/gm)]
  assert.deepEqual(
    listed.map(([, code, meaning, exit]) => [code, meaning, Number(exit)]),
    Object.entries(errorMeanings).map(([code, meaning]) => [
      code,
      meaning,
      exitCodeOf(code as ErrorCode),
    ]),
  )
})

test('every link of the documents to a file of the project leads to one', async () => {
  const root = fileURLToPath(new URL('../..', import.meta.url))
  const pages = ['README.md', 'CHANGELOG.md']
  for (const page of await readdir(join(root, 'docs'))) pages.push(`docs/${page}`)
  let links = 0
  for (const page of pages) {
    const text = await readFile(join(root, page), 'utf8')
    for (const [, link = ''] of text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)) {
      links += 1
      await assert.doesNotReject(access(join(root, dirname(page), link)), `${page}: ${link}`)
    }
  }
  assert.ok(links > 5)
})

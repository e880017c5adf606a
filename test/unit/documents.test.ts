import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
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

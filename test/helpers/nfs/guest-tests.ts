/** A file of tests, run in one boot of a guest, told as tests of the host. */
import assert from 'node:assert/strict'
import { mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { build as bundle } from 'esbuild'
import { build } from '../built.ts'
import { tempFolder } from '../temp.ts'
import { serveControl } from './control.ts'
import type { EndedTest } from './event-lines.ts'
import type { Ganesha } from './ganesha.ts'
import { CONTROL, runInUml } from './uml.ts'

const TEST = fileURLToPath(new URL('../..', import.meta.url))

export interface GuestOptions {
  readonly timeoutMs?: number
}

/** @param name of a file `test/nfs/guest/<name>.guest.ts` */
export async function runGuestTests(
  t: TestContext,
  name: string,
  servers: Readonly<Record<string, Ganesha>>,
  { timeoutMs = 540_000 }: GuestOptions = {},
): Promise<void> {
  const compiled = await compile(await tempFolder(t), name)
  const result = await runInUml(
    [
      process.execPath,
      '--enable-source-maps',
      '--test',
      '--test-isolation=none',
      `--test-reporter=${compiled.reporter}`,
      compiled.tests,
    ],
    {
      timeoutMs,
      signal: t.signal,
      env: {
        CI: process.env['CI'] ?? '',
        DROVER_MOUNT_DIR: '/run/drover/mounts',
        [CONTROL]: await serveControl(t, servers),
      },
    },
  )
  const lines = result.stdout.split('\n').filter((line) => line.startsWith('{'))
  const ended = lines.map((line) => JSON.parse(line) as EndedTest)
  for (const test of treeOf(ended)) await tell(t, test)
  const more = `\nstderr:\n${result.stderr}\nconsole:\n${result.console}`
  assert.notEqual(result.code, undefined, `the guest did not end in time, or broke down:${more}`)
  const failed = ended.some(({ failure }) => failure !== undefined)
  assert.equal(result.code, failed ? 1 : 0, `the guest's tests ended with ${result.code}:${more}`)
  assert.ok(ended.length > 0, `no test ran in the guest:${more}`)
}

/**
 * Compiles the program and the tests, as to strip types takes seconds in a guest. Each file of tests
 * becomes one module, so the places that lie beside its parts have to lie beside it.
 */
async function compile(folder: string, name: string): Promise<{ tests: string; reporter: string }> {
  await build(folder)
  const root = join(folder, 'drover')
  const to = join(root, 'test/nfs')
  await mkdir(to, { recursive: true })
  await symlink(join(TEST, 'fixtures'), join(root, 'test/fixtures'))
  await symlink(join(root, 'dist/nfs-helper.js'), join(to, 'nfs-helper.js'))
  await bundle({
    entryPoints: {
      [name]: join(TEST, `nfs/guest/${name}.guest.ts`),
      'event-lines': join(TEST, 'helpers/nfs/event-lines.ts'),
    },
    outdir: to,
    bundle: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    target: 'node24',
    sourcemap: 'inline',
    logLevel: 'warning',
  })
  return { tests: join(to, `${name}.js`), reporter: `file://${join(to, 'event-lines.js')}` }
}

interface TestNode extends EndedTest {
  readonly inner: readonly TestNode[]
}

/** Inner tests come before the one that they belong to; of one that did not end all are on top. */
function treeOf(ended: readonly EndedTest[]): readonly TestNode[] {
  const open: TestNode[][] = []
  for (const test of ended) {
    const inner = open[test.nesting + 1] ?? []
    open[test.nesting + 1] = []
    ;(open[test.nesting] ??= []).push({ ...test, inner })
  }
  return open.flat()
}

async function tell(t: TestContext, { name, seconds, skipped, failure, inner }: TestNode) {
  await t.test(name, async (t) => {
    if (skipped) t.skip('skipped in the guest')
    for (const test of inner) await tell(t, test)
    if (inner.length === 0) t.diagnostic(`${seconds.toFixed(1)} s in the guest`)
    const innerFailed = inner.some((test) => test.failure !== undefined)
    if (failure === undefined || innerFailed) return
    const error = new Error(failure)
    error.stack = failure
    throw error
  })
}

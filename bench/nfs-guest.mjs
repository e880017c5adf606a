// Runs in the guest, as plain JavaScript: to strip types takes seconds there.
import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const [target, image, levels] = process.argv.slice(2)
const main = fileURLToPath(new URL('../dist/main.js', import.meta.url))
const out = '/mnt/tmp/out.raw'

function drover(...args) {
  const startMs = performance.now()
  const { status, stderr } = spawnSync(process.execPath, [main, ...args, '--quiet'])
  if (status !== 0) throw new Error(`drover ${args[0]} ended with ${status}: ${stderr}`)
  return (performance.now() - startMs) / 1000
}

for (const level of levels.split(',')) {
  const name = `bench-${level}`
  const url = `${target}&backingImage=${name}`
  const tell = (what, seconds) =>
    console.log(JSON.stringify([`${what}, concurrency ${level}`, seconds]))
  const named = ['--target', target, '--name', name]
  tell('backup', drover('backup', image, ...named, '--concurrency', level))
  tell('restore', drover('restore', url, out, '--force', '--concurrent-limit', level))
  rmSync(out)
  drover('delete', url, '--min-age', '0')
}

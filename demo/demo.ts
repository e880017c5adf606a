/**
 * The main job, shown on a real disk image: back up to a folder, list, verify, restore elsewhere,
 * compare. `npm run demo` makes a 1 GiB ext4 image from real files; `npm run demo -- FILE` takes
 * yours. Everything happens in a temporary folder; the image is only read.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  createReadStream,
  mkdirSync,
  mkdtempSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const DROVER = join(ROOT, 'bin', 'drover')
const GiB = 1024 ** 3

const work = mkdtempSync(join(tmpdir(), 'drover-demo-'))
process.on('exit', () => rmSync(work, { recursive: true, force: true }))
process.on('SIGINT', () => process.exit(130))

const given = process.argv[2]
// npm runs scripts in the package's folder; the user's own is in INIT_CWD
const image =
  given === undefined ? makeImage() : resolve(process.env['INIT_CWD'] ?? process.cwd(), given)
const store = join(work, 'store')
mkdirSync(store)
const target = `vfs://${store}`
const url = `${target}?backingImage=demo`
const restored = join(work, 'restored.img')

drover('backup', image, '--target', target, '--name', 'demo')
drover('list', '--target', target)
drover('verify', url)
drover('restore', url, restored)

const [before, after] = [await sha512(image), await sha512(restored)]
process.stdout.write(`\nsha512 of the image     ${before}\nsha512 of the restored  ${after}\n`)
if (before !== after) {
  process.stdout.write('DIFFERENT\n')
  process.exit(1)
}
process.stdout.write('the same\n')

/** A 1 GiB ext4 file system with real files: those of this checkout's dependencies. */
function makeImage(): string {
  const path = join(work, 'demo.img')
  process.stdout.write('making a 1 GiB ext4 image from real files\n')
  writeFileSync(path, '')
  truncateSync(path, GiB)
  const PATH = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`
  run('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', join(ROOT, 'node_modules'), path], { PATH })
  return path
}

function drover(...args: string[]): void {
  process.stdout.write(`\n$ drover ${args.join(' ')}\n`)
  run(DROVER, args, {})
}

function run(command: string, args: string[], env: Record<string, string>): void {
  const { status, error } = spawnSync(command, args, {
    stdio: 'inherit',
    env: { ...process.env, ...env },
  })
  if (status === 0) return
  process.stderr.write(`${command} failed: ${error?.message ?? `exit code ${status}`}\n`)
  process.exit(status ?? 1)
}

/** Independent of Drover: read again from the disk. */
async function sha512(path: string): Promise<string> {
  const hash = createHash('sha512')
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
    hash.update(chunk)
  }
  return hash.digest('hex')
}

import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'

const MiB = 1024 ** 2
const GiB = 1024 * MiB

/** The bench image: 2 GiB, ext4, with the real files of /usr/share. Made once in `folder`. */
export function benchImage(folder: string): string {
  const path = join(folder, 'real.raw')
  if (existsSync(path)) return path
  mkdirSync(folder, { recursive: true })
  const making = `${path}.making`
  rmSync(making, { force: true })
  writeFileSync(making, '')
  truncateSync(making, 2 * GiB)
  try {
    execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', '/usr/share', making], {
      env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
      stdio: 'inherit',
    })
  } catch (cause) {
    throw new Error('/usr/share does not fit into 2 GiB: give an --image of your own', { cause })
  }
  renameSync(making, path)
  return path
}

/** 32 GiB with 4 MiB of data in four places. */
export function sparseImage(folder: string): string {
  const path = join(folder, 'sparse.raw')
  const file = openSync(path, 'w')
  for (const part of [0, 1, 2, 3]) writeSync(file, randomBytes(MiB), 0, MiB, part * 9 * GiB)
  ftruncateSync(file, 32 * GiB)
  closeSync(file)
  return path
}

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const GiB = 1024 ** 3

/** The bench image: 2 GiB, ext4, with the real files of /usr/share. Made once in `folder`. */
export function benchImage(folder: string): string {
  const path = join(folder, 'real.raw')
  if (existsSync(path)) return path
  mkdirSync(folder, { recursive: true })
  const making = `${path}.making`
  rmSync(making, { force: true })
  writeFileSync(making, '')
  truncateSync(making, 2 * GiB)
  execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', '/usr/share', making], {
    env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
    stdio: 'inherit',
  })
  renameSync(making, path)
  return path
}

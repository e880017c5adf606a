/** The package as npm would install it, without asking a registry. */
import { access, chmod, cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildTo } from '../../build.ts'
import { output } from './command.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

export interface Installed {
  /** The command that npm linked. */
  readonly command: string
  /** Paths in the package. */
  readonly files: readonly string[]
}

/**
 * Builds and packs a copy of the checkout (the checkout's own build stays as it is) and installs
 * the result into `folder`. The packages it depends on are those of the checkout.
 */
export async function installPackage(folder: string): Promise<Installed> {
  const [stage, user] = [join(folder, 'stage'), join(folder, 'user')]
  await mkdir(stage)
  const manifest = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))
  await buildTo(join(stage, 'dist'))
  for (const path of ['package.json', ...manifest.files]) {
    if (path.startsWith('!') || path === 'dist' || !(await isThere(join(ROOT, path)))) continue
    await cp(join(ROOT, path), join(stage, path), { recursive: true })
  }
  const packed = await npm(stage, 'pack', '--ignore-scripts', '--json')
  const [tarball] = JSON.parse(packed.toString())

  await mkdir(join(user, 'node_modules'), { recursive: true })
  await writeFile(join(user, 'package.json'), '{"private":true}')
  for (const name of await needed(Object.keys(manifest.dependencies))) {
    const to = join(user, 'node_modules', name)
    await mkdir(dirname(to), { recursive: true })
    await cp(join(ROOT, 'node_modules', name), to, { recursive: true })
  }
  await npm(user, 'install', '--offline', '--ignore-scripts', join(stage, tarball.filename))
  // nobody but the owner of a machine's packages may write to them
  await chmod(join(user, 'node_modules/drover/dist'), 0o555)
  return {
    command: join(user, 'node_modules/.bin/drover'),
    files: tarball.files.map(({ path }: { path: string }) => path),
  }
}

async function npm(cwd: string, ...args: string[]): Promise<Buffer> {
  // a test run started by npm has npm's variables for this checkout
  const foreign = Object.keys(process.env).filter((name) => /^npm_/i.test(name))
  const env = Object.fromEntries(foreign.map((name) => [name, undefined]))
  return output('npm', [...args, '--prefix', cwd, '--no-audit', '--no-fund'], { cwd, env })
}

/** Packages and all they depend on, as far as this machine has them. */
async function needed(names: readonly string[]): Promise<Set<string>> {
  const found = new Set<string>()
  for (const queue = [...names]; queue.length > 0;) {
    const name = queue.pop() ?? ''
    const path = join(ROOT, 'node_modules', name, 'package.json')
    if (found.has(name) || !(await isThere(path))) continue
    found.add(name)
    const { dependencies, optionalDependencies } = JSON.parse(await readFile(path, 'utf8'))
    queue.push(...Object.keys({ ...dependencies, ...optionalDependencies }))
  }
  return found
}

const isThere = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )

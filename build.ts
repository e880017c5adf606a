/**
 * Compiles the program: `npm run build`. One file for the program and one for each kind of thread
 * or process it starts, because loading a hundred small modules takes longer than hashing 30 MiB.
 * Packages stay outside.
 */
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { build } from 'esbuild'

const ROOT = import.meta.dirname

/** @param folder is emptied first */
export async function buildTo(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true })
  await mkdir(folder, { recursive: true })
  // sources that change while they are compiled are newer than this
  await writeFile(join(folder, '.built'), '')
  const common = {
    absWorkingDir: ROOT,
    entryNames: '[name]',
    chunkNames: '[name]-[hash]',
    outdir: folder,
    bundle: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    target: 'node24',
    logLevel: 'warning',
  } as const
  // what the program imports only when it is needed stays in files of its own, and so does the
  // loading of their packages
  await build({ ...common, entryPoints: ['src/main.ts'], splitting: true })
  await build({
    ...common,
    entryPoints: [
      'src/compute/block-thread.ts',
      'src/compute/hash-thread.ts',
      'src/storage/nfs/nfs-helper.ts',
    ],
  })
}

if (import.meta.main) await buildTo(join(ROOT, 'dist'))

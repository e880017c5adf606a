/**
 * The house rules that a reader cannot see in one file: who may import whom, which packages stay
 * behind which fence, how long a file may grow.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { readFile, readdir } from 'node:fs/promises'
import { builtinModules } from 'node:module'
import { dirname, join, posix, relative } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

const VERBS = ['backup', 'restore', 'verify', 'prune']
const BELOW_VERBS = ['lib', 'backupstore', 'storage', 'compute', 'image']

/** What each part may import besides itself. Arrows point down. */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  lib: [],
  backupstore: ['lib'],
  storage: ['lib', 'backupstore'],
  compute: ['lib', 'backupstore'],
  image: ['lib'],
  backup: ['lib', 'backupstore', 'image'],
  restore: ['lib', 'backupstore', 'image'],
  verify: ['lib', 'backupstore', 'image'],
  prune: ['lib', 'backupstore'],
  jobs: ['lib', 'backupstore', 'backup', 'restore', 'verify'],
  'config.ts': ['lib', 'storage'],
  'app.ts': [...BELOW_VERBS, ...VERBS, 'jobs', 'config.ts'],
  cli: [...BELOW_VERBS, ...VERBS, 'app.ts'],
  'main.ts': ['cli'],
}

/** Where a package or a part of Node may be used; a path that ends in `/` is all below it. */
const FENCES: Readonly<Record<string, readonly string[]>> = {
  'lz4-napi': ['src/backupstore/codec.ts', 'src/backupstore/lz4-frame.ts'],
  'node:worker_threads': ['src/compute/'],
  commander: ['src/cli/'],
  '@aws-sdk/client-s3': ['src/storage/s3/'],
  '@aws-sdk/lib-storage': ['src/storage/s3/'],
  // mounting, and the helper process that does the work on a mount
  'node:child_process': ['src/storage/nfs/'],
  'node:fs': [
    'src/storage/fs/',
    'src/storage/nfs/',
    'src/image/',
    'src/lib/flush-folder.ts',
    'src/cli/',
  ],
  'node:fs/promises': [
    'src/storage/fs/',
    'src/storage/nfs/',
    'src/storage/spool.ts',
    'src/image/',
    'src/lib/flush-folder.ts',
    'src/cli/',
  ],
  // a way around all of the above
  'node:module': [],
}

const MAX_LINES = 250
/** Files that may be longer, each with the reason. */
const LONGER: Readonly<Record<string, string>> = {}

/** The file of each folder that opens with what the folder is, why, and the algorithm. */
const MAIN_FILES: Readonly<Record<string, string>> = {
  src: 'app.ts',
  'src/lib': 'errors.ts',
  'src/backupstore': 'object-store.ts',
  'src/storage': 'open-store.ts',
  'src/storage/fs': 'fs-store.ts',
  'src/storage/memory': 'memory-store.ts',
  'src/storage/s3': 's3-store.ts',
  'src/storage/s3/probe': 'probe.ts',
  'src/storage/doctor': 'doctor.ts',
  'src/storage/nfs': 'nfs-store.ts',
  'src/compute': 'pool.ts',
  'src/image': 'writer.ts',
  'src/backup': 'backup.ts',
  'src/restore': 'restore.ts',
  'src/verify': 'verify.ts',
  'src/prune': 'gc.ts',
  'src/cli': 'cli.ts',
}

/** Sources by path from the root of the project. */
type Sources = ReadonlyMap<string, string>

const sources = await readSources()
const dependencies: Readonly<Record<string, string>> = JSON.parse(
  readFileSync(join(ROOT, 'package.json'), 'utf8'),
).dependencies

describe('the sources', () => {
  test('are there to be checked', () => {
    assert.ok(sources.size > 50)
    assert.ok(sources.has('src/main.ts') && sources.has('src/backupstore/object-store.ts'))
  })

  test('import only what their layer may', () => {
    assert.deepEqual(wrongLayers(sources), [])
  })

  test('use packages and parts of Node only behind their fences', () => {
    assert.deepEqual(brokenFences(sources), [])
  })

  test('import only packages that an installation has', () => {
    assert.deepEqual(unknownPackages(sources), [])
  })

  test('import by paths that can be read off, of files that exist', () => {
    assert.deepEqual(unreadableImports(sources), [])
  })

  test('have no import cycle, types included', () => {
    assert.deepEqual(cycles(sources), [])
  })

  test(`have no file above ${MAX_LINES} lines without a reason`, () => {
    assert.deepEqual(tooLong(sources, LONGER), [])
  })

  test('have no notes of unfinished work', () => {
    assert.deepEqual(unfinished(sources), [])
  })

  test('tell in the main file of each folder what the folder is', () => {
    assert.deepEqual(missingIntroductions(sources, MAIN_FILES), [])
  })
})

describe('the check of the layers', () => {
  const wrong: Record<string, readonly [path: string, source: string]> = {
    'lib that imports the domain': [
      'src/lib/errors.ts',
      "import { blockKey } from '../backupstore/layout.ts'",
    ],
    'the domain that imports a driver': [
      'src/backupstore/pool.ts',
      "import { openFsStore } from '../storage/fs/fs-store.ts'",
    ],
    'the domain that imports only a type of a driver': [
      'src/backupstore/pool.ts',
      "import type { StorePaths } from '../storage/fs/paths.ts'",
    ],
    'an import over several lines': [
      'src/image/writer.ts',
      "import {\n  blockKey,\n  configKey,\n} from '../backupstore/layout.ts'",
    ],
    'an export of what another part has': [
      'src/image/writer.ts',
      "export { blockKey } from '../backupstore/layout.ts'",
    ],
    'an export of all that another part has': [
      'src/image/writer.ts',
      "export * from '../backupstore/layout.ts'",
    ],
    'an import for its effect': ['src/lib/errors.ts', "import '../cli/cli.ts'"],
    'an import while running': ['src/lib/errors.ts', "const cli = await import('../cli/cli.ts')"],
    'the type of an import': ['src/lib/errors.ts', "type Cli = typeof import('../cli/cli.ts')"],
    'a file named by its URL': [
      'src/lib/errors.ts',
      "const url = new URL('../compute/thread.ts', import.meta.url)",
    ],
    'a verb that imports another verb': [
      'src/restore/restore.ts',
      "import { verifyBackup } from '../verify/verify.ts'",
    ],
    'prune that imports images': [
      'src/prune/gc.ts',
      "import { openImageSource } from '../image/source.ts'",
    ],
    'a verb that imports a driver': [
      'src/backup/backup.ts',
      "import { openFsStore } from '../storage/fs/fs-store.ts'",
    ],
    'a verb that imports the wiring': [
      'src/backup/backup.ts',
      "import { withStore } from '../app.ts'",
    ],
    'the wiring that imports the command line': [
      'src/app.ts',
      "import { runCli } from './cli/cli.ts'",
    ],
    'the start that imports past the command line': [
      'src/main.ts',
      "import { withStore } from './app.ts'",
    ],
    'a command that imports the start': ['src/cli/gc.ts', "import '../main.ts'"],
    'a job imported by a command': ['src/cli/gc.ts', "import { gc } from '../../jobs/gc.ts'"],
    'an import of a test': [
      'src/lib/clock.ts',
      "import { FakeClock } from '../../test/helpers/fake-clock.ts'",
    ],
    'a folder that no layer is known of': ['src/utils/misc.ts', 'export {}'],
  }
  for (const [what, [path, source]] of Object.entries(wrong)) {
    test(`finds ${what}`, () => {
      const found = wrongLayers(new Map([...sources, [path, source]]))
      const before = wrongLayers(sources)
      assert.equal(found.filter((each) => !before.includes(each)).length, 1, found.join('\n'))
    })
  }

  test('lets pass what the layers allow', () => {
    const allowed: Sources = new Map([
      ['src/backupstore/a.ts', "import { b } from '../lib/b.ts'\nimport { c } from './c.ts'"],
      ['src/storage/fs/a.ts', "import { b } from '../../backupstore/b.ts'"],
      ['src/storage/a.ts', "import { b } from './fs/b.ts'"],
      ['src/app.ts', "import { b } from './storage/b.ts'"],
      ['src/cli/a.ts', "import { b } from '../app.ts'"],
      ['src/main.ts', "import { runCli } from './cli/cli.ts'"],
      ['jobs/a.ts', "import { b } from '../src/backup/b.ts'"],
    ])
    assert.deepEqual(wrongLayers(allowed), [])
  })
})

describe('the other checks', () => {
  test('find a package and a part of Node outside their fences', () => {
    const wrong: Sources = new Map([
      ['src/backup/a.ts', "import { compressFrameSync } from 'lz4-napi'"],
      ['src/backup/b.ts', "import { Worker } from 'node:worker_threads'"],
      ['src/lib/c.ts', "import { Command } from 'commander'"],
      ['src/backupstore/d.ts', "import { open } from 'node:fs/promises'"],
      ['src/prune/e.ts', "import fs from 'node:fs'"],
      ['src/lib/f.ts', "import { createRequire } from 'node:module'"],
      ['src/lib/flush-folder.ts', "import { open } from 'node:fs/promises'"],
      ['src/image/g.ts', "import { open } from 'node:fs/promises'"],
      ['src/cli/h.ts', "import { Command } from 'commander'"],
    ])
    assert.deepEqual(
      brokenFences(wrong).map((each) => each.split(' ')[0]),
      ['a', 'b', 'c', 'd', 'e', 'f'].map((name) =>
        [...wrong.keys()].find((path) => path.endsWith(`/${name}.ts`)),
      ),
    )
  })

  test('find packages that are not there, and Node by its old names', () => {
    const wrong: Sources = new Map([
      ['src/lib/a.ts', "import fc from 'fast-check'"],
      ['src/lib/b.ts', "import { readFile } from 'fs/promises'"],
      ['src/lib/c.ts', "import { x } from 'p-limit/inner.js'\nimport pLimit from 'p-limit'"],
      ['src/lib/d.ts', "import { x } from 'node:nothing'"],
    ])
    assert.deepEqual(
      unknownPackages(wrong).map((each) => each.split(' ')[0]),
      ['src/lib/a.ts', 'src/lib/b.ts', 'src/lib/d.ts'],
    )
  })

  test('find imports that cannot be read off or lead nowhere', () => {
    const wrong: Sources = new Map([
      ['src/lib/a.ts', 'await import(name)'],
      ['src/lib/b.ts', "const x = require('../cli/cli.ts')"],
      ['src/lib/c.ts', "process.getBuiltinModule('fs')"],
      ['src/lib/d.ts', "import { x } from './nowhere.ts'"],
      ['src/lib/e.ts', "import { x } from './a.ts'"],
    ])
    assert.deepEqual(
      unreadableImports(wrong).map((each) => each.split(' ')[0]),
      ['src/lib/a.ts', 'src/lib/b.ts', 'src/lib/c.ts', 'src/lib/d.ts'],
    )
  })

  test('find a cycle, however long', () => {
    const wrong: Sources = new Map([
      ['src/lib/a.ts', "import { b } from './b.ts'\nimport { d } from './d.ts'"],
      ['src/lib/b.ts', "import type { c } from './c.ts'"],
      ['src/lib/c.ts', "export * from './a.ts'"],
      ['src/lib/d.ts', ''],
      ['src/lib/e.ts', "import { e } from './e.ts'"],
    ])
    assert.deepEqual(cycles(wrong), [
      'src/lib/a.ts → src/lib/b.ts → src/lib/c.ts → src/lib/a.ts',
      'src/lib/e.ts → src/lib/e.ts',
    ])
  })

  test('find a file that is too long, and a reason that is not needed any more', () => {
    const lines = (count: number) => 'x\n'.repeat(count)
    const files: Sources = new Map([
      ['src/lib/long.ts', lines(MAX_LINES + 1)],
      ['src/lib/edge.ts', lines(MAX_LINES)],
      ['src/lib/excused.ts', lines(MAX_LINES + 1)],
      ['src/lib/short.ts', lines(10)],
    ])
    const excuses = { 'src/lib/excused.ts': 'why', 'src/lib/short.ts': 'why', 'src/gone.ts': 'why' }
    assert.deepEqual(
      tooLong(files, excuses).map((each) => each.split(' ')[0]),
      ['src/lib/long.ts', 'src/lib/short.ts', 'src/gone.ts'],
    )
  })

  test('find unfinished work and missing introductions', () => {
    const files: Sources = new Map([
      ['src/lib/a.ts', '\n// TODO: later'],
      ['src/lib/b.ts', '/* FIXME */'],
      ['src/lib/c.ts', '/** Introduces. */'],
      ['src/image/d.ts', 'import x'],
    ])
    assert.deepEqual(
      unfinished(files).map((each) => each.split(' ')[0]),
      ['src/lib/a.ts:2', 'src/lib/b.ts:1'],
    )
    assert.deepEqual(missingIntroductions(files, { 'src/lib': 'c.ts', 'src/image': 'd.ts' }), [
      'src/image/d.ts does not open with a comment',
    ])
    assert.deepEqual(missingIntroductions(files, { 'src/lib': 'x.ts' }), [
      'src/image has no main file in the table',
      'src/lib/x.ts does not open with a comment',
    ])
  })

  test('see every import that is written', () => {
    for (const [path, source] of sources) {
      const found = importsOf(source).map(({ specifier }) => specifier)
      const written = [...source.matchAll(/^(?:import|export|\}).* from '([^']+)'$/gm)]
      for (const [, specifier] of written)
        assert.ok(found.includes(specifier), `${path}: ${specifier}`)
    }
  })
})

interface Import {
  /** Undefined when the path is not a plain string. */
  readonly specifier: string | undefined
}

/** All ways to get at another module, as this code base is formatted. */
function importsOf(source: string): Import[] {
  const patterns = [
    /^\s*(?:import|export)\s+(?:type\s+)?[\w$*{},\s]+?\s*from\s*['"]([^'"]+)['"]/gm,
    /^\s*import\s*['"]([^'"]+)['"]/gm,
    /\bimport\s*\(\s*(?:['"]([^'"]+)['"])?/g,
    /\bnew URL\(\s*['"](\.[^'"]*\.ts)['"]/g,
    // another way round this check: never readable
    /\b(?:require|getBuiltinModule)\s*\(()/g,
  ]
  return patterns.flatMap((pattern) =>
    [...source.matchAll(pattern)].map(([, specifier]) => ({ specifier: specifier || undefined })),
  )
}

/** The path of an import of a file of ours, or undefined for a package. */
function localPath(from: string, specifier: string | undefined): string | undefined {
  return specifier?.startsWith('.') ? posix.join(posix.dirname(from), specifier) : undefined
}

/** The part of the house that a file is in. */
function layerOf(path: string): string {
  const [top = '', second = ''] = path.split('/')
  if (top === 'jobs') return 'jobs'
  return top === 'src' ? second : path
}

function wrongLayers(files: Sources): string[] {
  return [...files].flatMap(([path, source]) => {
    const layer = layerOf(path)
    const allowed = LAYERS[layer]
    if (!allowed) return [`${path} is in ${layer}, which no layer is known of`]
    return importsOf(source).flatMap(({ specifier }) => {
      const target = localPath(path, specifier)
      if (target === undefined) return []
      const to = layerOf(target)
      return to === layer || allowed.includes(to) ? [] : [`${path} imports ${target}`]
    })
  })
}

function brokenFences(files: Sources): string[] {
  return [...files].flatMap(([path, source]) =>
    importsOf(source).flatMap(({ specifier = '' }) => {
      const fence = FENCES[specifier]
      const inside = fence?.some((place) =>
        place.endsWith('/') ? path.startsWith(place) : path === place,
      )
      return !fence || inside ? [] : [`${path} uses ${specifier}`]
    }),
  )
}

function unknownPackages(files: Sources): string[] {
  const known = (specifier: string) => {
    if (specifier.startsWith('node:')) return builtinModules.includes(specifier.slice(5))
    const parts = specifier.split('/')
    const name = specifier.startsWith('@') ? parts.slice(0, 2).join('/') : parts[0]
    return name !== undefined && name in dependencies
  }
  return [...files].flatMap(([path, source]) =>
    importsOf(source).flatMap(({ specifier }) =>
      specifier === undefined || specifier.startsWith('.') || known(specifier)
        ? []
        : [`${path} imports ${specifier}`],
    ),
  )
}

function unreadableImports(files: Sources): string[] {
  return [...files].flatMap(([path, source]) =>
    importsOf(source).flatMap(({ specifier }) => {
      if (specifier === undefined) return [`${path} imports what cannot be read off`]
      const target = localPath(path, specifier)
      return target === undefined || files.has(target) ? [] : [`${path} imports ${target}: absent`]
    }),
  )
}

function cycles(files: Sources): string[] {
  const found: string[] = []
  const done = new Set<string>()
  const visit = (path: string, way: readonly string[]) => {
    const at = way.indexOf(path)
    if (at >= 0) found.push([...way.slice(at), path].join(' → '))
    if (at >= 0 || done.has(path)) return
    for (const { specifier } of importsOf(files.get(path) ?? '')) {
      const target = localPath(path, specifier)
      if (target !== undefined) visit(target, [...way, path])
    }
    done.add(path)
  }
  for (const path of files.keys()) visit(path, [])
  return found
}

function tooLong(files: Sources, excuses: Readonly<Record<string, string>>): string[] {
  const lines = (path: string) => (files.get(path) ?? '').split('\n').length - 1
  const long = [...files.keys()].filter((path) => lines(path) > MAX_LINES)
  return [
    ...long
      .filter((path) => !excuses[path])
      .map((path) => `${path} has ${lines(path)} lines: which phase does it hide?`),
    ...Object.keys(excuses)
      .filter((path) => !long.includes(path))
      .map((path) => `${path} needs no excuse`),
  ]
}

function unfinished(files: Sources): string[] {
  return [...files].flatMap(([path, source]) =>
    source
      .split('\n')
      .flatMap((line, at) =>
        /\b(?:TODO|FIXME|XXX|HACK)\b/.test(line) ? [`${path}:${at + 1} ${line.trim()}`] : [],
      ),
  )
}

function missingIntroductions(
  files: Sources,
  mainFiles: Readonly<Record<string, string>>,
): string[] {
  const folders = new Set([...files.keys()].map((path) => dirname(path)))
  return [
    ...[...folders]
      .filter((folder) => !(folder in mainFiles))
      .map((folder) => `${folder} has no main file in the table`),
    ...Object.entries(mainFiles)
      .map(([folder, name]) => `${folder}/${name}`)
      .filter((path) => !files.get(path)?.startsWith('/**'))
      .map((path) => `${path} does not open with a comment`),
  ]
}

async function readSources(): Promise<Sources> {
  const files = new Map<string, string>()
  for (const top of ['src', 'jobs']) {
    const entries = await readdir(join(ROOT, top), { recursive: true, withFileTypes: true }).catch(
      (error: NodeJS.ErrnoException) => {
        if (top === 'jobs' && error.code === 'ENOENT') return []
        throw error
      },
    )
    for (const entry of entries) {
      if (!entry.isFile()) continue
      const path = join(entry.parentPath, entry.name)
      files.set(relative(ROOT, path), await readFile(path, 'utf8'))
    }
  }
  return files
}

/** What is measured: Drover's verbs, and other tools at the same work where they are installed. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { versionOf } from './about.ts'
import type { CommandLine } from './measure.ts'

export interface Case {
  readonly name: string
  /** The goal as a multiple of the reference's time. */
  readonly goal?: number
  /** Makes things as they must be before each run; not measured. */
  readonly prepare: () => void
  readonly command: CommandLine
  /** Run once, without the reference: only its memory counts. */
  readonly once?: true
}

export interface Places {
  readonly image: string
  /** 32 GiB, nearly all of it holes. */
  readonly sparse: string
  /** An empty folder for the bench alone. */
  readonly work: string
}

const CONFIGS = 'backupstore/backing-images/backing-images'
const DROVER = fileURLToPath(new URL('../bin/drover', import.meta.url))
/** glibc's own defaults, to show what the launcher's settings bring. */
const DEFAULT_MALLOC = {
  MALLOC_MMAP_THRESHOLD_: '131072',
  MALLOC_TRIM_THRESHOLD_: '131072',
  MALLOC_TOP_PAD_: '131072',
}

export const reference = ({ image }: Places): CommandLine => ({
  argv: ['openssl', 'dgst', '-sha512', image],
})

export function droverCases({ image, sparse, work }: Places): Case[] {
  const fresh = join(work, 'fresh')
  const filled = join(work, 'filled')
  const out = join(work, 'out.raw')
  const target = (folder: string) => `vfs://${folder}`
  const url = `${target(filled)}?backingImage=real`
  const drover = (...args: string[]): CommandLine => ({ argv: [DROVER, ...args, '--quiet'] })
  const empty = (folder: string) => {
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
  }
  const backUp = (file: string, folder: string, name: string) =>
    execFileSync(DROVER, ['backup', file, '--target', target(folder), '--name', name, '--quiet'])
  empty(filled)
  backUp(image, filled, 'real')
  const backup = drover('backup', image, '--target', target(fresh), '--name', 'real')
  const restore = drover('restore', url, out)
  const noOut = () => rmSync(out, { force: true })
  return [
    { name: 'first backup', goal: 1.2, prepare: () => empty(fresh), command: backup },
    {
      name: 'first backup, malloc defaults',
      prepare: () => empty(fresh),
      command: { ...backup, env: DEFAULT_MALLOC },
    },
    {
      name: 'first backup, one core',
      prepare: () => empty(fresh),
      command: { ...backup, argv: ['taskset', '-c', '0', ...backup.argv] },
    },
    {
      name: 'backup under a new name',
      goal: 1.1,
      prepare: () => {
        rmSync(join(filled, CONFIGS, 'again'), { recursive: true, force: true })
      },
      command: drover('backup', image, '--target', target(filled), '--name', 'again'),
    },
    { name: 'restore', goal: 1, prepare: noOut, command: restore },
    {
      name: 'restore, malloc defaults',
      prepare: noOut,
      command: { ...restore, env: DEFAULT_MALLOC },
    },
    {
      name: 'restore --verify blocks',
      goal: 0.55,
      prepare: noOut,
      command: drover('restore', url, out, '--verify', 'blocks'),
    },
    {
      name: 'verify --level full',
      goal: 1,
      prepare: () => undefined,
      command: drover('verify', url),
    },
    {
      name: 'verify --level blocks',
      prepare: () => undefined,
      command: drover('verify', url, '--level', 'blocks'),
    },
    {
      name: 'backup of 32 GiB of holes',
      once: true,
      prepare: () => empty(fresh),
      command: drover('backup', sparse, '--target', target(fresh), '--name', 'sparse'),
    },
    {
      name: 'restore of 32 GiB of holes',
      once: true,
      prepare: () => {
        noOut()
        if (!existsSync(join(fresh, CONFIGS, 'sparse'))) {
          empty(fresh)
          backUp(sparse, fresh, 'sparse')
        }
      },
      command: drover('restore', `${target(fresh)}?backingImage=sparse`, out),
    },
  ]
}

/** Other tools, each backing up and restoring the same file on a local folder. */
export function otherCases({ image, work }: Places): Case[] {
  const cases: Case[] = []
  const clear = (folder: string) => rmSync(folder, { recursive: true, force: true })
  const add = (tool: string, make: (folder: string) => [Case, Case]) => {
    if (!isInstalled(tool)) return
    const [backup, restore] = make(join(work, tool))
    let madeBackup = false
    const prepareBackup = () => {
      backup.prepare()
      madeBackup = true
    }
    const prepareRestore = () => {
      if (!madeBackup) {
        prepareBackup()
        const { argv, env, cwd } = backup.command
        execFileSync(argv[0] ?? '', argv.slice(1), { cwd, env: { ...process.env, ...env } })
      }
      restore.prepare()
    }
    cases.push({ ...backup, prepare: prepareBackup }, { ...restore, prepare: prepareRestore })
  }
  add('restic', (folder) => {
    const env = {
      RESTIC_REPOSITORY: folder,
      RESTIC_PASSWORD: 'bench',
      RESTIC_CACHE_DIR: `${folder}-cache`,
    }
    const init = () => {
      clear(folder)
      execFileSync('restic', ['init', '-q'], { env: { ...process.env, ...env } })
    }
    return [
      {
        name: 'restic backup',
        prepare: init,
        command: { argv: ['restic', 'backup', '-q', image], env },
      },
      {
        name: 'restic restore',
        prepare: () => clear(`${folder}-out`),
        command: { argv: ['restic', 'restore', '-q', 'latest', '--target', `${folder}-out`], env },
      },
    ]
  })
  add('borg', (folder) => {
    const env = {
      BORG_REPO: folder,
      BORG_BASE_DIR: `${folder}-base`,
      BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: 'yes',
      BORG_RELOCATED_REPO_ACCESS_IS_OK: 'yes',
    }
    return [
      {
        name: 'borg backup',
        prepare: () => {
          clear(folder)
          clear(`${folder}-base`)
          execFileSync('borg', ['init', '-e', 'none'], { env: { ...process.env, ...env } })
        },
        command: { argv: ['borg', 'create', '--sparse', '::real', image], env },
      },
      {
        name: 'borg restore',
        prepare: () => {
          clear(`${folder}-out`)
          mkdirSync(`${folder}-out`)
        },
        command: { argv: ['borg', 'extract', '--sparse', '::real'], env, cwd: `${folder}-out` },
      },
    ]
  })
  add('casync', (folder) => [
    {
      name: 'casync backup',
      prepare: () => {
        clear(folder)
        mkdirSync(folder)
      },
      command: {
        argv: [
          'casync',
          'make',
          '--digest=sha512-256',
          `--store=${folder}/store`,
          `${folder}.caibx`,
          image,
        ],
      },
    },
    {
      name: 'casync restore',
      prepare: () => rmSync(`${folder}-out.raw`, { force: true }),
      command: {
        argv: [
          'casync',
          'extract',
          '--digest=sha512-256',
          `--store=${folder}/store`,
          `${folder}.caibx`,
          `${folder}-out.raw`,
        ],
      },
    },
  ])
  add('desync', (folder) => [
    {
      name: 'desync backup',
      prepare: () => {
        clear(folder)
        mkdirSync(folder)
      },
      command: { argv: ['desync', 'make', '-s', folder, `${folder}.caibx`, image] },
    },
    {
      name: 'desync restore',
      prepare: () => rmSync(`${folder}-out.raw`, { force: true }),
      command: {
        argv: ['desync', 'extract', '-s', folder, `${folder}.caibx`, `${folder}-out.raw`],
      },
    },
  ])
  return cases
}

const isInstalled = (tool: string): boolean =>
  versionOf(tool) !== undefined || versionOf(tool, 'version') !== undefined

/** The command line as its users and their scripts meet it. */
import assert from 'node:assert/strict'
import { mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { delimiter, dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { runCommand, unlessThere } from '../helpers/command.ts'
import { DROVER, drover, droverJson, startDrover } from '../helpers/drover.ts'
import { BLOCK, makeImage, noise, sha512, text } from '../helpers/images.ts'
import { installPackage } from '../helpers/installed.ts'
import { filesBelow } from '../helpers/stores.ts'
import { tempFolder } from '../helpers/temp.ts'
import { waitUntil } from '../helpers/wait-until.ts'
import {
  backUp,
  failed,
  fails,
  lockFiles,
  openWorkspace,
  placeholder,
  readConfig,
  runJson,
  snapshot,
  writeConfig,
  writeLock,
} from '../helpers/workspace.ts'

const ROOT = dirname(dirname(DROVER))
const COMMANDS = [
  'backup',
  'restore',
  'list',
  'inspect',
  'verify',
  'delete',
  'gc',
  'doctor',
] as const

type Shape =
  | 'string'
  | 'number'
  | 'boolean'
  | 'string or null'
  | 'strings'
  | readonly [Shape]
  | { readonly [member: string]: Shape }

/** Every member that scripts rely on is there with its type; more of them do no harm. */
function assertShape(value: any, shape: Shape, where = 'document'): void {
  if (typeof shape === 'string') {
    if (shape === 'strings') {
      for (const text of Object.values(value)) assert.equal(typeof text, 'string', where)
    } else if (shape !== 'string or null') assert.equal(typeof value, shape, where)
    else if (value !== null) assert.equal(typeof value, 'string', where)
  } else if (Array.isArray(shape)) {
    assert.ok(Array.isArray(value), `${where} is an array`)
    for (const [at, element] of value.entries()) assertShape(element, shape[0], `${where}[${at}]`)
  } else {
    for (const [member, inner] of Object.entries(shape)) {
      assert.ok(Object.hasOwn(value, member), `${where} has ${member}`)
      assertShape(value[member], inner, `${where}.${member}`)
    }
  }
}

const BACKUP: Shape = {
  name: 'string',
  url: 'string',
  sizeBytes: 'number',
  checksum: 'string',
  compression: 'string',
  blocks: { total: 'number', zero: 'number', reused: 'number', new: 'number' },
  bytesWritten: 'number',
  seconds: 'number',
  outcome: 'string',
}
const LISTED = {
  name: 'string',
  url: 'string',
  sizeBytes: 'number',
  checksum: 'string',
  createdAt: 'string',
  completedAt: 'string',
  compression: 'string',
  labels: 'strings',
} as const

const makeSmall = (file: string, seed = 1) => makeImage(file, 1024, [[0, noise(seed, 1024)]])

describe('--json', { concurrency: 4 }, () => {
  it('answers every command with one document of the promised members', async (t) => {
    const space = await openWorkspace(t)
    const { store, target, url, path } = space
    const image = path('disk.raw')
    await makeImage(image, 3 * BLOCK, [[0, text(1, BLOCK)]])
    await writeConfig(store, 'begun', placeholder('begun'))
    await writeConfig(store, 'garbage', 'this is no config')

    const made = await backUp(space, image, '--label', 'a=b')
    assertShape(made, BACKUP)
    assert.deepEqual(
      [made.name, made.url, made.sizeBytes, made.checksum, made.compression, made.outcome],
      ['disk', url('disk'), 3 * BLOCK, await sha512(image), 'lz4', 'created'],
    )
    assert.deepEqual(made.blocks, { total: 3, zero: 2, reused: 0, new: 1 })

    const restored = await droverJson('restore', url('disk'), path('again.raw'))
    assertShape(restored, {
      url: 'string',
      file: 'string',
      sizeBytes: 'number',
      checksum: 'string or null',
      verified: 'string',
      seconds: 'number',
    })
    assert.deepEqual(
      [restored.url, restored.file, restored.sizeBytes, restored.checksum, restored.verified],
      [url('disk'), path('again.raw'), 3 * BLOCK, made.checksum, 'full'],
    )

    const listed = await droverJson('list', '--target', target)
    assertShape(listed, {
      target: 'string',
      backups: [LISTED],
      incomplete: [{ name: 'string', createdAt: 'string' }],
      unreadable: [{ name: 'string', reason: 'string' }],
    })
    assert.equal(listed.target, target)
    assert.deepEqual(
      [listed.backups.length, listed.incomplete.length, listed.unreadable.length],
      [1, 1, 1],
    )

    assertShape(await droverJson('inspect', url('disk')), LISTED)

    const deleted = await droverJson('delete', url('garbage'))
    assertShape(deleted, { url: 'string', removedBlocks: 'number', freedBytes: 'number' })
    assert.equal(deleted.url, url('garbage'))

    await rm(join(store, 'backupstore/backing-images/backing-images/begun'), { recursive: true })
    const collected = await droverJson('gc', '--target', target)
    assertShape(collected, {
      target: 'string',
      dryRun: 'boolean',
      removed: 'number',
      kept: 'number',
      freedBytes: 'number',
    })
    assert.deepEqual([collected.target, collected.dryRun], [target, false])

    const { Blocks = [] } = await readConfig(store, 'disk')
    const id = Blocks[0]?.BlockChecksum ?? ''
    const verifyShape: Shape = {
      url: 'string',
      level: 'string',
      ok: 'boolean',
      blocks: { total: 'number', checked: 'number' },
      missing: [{ id: 'string', offsets: ['number'] }],
      corrupt: [{ id: 'string', offsets: ['number'], reason: 'string' }],
      checksum: 'string or null',
    }
    const verified = await droverJson('verify', url('disk'))
    assertShape(verified, verifyShape)
    assert.deepEqual(
      [verified.url, verified.level, verified.ok, verified.checksum],
      [url('disk'), 'full', true, made.checksum],
    )
    const block = join(
      store,
      `backupstore/backing-images/blocks/${id.slice(0, 2)}/${id.slice(2, 4)}/${id}.blk`,
    )
    await writeFile(block, 'damaged')
    const corrupt = await runJson(['verify', url('disk')])
    assert.equal(corrupt.code, 3)
    assertShape(corrupt.document, verifyShape)
    assert.equal(corrupt.document.ok, false)
    assert.equal(corrupt.document.corrupt.length, 1)
    await rm(block)
    const missing = await runJson(['verify', url('disk')])
    assert.equal(missing.code, 3)
    assertShape(missing.document, verifyShape)
    assert.deepEqual(missing.document.missing, [{ id, offsets: [0] }])
  })

  it('answers a failure with one document, whatever failed', async (t) => {
    const space = await openWorkspace(t)
    const { target, url, path, folder } = space
    await makeSmall(path('disk.raw'))
    await makeSmall(path('other.raw'), 2)
    await backUp(space, path('disk.raw'))
    const before = await snapshot(folder)
    await Promise.all([
      fails(1, 'SOURCE_NOT_FOUND', ['backup', path('none.raw'), '--target', target]),
      fails(1, 'SOURCE_UNREADABLE', ['backup', space.store, '--target', target]),
      fails(1, 'TARGET_NOT_FOUND', ['list', '--target', `vfs://${path('none')}`]),
      fails(1, 'TARGET_UNSUPPORTED', ['list', '--target', 'cifs://server/share']),
      fails(1, 'TARGET_UNSUPPORTED', ['list', '--target', 'https://example.org/store']),
      fails(1, 'NAME_CONFLICT', ['backup', path('other.raw'), '--target', target, '--name=disk']),
      fails(1, 'FILE_EXISTS', ['restore', url('disk'), path('other.raw')]),
      fails(1, 'FILE_UNWRITABLE', ['restore', url('disk'), path('no/such/folder')]),
      fails(1, 'CHECKSUM_MISMATCH', [
        'restore',
        url('disk'),
        path('out'),
        `--checksum=${'0'.repeat(128)}`,
      ]),
      fails(3, 'BACKUP_NOT_FOUND', ['restore', url('none'), path('out')]),
      fails(3, 'BACKUP_NOT_FOUND', ['verify', url('none')]),
      fails(3, 'BACKUP_NOT_FOUND', ['inspect', url('none')]),
      fails(3, 'BACKUP_NOT_FOUND', ['delete', url('none')]),
    ])
    assert.deepEqual(await snapshot(folder), before)
  })

  it('answers wrong usage in the same way, with exit code 2', async (t) => {
    const { target, url, path, folder, store } = await openWorkspace(t)
    await makeSmall(path('disk.raw'))
    const backup = ['backup', path('disk.raw'), '--target', target]
    const wrong: string[][] = [
      [],
      ['frobnicate'],
      ['backup', '--target', target],
      ['backup', path('disk.raw')],
      ['restore', url('disk')],
      ['restore', url('disk'), path('a'), path('b')],
      ['list'],
      ['list', '--target', target, '--frobnicate'],
      ['verify'],
      ['delete'],
      ['gc'],
      ...['0', 'abc', '-1', '1.5', '33', '', '2x'].map((n) => [...backup, `--concurrency=${n}`]),
      ['restore', url('disk'), path('a'), '--concurrent-limit', '0'],
      [...backup, '--compression', 'zstd'],
      [...backup, '--checksum', 'abc'],
      [...backup, '--checksum', 'g'.repeat(128)],
      [...backup, '--label', 'no-value'],
      [...backup, '--label', '=no-key'],
      [...backup, '--label', 'a=1', '--label', 'a=2'],
      ...['soon', '', '-5s', '5 parsecs'].map((d) => [...backup, `--lock-timeout=${d}`]),
      ['gc', '--target', target, '--min-age', '1y'],
      ['delete', url('disk'), '--min-age', 'h'],
      ['verify', url('disk'), '--level', 'deep'],
      ['restore', url('disk'), path('a'), '--verify', 'none'],
    ]
    for (const args of wrong) {
      const { message } = await fails(2, 'USAGE', args)
      assert.notEqual(message, '')
    }
    const urls: Array<[string, string[]]> = [
      ['INVALID_URL', ['list', '--target', 'nonsense']],
      ['INVALID_URL', ['list', '--target', '']],
      ['INVALID_URL', ['list', '--target', store]],
      ['INVALID_URL', ['list', '--target', 'vfs://relative/path']],
      ['INVALID_URL', ['list', '--target', `${target}?option=1`]],
      ['INVALID_URL', ['list', '--target', url('disk')]],
      ['INVALID_URL', ['list', '--target', `${target}%zz`]],
      ['INVALID_URL', ['verify', target]],
      ['INVALID_URL', ['verify', `${url('disk')}&backingImage=other`]],
      ['INVALID_NAME', ['verify', `${target}?backingImage=`]],
      ['INVALID_NAME', ['verify', `${target}?backingImage=..%2F..%2Fetc`]],
      ['INVALID_NAME', ['delete', `${target}?backingImage=..`]],
      ['INVALID_NAME', [...backup, '--name', 'Upper_Case']],
      ['INVALID_NAME', [...backup, '--name', '../escape', '--allow-any-name']],
      ['INVALID_NAME', [...backup, '--name', 'x', '--allow-any-name']],
      ['INVALID_NAME', [...backup, '--name', 'n'.repeat(41)]],
    ]
    for (const [code, args] of urls) await fails(2, code, args)
    assert.deepEqual(await filesBelow(folder), ['disk.raw'])
  })

  it('says what was expected and what came', async (t) => {
    const { target, path } = await openWorkspace(t)
    const backup = ['backup', path('disk.raw'), '--target', target]
    const { message: count } = await fails(2, 'USAGE', [...backup, '--concurrency', 'abc'])
    assert.match(count, /--concurrency/)
    assert.match(count, /1 to \d+/)
    assert.match(count, /"abc"/)
    const { message: sum } = await fails(2, 'USAGE', [...backup, '--checksum', 'abc'])
    assert.match(sum, /128 hex digits, got "abc"/)
    const { message: age } = await fails(2, 'USAGE', ['gc', '--target', target, '--min-age', '1y'])
    assert.match(age, /--min-age.*1h30m.*"1y"/)
    const { message: name } = await fails(2, 'INVALID_NAME', [...backup, '--name', 'Web_1'])
    assert.match(name, /--name web-1\b/)
    assert.match(name, /--allow-any-name/)
  })
})

describe('the command line', { concurrency: 4 }, () => {
  it('shows help with examples for each command, and names them all in its own', async () => {
    const whole = await drover('--help')
    assert.equal(whole.code, 0)
    assert.match(whole.stdout, /Exit codes:[^]*130 interrupted/)
    const options: Record<(typeof COMMANDS)[number], string> = {
      backup:
        '--target --name --checksum --compression --label --concurrency --replace --allow-any-name',
      restore: '--checksum --concurrent-limit --verify --force --no-lock --lock-timeout',
      list: '--target',
      inspect: '',
      verify: '--level --no-lock --lock-timeout',
      delete: '--lock-timeout',
      gc: '--target --dry-run --min-age',
      doctor: '--target',
    }
    for (const command of COMMANDS) {
      assert.match(whole.stdout, new RegExp(`^ +${command}\\b`, 'm'))
      const { code, stdout, stderr } = await drover(command, '--help')
      assert.deepEqual([code, stderr], [0, ''])
      assert.match(stdout, new RegExp(`\\nExamples:\\n +drover ${command} `))
      for (const option of `${options[command]} --json --quiet --debug`.trim().split(' ')) {
        assert.match(stdout, new RegExp(` ${option}\\b`), `${command} explains ${option}`)
      }
    }
  })

  it('knows its version', async () => {
    const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))
    const { code, stdout, stderr } = await drover('--version')
    assert.deepEqual([code, stdout, stderr], [0, `${version}\n`, ''])
  })

  it('tells of an error in one line with a code, and shows the stack only when asked', async (t) => {
    const { url, path } = await openWorkspace(t)
    const plain = await drover('restore', url('none'), path('out'), '--quiet')
    assert.equal(plain.code, 3)
    assert.equal(plain.stdout, '')
    assert.match(plain.stderr, /^drover: BACKUP_NOT_FOUND: [^\n]*none[^\n]*\n$/)
    const deep = await drover('restore', url('none'), path('out'), '--quiet', '--debug')
    assert.equal(deep.code, 3)
    assert.match(deep.stderr, /^drover: BACKUP_NOT_FOUND: [^\n]*\n[^]*\n {4}at /)
  })

  it('tells how far it is in plain lines, and nothing at all with --quiet', async (t) => {
    const { target, url, path } = await openWorkspace(t)
    const image = path('disk.raw')
    await makeImage(image, 8 * BLOCK, [[0, text(1, BLOCK)]])
    const backup = await drover('backup', image, '--target', target)
    assert.equal(backup.code, 0)
    assert.match(backup.stderr, /^backing up 16 MiB$/m)
    assert.match(backup.stderr, /^backing up 100% /m)
    assert.ok(!backup.stderr.includes('\u001b') && !backup.stderr.includes('\r'))
    assert.match(backup.stdout, /^disk: created$/m)
    assert.match(backup.stdout, /1 new, 0 reused, 7 zero/)
    assert.match(backup.stdout, /\d+ bytes\)/)
    assert.match(backup.stdout, /[KMG]iB\/s/)
    const restore = await drover('restore', url('disk'), path('again.raw'))
    assert.match(restore.stderr, /^restoring 16 MiB$/m)
    for (const args of [
      ['backup', image, '--target', target],
      ['restore', url('disk'), path('third.raw')],
      ['verify', url('disk')],
      ['list', '--target', target],
      ['inspect', url('disk')],
      ['gc', '--target', target],
      ['delete', url('disk')],
    ]) {
      const { code, stdout, stderr } = await drover(...args, '--quiet')
      assert.deepEqual([code, stderr], [0, ''], args.join(' '))
      assert.notEqual(stdout, '', args.join(' '))
    }
  })

  it('draws a bar on a terminal', { skip: unlessThere('script') }, async (t) => {
    const { target, path } = await openWorkspace(t)
    await makeImage(path('disk.raw'), 200 * BLOCK, [[0, text(1, BLOCK)]])
    const command = `stty cols 100; '${DROVER}' backup '${path('disk.raw')}' --target '${target}'`
    const onTerminal = async (line: string) =>
      (await runCommand('script', ['-qec', line, '/dev/null'])).stdout.toString()
    const bar = await onTerminal(command)
    assert.match(bar, /\[█*·*\] backing up \d+%/)
    assert.ok(bar.includes('\r\u001b[K['))
    assert.match(bar, /disk: created/)
    const quiet = await onTerminal(`${command} --quiet`)
    assert.ok(!quiet.includes('\u001b') && !quiet.includes('backing up'))
    assert.match(quiet, /disk: unchanged/)
  })

  it("makes a backup's name from the file's, and shows it", async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('My Disk (v2)_Final.QCOW2')
    await makeSmall(image)
    const { code, stdout } = await drover('backup', image, '--target', space.target)
    assert.equal(code, 0)
    assert.match(stdout, /^my-disk-v2-final: created$/m)
    assert.ok(stdout.includes(space.url('my-disk-v2-final')))
    const { backups } = await droverJson('list', '--target', space.target)
    assert.deepEqual(
      [backups[0].name, backups[0].url],
      ['my-disk-v2-final', space.url('my-disk-v2-final')],
    )
  })

  it("takes any name that Longhorn's store takes, but only when told to", async (t) => {
    const space = await openWorkspace(t)
    const image = space.path('disk.raw')
    await makeSmall(image)
    const name = 'Upper_Case.And-more'
    const { suggestion } = (
      await fails(2, 'INVALID_NAME', ['backup', image, '--target', space.target, '--name', name])
    ).details
    assert.equal(suggestion, 'upper-case.and-more')
    const made = await backUp(space, image, '--name', name, '--allow-any-name')
    assert.equal(made.name, name)
    await droverJson('restore', space.url(name), space.path('again.raw'))
    assert.equal(await sha512(space.path('again.raw')), made.checksum)
    assert.equal((await droverJson('verify', space.url(name))).ok, true)
    await droverJson('delete', space.url(name))
  })

  it('works from any folder, with relative paths, through links to it', async (t) => {
    const { folder, target, url, path } = await openWorkspace(t)
    await makeSmall(path('disk.raw'))
    await mkdir(path('bin'))
    await mkdir(path('elsewhere'))
    await symlink(DROVER, path('bin/first'))
    await symlink('first', path('bin/drover'))
    const at = (cwd: string, program: string, ...args: string[]) =>
      runCommand(program, [...args, '--json', '--quiet'], {
        cwd,
        env: { PATH: `${path('bin')}${delimiter}${process.env['PATH']}` },
      })
    const made = await at(folder, 'drover', 'backup', 'disk.raw', '--target', target)
    assert.equal(made.code, 0, made.stderr)
    const restored = await at(
      path('elsewhere'),
      path('bin/drover'),
      'restore',
      url('disk'),
      './again.raw',
    )
    assert.equal(restored.code, 0, restored.stderr)
    assert.equal(JSON.parse(restored.stdout.toString()).file, path('elsewhere/again.raw'))
    assert.equal(await sha512(path('elsewhere/again.raw')), await sha512(path('disk.raw')))
    const inBin = await at(dirname(DROVER), './drover', 'list', '--target', target)
    assert.equal(inBin.code, 0, inBin.stderr)
    assert.equal(JSON.parse(inBin.stdout.toString()).backups.length, 1)
  })

  it('works as an installed package', { skip: unlessThere('npm') }, async (t) => {
    const { command, files } = await installPackage(await tempFolder(t))
    assert.ok(files.includes('bin/drover'))
    assert.ok(files.includes('LICENSE'))
    assert.ok(files.includes('README.md'))
    const foreign = files.filter((path) => /^(src|test|demo|node_modules|\.ci)\/|\.ts$/.test(path))
    assert.deepEqual(foreign, [])

    const { target, url, path } = await openWorkspace(t)
    await makeImage(path('disk.raw'), BLOCK + 512, [[0, text(1, BLOCK)]])
    const env = { DROVER_NODE: process.execPath }
    const installed = (...args: string[]) => runCommand(command, args, { cwd: path('.'), env })
    const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))
    assert.equal((await installed('--version')).stdout.toString(), `${version}\n`)
    const made = await installed('backup', 'disk.raw', '--target', target)
    assert.equal(made.code, 0, made.stderr)
    const restored = await installed('restore', url('disk'), 'again.raw')
    assert.equal(restored.code, 0, restored.stderr)
    assert.equal(await sha512(path('again.raw')), await sha512(path('disk.raw')))
  })

  it('says so when it finds no Node', async () => {
    const { code, stdout, stderr } = await startDrover(['--version'], {
      env: { DROVER_NODE: '/no/such/node' },
    }).done
    assert.deepEqual([code, stdout], [1, ''])
    assert.match(stderr, /^drover: found no Node \(\/no\/such\/node\)[^\n]*\n$/)
  })

  it('ends quietly when nobody reads on', { skip: unlessThere('bash') }, async (t) => {
    const { store, target, url } = await openWorkspace(t)
    const config = { ...placeholder('any'), Size: '512', CompleteTime: '2026-01-31T03:00:00Z' }
    // more than a pipe holds
    await Promise.all(
      Array.from({ length: 400 }, (_, n) =>
        writeConfig(store, `backup-${n}`, { ...config, Name: `backup-${n}` }),
      ),
    )
    const script = '"$@" | head -c 1; exit "${PIPESTATUS[0]}"'
    for (const args of [
      ['list', '--target', target, '--json'],
      ['list', '--target', target],
      ['inspect', url('none'), '--json'],
      ['backup', '--help'],
      [],
    ]) {
      const result = await runCommand('bash', ['-c', script, 'bash', DROVER, ...args])
      assert.doesNotMatch(result.stderr, /EPIPE|Error:|^ {4}at |node:/m)
      assert.ok(result.stdout.length <= 1)
      assert.equal(result.signal, null)
      assert.ok([0, 1, 2, 3].includes(result.code ?? -1), `${args.join(' ')}: ${result.code}`)
    }
    const whole = await droverJson('list', '--target', target)
    assert.equal(whole.backups.length, 400)
  })

  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    it(`ends with 130 after ${signal}, without its lock and with a document`, async (t) => {
      const { store, target, path } = await openWorkspace(t)
      await makeSmall(path('disk.raw'))
      const lock = await writeLock(store, { type: 2 })
      const running = startDrover(['backup', path('disk.raw'), '--target', target, '--json'])
      t.after(() => running.child.kill('SIGKILL'))
      let said = ''
      running.child.stderr?.on('data', (text: string) => (said += text))
      await waitUntil(() => said.includes('waiting for lock-'), 'it waits for the lock')
      running.child.kill(signal)
      failed(await running.done, 130, 'INTERRUPTED')
      assert.deepEqual(
        (await filesBelow(store)).map((file) => join(store, file)),
        [lock],
      )
    })

    it(`ends with 130 after ${signal} in the middle of reading an image`, async (t) => {
      const { store, target, path } = await openWorkspace(t)
      await makeImage(path('disk.raw'), 4 * 1024 ** 3, [[0, text(1, BLOCK)]])
      const running = startDrover(['backup', path('disk.raw'), '--target', target, '--json'])
      t.after(() => running.child.kill('SIGKILL'))
      await waitUntil(async () => (await lockFiles(store)).length > 0, 'it has begun')
      let said = ''
      running.child.stderr?.on('data', (text: string) => (said += text))
      await waitUntil(() => /backing up \d+%/.test(said), 'it has read some')
      running.child.kill(signal)
      failed(await running.done, 130, 'INTERRUPTED')
      // blocks that were stored by then only make the next run shorter
      const files = await filesBelow(store)
      assert.deepEqual(
        files.filter((file) => !file.endsWith('.blk')),
        [],
      )
    })
  }
})

/** What a terminal would obey: everything but the new lines of our own. */
// eslint-disable-next-line no-control-regex -- control characters are what is looked for
const OBEYED = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/

describe('what a hostile store says', { concurrency: 4 }, () => {
  const EVIL = '\u001b]0;owned\u0007\u001b[31m\u009b31m\u202edlrow\r\u2028\u007f'
  const good = {
    ...placeholder('labelled'),
    Size: '512',
    CompleteTime: '2026-01-31T03:00:00Z',
  }

  /** Runs a command; returns what of its output a terminal would obey, with some text around. */
  const obeyed = async (args: readonly string[]): Promise<string[]> => {
    const { stdout, stderr } = await drover(...args)
    return Object.entries({ stdout, stderr }).flatMap(([stream, told]) => {
      const at = told.search(OBEYED)
      const around = JSON.stringify(told.slice(Math.max(0, at - 60), at + 60))
      return at === -1 ? [] : [`${args.join(' ')}: ${stream}: ${around}`]
    })
  }

  const configs: Record<string, object | string> = {
    label: { Labels: { [`k${EVIL}`]: EVIL, plain: 'value' } },
    size: { Size: EVIL },
    compression: { CompressionMethod: EVIL },
    checksum: { Checksum: EVIL },
    time: { CompleteTime: `2026-01-31T03:00:00Z\u0000${EVIL}` },
    begun: { CompleteTime: '', CreatedTime: `2026-01-31T03:00:00Z\u0000${EVIL}` },
    unknown: { [EVIL]: 1 },
    twice: `{${JSON.stringify(EVIL)}:1,${JSON.stringify(EVIL)}:2}`,
    name: { Name: EVIL },
    text: `{"Name": ${EVIL}`,
    [`x${EVIL.replaceAll('/', '')}`]: {},
  }
  const readable = Object.keys(configs).filter((name) => /^\w+$/.test(name))

  const writeAll = async (store: string) => {
    for (const [name, config] of Object.entries(configs)) {
      const whole = typeof config === 'string' ? config : { ...good, Name: name, ...config }
      await writeConfig(store, name, whole)
    }
  }

  const ways = { 'to the terminal': [], 'with --json': ['--json'], 'with --debug': ['--debug'] }
  for (const [way, flags] of Object.entries(ways)) {
    it(`is never told as it is ${way}`, async (t) => {
      const { store, target, url, path } = await openWorkspace(t)
      await writeAll(store)
      const found = [
        await obeyed(['list', '--target', target, ...flags]),
        await obeyed(['verify', url('label'), '--no-lock', ...flags]),
        await obeyed(['restore', url('compression'), path('out'), '--no-lock', ...flags]),
      ]
      for (const name of readable) found.push(await obeyed(['inspect', url(name), ...flags]))
      assert.deepEqual(found.flat(), [])
    })
  }

  it('is told of in a listing all the same', async (t) => {
    const { store, target } = await openWorkspace(t)
    await writeAll(store)
    const { backups, incomplete, unreadable } = await droverJson('list', '--target', target)
    const told = [...backups, ...incomplete, ...unreadable]
    assert.deepEqual(
      told.map(({ name }: { name: string }) => name).sort((a, b) => (a < b ? -1 : 1)),
      Object.keys(configs).sort((a, b) => (a < b ? -1 : 1)),
    )
    const label = backups.find(({ name }: { name: string }) => name === 'label')
    assert.deepEqual(label.labels, { [`k${EVIL}`]: EVIL, plain: 'value' })
  })

  it('is never told as it is when blocks are collected or a name is wanted', async (t) => {
    const { store, target, path } = await openWorkspace(t)
    await makeSmall(path('labelled.raw'))
    await writeConfig(store, 'labelled', { ...good, CompressionMethod: EVIL })
    await writeConfig(store, 'begun', {
      ...good,
      Name: 'begun',
      CompleteTime: '',
      CreatedTime: `2026-01-31T03:00:00Z\u0000${EVIL}`,
    })
    await writeLock(store, { type: 1, raw: EVIL, name: `lock-${EVIL.replaceAll('/', '')}` })
    const commands = [
      ['gc', '--target', target, '--lock-timeout', '0s'],
      ['backup', path('labelled.raw'), '--target', target],
      ['backup', path('labelled.raw'), '--target', target, '--name', 'begun'],
    ]
    const busy = await Promise.all(commands.map((args) => obeyed([...args, '--lock-timeout=0s'])))
    await rm(join(store, 'backupstore/volumes'), { recursive: true })
    const free = await Promise.all(commands.map(obeyed))
    assert.deepEqual([...busy, ...free].flat(), [])
    for (const name of ['begun', 'labelled']) {
      assert.deepEqual(await obeyed(['delete', `${target}?backingImage=${name}`]), [])
    }
  })
})

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import type { BackupName } from '../../../src/backupstore/names.ts'
import {
  backupUrl,
  parseBackupUrl,
  parseTargetUrl,
  sameTarget,
} from '../../../src/backupstore/target-url.ts'
import { isDroverError } from '../../../src/lib/errors.ts'

const UBUNTU = 'ubuntu' as BackupName

describe('a folder target', () => {
  const cases: Array<[text: string, path: string]> = [
    ['vfs:///mnt/store', '/mnt/store'],
    ['vfs:///mnt/store/', '/mnt/store'],
    ['vfs:///', '/'],
    ['vfs:////mnt//store', '/mnt/store'],
    ['vfs:///mnt/./a/../store', '/mnt/store'],
    ['vfs:///../../mnt', '/mnt'],
    ['vfs:///mnt/%2e%2e/store', '/store'],
    ['vfs:///my%20backups', '/my backups'],
    ['vfs:///my backups', '/my backups'],
    ['vfs:///a%23b%3Fc', '/a#b?c'],
    ['vfs:///%E2%82%AC', '/€'],
    ['vfs:///a:b@c', '/a:b@c'],
    ['VFS:///mnt', '/mnt'],
  ]
  for (const [text, path] of cases) {
    it(`${text} is the folder ${path}`, () => {
      assert.deepEqual(parseTargetUrl(text), { kind: 'vfs', text, path })
    })
  }

  it('loses spaces and line ends around it, which come from copying', () => {
    const target = parseTargetUrl('  vfs:///mnt/store\n')
    assert.deepEqual(target, { kind: 'vfs', text: 'vfs:///mnt/store', path: '/mnt/store' })
  })
})

describe('an NFS target', () => {
  const cases: Array<[text: string, server: string, path: string, options: string[]]> = [
    ['nfs://server:/export/path', 'server', '/export/path', []],
    ['nfs://server/export', 'server', '/export', []],
    ['nfs://10.0.0.7:/export//a/../b/', '10.0.0.7', '/export/b', []],
    ['nfs://[fd00::1]:/export', '[fd00::1]', '/export', []],
    ['nfs://nas.example.org:/a%20b', 'nas.example.org', '/a b', []],
    ['nfs://s:/p?nfsOptions=soft,timeo=330', 's', '/p', ['soft', 'timeo=330']],
    [
      'nfs://s:/p?nfsOptions=soft&nfsOptions=timeo=330,retrans=3',
      's',
      '/p',
      ['soft', 'timeo=330', 'retrans=3'],
    ],
    ['nfs://s:/p?nfsOptions=soft%2Cretry%3D2', 's', '/p', ['soft', 'retry=2']],
    ['nfs://s:/p?nfsOptions=', 's', '/p', []],
  ]
  for (const [text, server, path, options] of cases) {
    it(`${text} is ${path} of ${server}${options.length > 0 ? ` with ${options.join(' ')}` : ''}`, () => {
      assert.deepEqual(parseTargetUrl(text), { kind: 'nfs', text, server, path, options })
    })
  }
})

describe('an S3 target', () => {
  const cases: Array<[text: string, bucket: string, region: string | undefined, path: string]> = [
    ['s3://bucket@eu-west-1/path/', 'bucket', 'eu-west-1', 'path'],
    ['s3://bucket/path/', 'bucket', undefined, 'path'],
    ['s3://bucket@us-east-1/', 'bucket', 'us-east-1', ''],
    ['s3://bucket', 'bucket', undefined, ''],
    ['s3://bucket@r//a//b/./c/../d/', 'bucket', 'r', 'a/b/d'],
    ['s3://bucket@r/../../a', 'bucket', 'r', 'a'],
    ['s3://bucket@r/a%20b/%2E%2E/c', 'bucket', 'r', 'c'],
    ['s3://bucket@r/%2Fa%2Fb', 'bucket', 'r', 'a/b'],
    ['s3://my.bucket-1@eu-west-1/x', 'my.bucket-1', 'eu-west-1', 'x'],
  ]
  for (const [text, bucket, region, path] of cases) {
    it(`${text} is ${JSON.stringify(path)} of the bucket ${bucket}`, () => {
      assert.deepEqual(parseTargetUrl(text), { kind: 's3', text, bucket, region, path })
    })
  }
})

/** Go's filepath.Join of "/" and a path, told in its own way. */
function goJoin(path: string): string {
  const out: string[] = []
  for (const segment of path.split('/')) {
    if (segment === '..') out.pop()
    else if (segment !== '' && segment !== '.') out.push(segment)
  }
  return `/${out.join('/')}`
}

describe('paths', () => {
  const segment = fc.oneof(
    fc.constantFrom('', '.', '..', '...', '%2e', '%2E%2e', '%2F', 'a', 'b.c', '%20', '..a', 'a..'),
    fc.stringMatching(/^[a-zA-Z0-9._~ -]{0,6}$/),
  )
  const rawPath = fc.array(segment, { maxLength: 9 }).map((parts) => `/${parts.join('/')}`)

  it('are decoded and then cleaned as Go does, for every kind of target', () => {
    fc.assert(
      fc.property(rawPath, (raw) => {
        const path = goJoin(decodeURIComponent(raw.trimEnd()))
        for (const [base, expected] of [
          ['vfs://', path],
          ['nfs://server:', path],
          ['s3://bucket@region', path.slice(1)],
        ] as const) {
          assert.equal(parseTargetUrl(base + raw).path, expected)
        }
      }),
      { numRuns: 500 },
    )
  })
})

describe('a URL that is refused', () => {
  const cases: Array<[text: string, says: RegExp, code?: 'TARGET_UNSUPPORTED']> = [
    ['', /expected vfs:\/\/\/folder/],
    ['/mnt/store', /expected vfs:\/\/\/folder/],
    ['vfs:/mnt', /expected vfs:\/\/\/folder/],
    ['vfs://', /vfs:\/\/ and an absolute path/],
    ['vfs://mnt/store', /vfs:\/\/ and an absolute path/],
    ['vfs:///mnt?nfsOptions=soft', /takes no options, got \?nfsOptions=soft/],
    ['vfs:///mnt#x', /%23/],
    ['vfs:///mnt%zz', /"%" that does not begin an escape/],
    ['vfs:///mnt%', /"%" that does not begin an escape/],
    ['vfs:///mnt%ff', /"%" that does not begin an escape/],
    ['vfs:///mnt%00', /NUL/],
    ['vfs:///mn\u0007t', /control characters/],
    ['vfs:///mn\nt', /control characters/],
    ['nfs://server:', /nfs:\/\/server:\/exported\/path/],
    ['nfs://:/path', /nfs:\/\/server:\/exported\/path/],
    ['nfs:///path', /nfs:\/\/server:\/exported\/path/],
    ['nfs://server:2049/path', /nfs:\/\/server:\/exported\/path/],
    ['nfs://a,b:/path', /nfs:\/\/server:\/exported\/path/],
    ['nfs://-o evil:/path', /nfs:\/\/server:\/exported\/path/],
    ['nfs://s:/p?soft', /nfsOptions= only, got "soft"/],
    ['nfs://s:/p?nfsOptions=soft&x=1', /nfsOptions= only, got "x=1"/],
    ['s3:///path', /s3:\/\/bucket@region\/path\//],
    ['s3://b', /s3:\/\/bucket@region\/path\//],
    ['s3://@region/path', /s3:\/\/bucket@region\/path\//],
    ['s3://bucket@r@s/path', /s3:\/\/bucket@region\/path\//],
    ['s3://bucket@/path', /"" is not a region/],
    ['s3://bucket@eu west/path', /"eu west" is not a region/],
    ['s3://bucket@r/path?region=x', /takes no options, got \?region=x/],
    ['cifs://server/share', /no support for cifs:\/\//, 'TARGET_UNSUPPORTED'],
    ['azblob://container@core/', /no support for azblob:\/\//, 'TARGET_UNSUPPORTED'],
    ['https://example.org/', /no support for https:\/\//, 'TARGET_UNSUPPORTED'],
    ['vfs:///mnt?backingImage=ubuntu', /the URL of one backup/],
    ['nfs://s:/p?nfsOptions=soft&backingImage=ubuntu', /the URL of one backup/],
  ]
  for (const [text, says, code] of cases) {
    it(`${JSON.stringify(text)} as a target: ${says.source.slice(0, 40)}`, () => {
      assert.throws(
        () => parseTargetUrl(text),
        (error) => isDroverError(error, code ?? 'INVALID_URL') && says.test(error.message),
      )
    })
  }

  it('never shows the password that somebody put into it', () => {
    for (const text of ['nfs://user:hunter2@server:/p', 'vfs://user:hunter2@host/mnt']) {
      assert.throws(
        () => parseTargetUrl(text),
        (error) => isDroverError(error, 'INVALID_URL') && !error.message.includes('hunter2'),
      )
    }
  })

  it('is an error of ours, whatever was typed', () => {
    const typed = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 60 }),
      fc
        .tuple(
          fc.constantFrom('vfs://', 'nfs://', 's3://', 'cifs://', 'x'),
          fc.string({ maxLength: 40 }),
        )
        .map((parts) => parts.join('')),
    )
    fc.assert(
      fc.property(typed, (text) => {
        for (const parse of [parseTargetUrl, parseBackupUrl]) {
          try {
            parse(text)
          } catch (error) {
            assert.ok(
              isDroverError(error, 'INVALID_URL', 'TARGET_UNSUPPORTED', 'INVALID_NAME'),
              String(error),
            )
          }
        }
      }),
      { numRuns: 1000 },
    )
  })
})

describe("a backup's URL", () => {
  it("is the target's text and the name, with ? or & as the text needs", () => {
    const cases: Array<[target: string, url: string]> = [
      ['vfs:///mnt/store', 'vfs:///mnt/store?backingImage=ubuntu'],
      ['vfs:///mnt//store/', 'vfs:///mnt//store/?backingImage=ubuntu'],
      ['vfs:///a&b', 'vfs:///a&b?backingImage=ubuntu'],
      ['nfs://server:/p', 'nfs://server:/p?backingImage=ubuntu'],
      ['nfs://s:/p?nfsOptions=soft,a', 'nfs://s:/p?nfsOptions=soft,a&backingImage=ubuntu'],
      ['s3://b1@r/my%20path/', 's3://b1@r/my%20path/?backingImage=ubuntu'],
    ]
    for (const [target, url] of cases) assert.equal(backupUrl(parseTargetUrl(target), UBUNTU), url)
  })

  it('holds the name before or after the options', () => {
    for (const url of [
      'nfs://s:/p?backingImage=ubuntu&nfsOptions=soft&nfsOptions=hard',
      'nfs://s:/p?nfsOptions=soft&backingImage=ubuntu&nfsOptions=hard',
      'nfs://s:/p?nfsOptions=soft&nfsOptions=hard&backingImage=ubuntu',
    ]) {
      const { name, target, text } = parseBackupUrl(url)
      assert.equal(name, 'ubuntu')
      assert.equal(target.text, 'nfs://s:/p?nfsOptions=soft&nfsOptions=hard')
      assert.equal(text, 'nfs://s:/p?nfsOptions=soft&nfsOptions=hard&backingImage=ubuntu')
    }
  })

  it('may hold \\u0026 where Longhorn escaped the &', () => {
    const { target, name } = parseBackupUrl(
      'nfs://s:/p?nfsOptions=soft\\u0026nfsOptions=retry=2\\u0026backingImage=ubuntu',
    )
    assert.equal(name, 'ubuntu')
    assert.equal(target.text, 'nfs://s:/p?nfsOptions=soft&nfsOptions=retry=2')
    assert.deepEqual(target.kind === 'nfs' && target.options, ['soft', 'retry=2'])
  })

  const refused: Array<[url: string, code: 'INVALID_URL' | 'INVALID_NAME', says: RegExp]> = [
    ['vfs:///mnt', 'INVALID_URL', /expected one \?backingImage=<name> at the end/],
    ['vfs:///mnt?backingImage=a1&backingImage=b1', 'INVALID_URL', /expected one \?backingImage/],
    ['vfs:///mnt?volume=x&backup=y', 'INVALID_URL', /expected one \?backingImage/],
    ['vfs:///mnt?backingImage=a1&volume=x', 'INVALID_URL', /takes no options, got \?volume=x/],
    ['vfs:///mnt?backingImage=', 'INVALID_NAME', /"" is not a backup name/],
    ['vfs:///mnt?backingImage=x', 'INVALID_NAME', /2 to 255/],
    ['vfs:///mnt?backingImage=../etc', 'INVALID_NAME', /is not a backup name/],
    ['vfs:///mnt?backingImage=%2e%2e%2fetc', 'INVALID_NAME', /"\.\.\/etc" is not a backup name/],
    ['vfs:///mnt?backingImage=a%2fb', 'INVALID_NAME', /"a\/b" is not a backup name/],
    ['vfs:///mnt?backingImage=a%00b', 'INVALID_URL', /NUL/],
  ]
  for (const [url, code, says] of refused) {
    it(`${url} is refused with ${code}`, () => {
      assert.throws(
        () => parseBackupUrl(url),
        (error) => isDroverError(error, code) && says.test(error.message),
      )
    })
  }
})

describe('a target written into the URL of a backup', () => {
  const name = fc.stringMatching(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,60}$/) as fc.Arbitrary<BackupName>
  // all but what must be escaped in a path; a backslash would allow for Longhorn's own escape
  const pathChar = fc.constantFrom(
    ...Array.from('abzABZ019-._~!$&\'()*+,;=:@ |^"<>{}[]`€é/./'),
    '//',
    '..',
    '%20',
    '%2F',
    '%23',
    '%3F',
    '%25',
    '%e2%82%ac',
  )
  const rawPath = fc
    .array(pathChar, { maxLength: 20 })
    .map((chars) => `/${chars.join('')}`.trimEnd())
  const server = fc.oneof(
    fc.stringMatching(/^[A-Za-z0-9._-]{1,20}$/),
    fc.constantFrom('[fd00::1]', '[::]'),
  )
  const options = fc.array(
    fc.stringMatching(/^[a-z0-9=.,:/_?-]{0,16}$/).map((value) => `nfsOptions=${value}`),
    { maxLength: 3 },
  )
  const vfs = rawPath.map((path) => `vfs://${path}`)
  const nfs = fc
    .tuple(server, fc.constantFrom(':', ''), rawPath, options)
    .map(
      ([host, colon, path, query]) =>
        `nfs://${host}${colon}${path}${query.length > 0 ? `?${query.join('&')}` : ''}`,
    )
  const s3 = fc
    .tuple(
      fc.stringMatching(/^[a-z0-9][a-z0-9.-]{1,30}$/),
      fc.option(fc.stringMatching(/^[a-z0-9-]{1,12}$/)),
      rawPath,
    )
    .map(([bucket, region, path]) => `s3://${bucket}${region === null ? '' : `@${region}`}${path}`)

  for (const [kind, urls] of Object.entries({ vfs, nfs, s3 })) {
    it(`comes back character for character (${kind})`, () => {
      fc.assert(
        fc.property(urls, name, (text, name) => {
          const target = parseTargetUrl(text)
          assert.equal(target.text, text)
          const url = backupUrl(target, name)
          const parsed = parseBackupUrl(url)
          assert.deepEqual(parsed, { text: url, target, name })
          assert.deepEqual(parseBackupUrl(parsed.text), parsed)
        }),
        { numRuns: 500 },
      )
    })
  }

  it('comes back even when its query holds nothing, or is refused as a target', () => {
    for (const text of [
      'vfs:///mnt?',
      's3://bucket@r/p?',
      'nfs://s:/p?',
      'nfs://s:/p?&',
      'nfs://s:/p?nfsOptions=soft&',
      'nfs://s:/p?nfsOptions=soft&&nfsOptions=hard',
      'nfs://s:/p?nfsOptions=a?b',
    ]) {
      let target
      try {
        target = parseTargetUrl(text)
      } catch (error) {
        assert.ok(isDroverError(error, 'INVALID_URL'))
        continue
      }
      assert.equal(parseBackupUrl(backupUrl(target, UBUNTU)).target.text, text)
    }
  })
})

describe('two URLs of one place', () => {
  const same = (a: string, b: string) => sameTarget(parseTargetUrl(a), parseTargetUrl(b))

  it('are known by path, server and bucket', () => {
    for (const [a, b] of [
      ['vfs:///mnt/store', 'vfs:///mnt//x/../store/'],
      ['vfs:///a b', 'vfs:///a%20b'],
      ['nfs://s:/p', 'nfs://s/p/'],
      ['nfs://s:/p?nfsOptions=soft', 'nfs://s:/p'],
      ['s3://bucket@r/p/', 's3://bucket/p'],
    ] as const) {
      assert.equal(same(a, b), true, `${a} ${b}`)
      assert.equal(same(b, a), true, `${b} ${a}`)
    }
  })

  it('are told from those of other places', () => {
    for (const [a, b] of [
      ['vfs:///mnt/a', 'vfs:///mnt/b'],
      ['vfs:///p', 'nfs://s:/p'],
      ['nfs://s:/p', 'nfs://t:/p'],
      ['nfs://s:/p', 'nfs://s:/q'],
      ['s3://bucket-a/p', 's3://bucket-b/p'],
      ['s3://bucket/p', 's3://bucket/q'],
      ['s3://bucket/p', 'vfs:///p'],
    ] as const) {
      assert.equal(same(a, b), false, `${a} ${b}`)
      assert.equal(same(b, a), false, `${b} ${a}`)
    }
  })
})

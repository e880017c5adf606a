import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseTargetUrl } from '../../../../src/backupstore/target-url.ts'
import { isDroverError } from '../../../../src/lib/errors.ts'
import { mountAttempts, mountSource } from '../../../../src/storage/nfs/options.ts'

const nfs = (url: string) => {
  const target = parseTargetUrl(url)
  assert.ok(target.kind === 'nfs')
  return target
}

const refused = (what: string) => (error: unknown) =>
  isDroverError(error, 'INVALID_URL') && error.message.includes(what)

describe('mount options', () => {
  test('are those that Longhorn tries where the URL has none', () => {
    const rest = 'actimeo=1,soft,timeo=300,retry=2,nosuid,nodev,noexec'
    assert.deepEqual(mountAttempts([]), [
      `nfsvers=4.2,${rest}`,
      `nfsvers=4.1,${rest}`,
      `nfsvers=4.0,${rest}`,
    ])
  })

  test('of a URL are tried once, in their order', () => {
    const { options } = nfs('nfs://s:/p?nfsOptions=nfsvers=4.1,soft&nfsOptions=timeo=50,noac')
    assert.deepEqual(mountAttempts(options), [
      'actimeo=1,nfsvers=4.1,soft,timeo=50,noac,nosuid,nodev,noexec',
    ])
  })

  test('of a URL keep listings fresh, and have the last word about that', () => {
    assert.deepEqual(mountAttempts(['soft']), ['actimeo=1,soft,nosuid,nodev,noexec'])
    for (const said of ['ac', 'noac', 'actimeo=5', 'acregmin=0', 'acregmax=3', 'acdirmax=60']) {
      assert.deepEqual(mountAttempts(['soft', said]), [
        `actimeo=1,soft,${said},nosuid,nodev,noexec`,
      ])
    }
  })

  const allowed = [
    ['nfsvers=4', 'nfsvers=4.0', 'nfsvers=4.2', 'vers=4.1', 'minorversion=2'],
    ['proto=tcp', 'proto=tcp6', 'proto=rdma', 'port=1', 'port=2049', 'port=65535'],
    ['soft', 'hard', 'softerr', 'timeo=300', 'retrans=0', 'retry=0', 'retry=10000'],
    ['actimeo=1', 'acregmin=0', 'acregmax=3', 'acdirmin=0', 'acdirmax=60', 'ac', 'noac'],
    ['lookupcache=none', 'lookupcache=positive', 'cto', 'local_lock=none'],
    ['rsize=1048576', 'wsize=65536', 'nconnect=16', 'max_connect=1', 'noresvport'],
    ['sec=sys', 'sec=krb5p', 'sec=krb5:krb5i:none', 'xprtsec=mtls', 'nolock'],
    ['clientaddr=10.0.0.1', 'clientaddr=fd00::1', 'ro', 'rw', 'noatime', 'nodiratime'],
    ['nosuid', 'nodev', 'noexec', 'sync', 'fg'],
  ].flat()
  test('that are known are allowed', () => {
    for (const option of allowed) {
      assert.deepEqual(mountAttempts([option]), [`actimeo=1,${option},nosuid,nodev,noexec`])
    }
  })

  const unknown = [
    // would take back what protects this machine, or mount something else, or elsewhere
    ['exec', 'suid', 'dev', 'bind', 'rbind', 'move', 'remount', 'loop', 'bg', 'user', 'users'],
    ['owner', 'defaults', 'noauto', '_netdev', 'x-systemd.automount', 'make-shared'],
    ['context=system_u:object_r:nfs_t:s0', 'fscontext=x', 'defcontext=x', 'rootcontext=x'],
    ['addr=10.0.0.1', 'mountaddr=10.0.0.1', 'mounthost=evil', 'mountport=1', 'mountproto=udp'],
    ['proto=udp', 'udp', 'nfsvers=3', 'nfsvers=4.3', 'vers=2', 'v4', 'nfsvers'],
    ['helper=/bin/sh', 'uhelper=x', 'sloppy', 'namlen=1', 'nonsense', 'nonsense=1'],
    // lets an opened file be an old one
    ['nocto'],
    // names that every object has
    ['constructor', 'constructor=1', '__proto__', 'toString=1', 'hasOwnProperty'],
  ].flat()
  const malformed = [
    ['timeo', 'timeo=', 'timeo=-1', 'timeo=1.5', 'timeo=1e3', 'timeo=0x10', 'timeo=9999999999'],
    ['timeo= 1', 'timeo=1 ', ' timeo=1', 'timeo =1', 'timeo==1', 'timeo=1=2', '=1', '='],
    ['soft=', 'soft=1', 'Soft', 'SOFT', 'port=0', 'port=65536', 'nconnect=17', 'rsize=1'],
    ['sec=', 'sec=sys:', 'sec=sys:evil', 'sec=sys,exec', 'lookupcache=yes', 'sec=SYS'],
    ['clientaddr=', 'clientaddr=host', 'clientaddr=fe80::1%eth0', 'clientaddr=1.2.3.4:5'],
  ].flat()
  const smuggling = [
    ['soft,exec', 'soft exec', 'soft\texec', 'soft\nexec', 'soft\0exec', 'soft;reboot'],
    ['timeo=1,exec', 'timeo=1\n,exec', 'timeo=1\\,exec', 'timeo="1,exec"', "timeo='1'"],
    ['timeo=$(reboot)', 'timeo=`reboot`', 'timeo=1\u00a0', 'timeo=١', 'soft\u2028', '-o', '--bind'],
    ['-osoft', '/etc', '$HOME', 'soft\r'],
  ].flat()
  for (const [what, options] of Object.entries({ unknown, malformed, smuggling })) {
    test(`that are ${what} are refused, with a word about each`, () => {
      for (const option of options) {
        const named = refused(JSON.stringify(option))
        assert.throws(() => mountAttempts([option]), named, JSON.stringify(option))
        assert.throws(() => mountAttempts(['soft', option]), named, JSON.stringify(option))
      }
    })
  }

  test('that hide others in escapes of the URL are seen for what they are', () => {
    for (const hidden of ['soft%2Cexec', 'timeo=1%2Csuid', 'timeo=1%2c%2c%2csuid%2c']) {
      assert.throws(() => mountAttempts(nfs(`nfs://s:/p?nfsOptions=${hidden}`).options))
    }
    for (const hidden of ['soft%0Aexec', 'soft%20exec', 'soft%252Cexec', 'timeo=1%26exec']) {
      assert.throws(() => mountAttempts(nfs(`nfs://s:/p?nfsOptions=${hidden}`).options))
    }
  })

  test('say what is allowed when they are refused', () => {
    assert.throws(() => mountAttempts(['exec']), refused('nfsvers='))
    assert.throws(() => mountAttempts(['timeo=abc']), refused('a number from 1 to 360000'))
    assert.throws(() => mountAttempts(['sec=x']), refused('sys, krb5'))
  })
})

describe('what is mounted', () => {
  test('is the server and the path', () => {
    for (const [url, source] of [
      ['nfs://server:/export', 'server:/export'],
      ['nfs://10.0.2.2:/', '10.0.2.2:/'],
      ['nfs://[fd00::1]:/a b/c', '[fd00::1]:/a b/c'],
      ['nfs://nas.example.com/volume1/x/', 'nas.example.com:/volume1/x'],
      ['nfs://server:/a,b:c=d', 'server:/a,b:c=d'],
    ] as const) {
      assert.equal(mountSource(nfs(url)), source)
    }
  })

  test('never begins like an option, and holds no control characters', () => {
    const bad = [
      { server: '-o', path: '/x' },
      { server: '--help', path: '/x' },
      { server: '.', path: '/x' },
      { server: '', path: '/x' },
      { server: 'a,b', path: '/x' },
      { server: 'a b', path: '/x' },
      { server: 'a/b', path: '/x' },
      { server: 'fd00::1', path: '/x' },
      { server: 's', path: 'x' },
      { server: 's', path: '' },
      { server: 's', path: '/x\ny' },
      { server: 's', path: '/x\0' },
      { server: 's', path: `/${'x'.repeat(1024)}` },
    ]
    for (const each of bad) {
      assert.throws(() => mountSource(each), refused('expected'), JSON.stringify(each))
    }
    assert.throws(() => mountSource(nfs('nfs://server:/x%0Ay')), refused('control characters'))
  })
})

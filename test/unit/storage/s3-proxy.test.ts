import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isLoopback, proxyFor } from '../../../src/storage/s3/probe/proxy.ts'

const PROXY = 'http://proxy.example.com:3128'
const to = (host: string, port = 9000) => ({ secure: true, host, port })
const isDirect = (noProxy: string, host: string, port?: number): boolean =>
  proxyFor(to(host, port), { HTTPS_PROXY: PROXY, NO_PROXY: noProxy }) === undefined

describe('the proxy of a connection', () => {
  test('is that of its protocol', () => {
    const settings = { HTTP_PROXY: 'http://plain:1', HTTPS_PROXY: 'http://secure:2' }
    assert.equal(proxyFor(to('s3'), settings), 'http://secure:2')
    assert.equal(proxyFor({ ...to('s3'), secure: false }, settings), 'http://plain:1')
    assert.equal(proxyFor(to('s3'), { HTTP_PROXY: 'http://plain:1' }), undefined)
  })

  test('is told without its user and password', () => {
    const settings = { HTTPS_PROXY: 'http://user:secret@proxy.example.com:3128/' }
    assert.equal(proxyFor(to('s3'), settings), PROXY)
  })

  const table: ReadonlyArray<readonly [noProxy: string, host: string, direct: boolean]> = [
    ['', 's3.example.com', false],
    ['*', 's3.example.com', true],
    ['s3.example.com', 's3.example.com', true],
    ['S3.Example.com', 's3.example.COM', true],
    ['example.com', 's3.example.com', false],
    ['.example.com', 's3.example.com', true],
    ['*.example.com', 's3.example.com', true],
    ['*.example.com', 'example.org', false],
    ['other, s3.example.com ,more', 's3.example.com', true],
    ['s3.example.com:9000', 's3.example.com', true],
    ['s3.example.com:9001', 's3.example.com', false],
    ['10.0.0.1', '10.0.0.1', true],
    ['10.0.0.1-10.0.0.9', '10.0.0.5', true],
    ['10.0.0.1-10.0.0.9', '10.0.0.10', false],
    ['10.0.0.9-10.0.0.1', '10.0.0.5', false],
    ['::1', '::1', true],
  ]
  for (const [noProxy, host, direct] of table) {
    test(`${direct ? 'is none' : 'is used'} for ${host} with NO_PROXY="${noProxy}"`, () => {
      assert.equal(isDirect(noProxy, host), direct)
    })
  }
})

test('an address of this machine is known as one', () => {
  for (const host of ['localhost', 'b.localhost', '127.0.0.1', '127.1.2.3', '::1']) {
    assert.ok(isLoopback(host), host)
  }
  for (const host of ['127.example.com', 'localhost.example.com', '10.0.0.1', 's3']) {
    assert.ok(!isLoopback(host), host)
  }
})

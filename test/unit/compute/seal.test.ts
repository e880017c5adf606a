import assert from 'node:assert/strict'
import { createCipheriv } from 'node:crypto'
import { describe, it } from 'node:test'
import * as fc from 'fast-check'
import { SEAL_KEY_BYTES, sealOf } from '../../../src/compute/seal.ts'
import { BLOCK, noise } from '../../helpers/images.ts'

const key = noise(7, SEAL_KEY_BYTES)
const contents = fc.uint8Array({ minLength: 1, maxLength: 3000 })
const orders = fc.nat({ max: 2 ** 31 - 1 })

describe('a seal', () => {
  it('is the same for the same bytes, order and key, wherever they lie', () => {
    fc.assert(
      fc.property(contents, orders, (bytes, order) => {
        const shared = Buffer.from(new SharedArrayBuffer(bytes.length + 1)).subarray(1)
        shared.set(bytes)
        assert.deepEqual(sealOf(bytes, order, key), sealOf(shared, order, Buffer.from(key)))
      }),
    )
  })

  it('is another one when any bit is another one', () => {
    fc.assert(
      fc.property(contents, fc.nat(), fc.nat({ max: 7 }), orders, (bytes, at, bit, order) => {
        const other = Buffer.from(bytes)
        const place = at % other.length
        other[place] = (other[place] ?? 0) ^ (1 << bit)
        assert.notEqual(sealOf(other, order, key).mac, sealOf(bytes, order, key).mac)
      }),
      { numRuns: 500 },
    )
  })

  it('covers a whole block, its first and its last byte and what lies between', () => {
    const block = noise(1, BLOCK)
    const { mac } = sealOf(block, 3, key)
    for (const at of [0, 1, 15, 16, BLOCK / 2 - 1, BLOCK / 2, BLOCK - 17, BLOCK - 16, BLOCK - 1]) {
      const other = Buffer.from(block)
      other[at] = (other[at] ?? 0) ^ 1
      assert.notEqual(sealOf(other, 3, key).mac, mac, `byte ${at}`)
    }
    assert.notEqual(sealOf(Buffer.alloc(BLOCK), 3, key).mac, mac)
    assert.notEqual(sealOf(block.subarray(0, -1), 3, key).mac, mac)
  })

  it('tells bytes from the same ones with zeros after them', () => {
    for (const zeros of [1, 15, 16]) {
      const longer = Buffer.concat([noise(1, 1000), Buffer.alloc(zeros)])
      assert.notEqual(sealOf(longer, 0, key).mac, sealOf(noise(1, 1000), 0, key).mac)
    }
  })

  it('is another one for another place in the file, however far', () => {
    const bytes = noise(1, 1000)
    const places = [0, 1, 255, 256, 65_535, 65_536, 2 ** 24, 2 ** 31, 2 ** 32, 2 ** 47]
    const seals = places.map((order) => sealOf(bytes, order, key))
    assert.deepEqual(
      seals.map(({ order }) => order),
      places,
    )
    assert.equal(new Set(seals.map(({ mac }) => mac)).size, places.length)
  })

  it('is another one under another key', () => {
    const bytes = noise(1, 1000)
    for (let at = 0; at < SEAL_KEY_BYTES; at++) {
      const other = Buffer.from(key)
      other[at] = (other[at] ?? 0) ^ 1
      assert.notEqual(sealOf(bytes, 5, other).mac, sealOf(bytes, 5, key).mac)
    }
  })

  it('is the GMAC of the bytes, in all its 128 bits', () => {
    const bytes = noise(1, 1000)
    const nonce = Buffer.concat([Buffer.from('000000000102', 'hex'), Buffer.alloc(6)])
    const cipher = createCipheriv('aes-128-gcm', key, nonce).setAAD(bytes)
    cipher.final()
    const { mac } = sealOf(bytes, 0x0102, key)
    assert.equal(mac, cipher.getAuthTag().toString('base64'))
    assert.equal(Buffer.from(mac, 'base64').length, 16)
  })
})

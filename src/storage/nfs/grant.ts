/**
 * Permission to make a change visible. Only the store's process can tell whether it still holds its
 * lock, and only the helper can make the change with nothing in between. So the helper asks shortly
 * before, and acts on the answer only while that is young: the holder of a lock stops writing 10 s
 * before others may take it over. A process that was frozen meanwhile asks again.
 */
import { access, constants } from 'node:fs/promises'
import { throwIfAborted } from '../../lib/errors.ts'
import type { LastCheck } from '../fs/last-check.ts'
import type { GrantedAt } from './messages.ts'
import type { CallContext } from './serve.ts'

/** @param now by the same two clocks: one stands still while a machine sleeps, one may be set */
export function isYoung(granted: GrantedAt, now: GrantedAt, maxAgeMs: number): boolean {
  const ages = [
    Number(now.monotonicNs - granted.monotonicNs) / 1e6,
    Math.abs(now.wallMs - granted.wallMs),
  ]
  return ages.every((ageMs) => ageMs >= 0 && ageMs < maxAgeMs)
}

export function askedCheck(context: CallContext, grantMs: number): LastCheck {
  let granted: GrantedAt | undefined
  return {
    async ahead(paths) {
      // The change itself holds up all that goes on here, so it should wait for the server once only,
      // and not for looking up each folder on its way again.
      await Promise.all(paths.map((path) => access(path, constants.W_OK).catch(() => undefined)))
      granted = await context.ask('grant', {})
    },
    now() {
      throwIfAborted(context.signal)
      const now = { monotonicNs: process.hrtime.bigint(), wallMs: Date.now() }
      return granted !== undefined && isYoung(granted, now, grantMs)
    },
  }
}

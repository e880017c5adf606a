/**
 * Whether a server honours conditions on writes. Some ignore them silently, so it is tried out on
 * objects of our own, once a run and only when it matters.
 */
import { isAbsent, isNotImplemented, isRefusedByCondition } from './errors.ts'

/** What a probe does with an object that nobody else knows; each call throws what the server says. */
export interface ProbeObject {
  put(condition: { IfNoneMatch?: string; IfMatch?: string }): Promise<unknown>
  remove(): Promise<unknown>
}

/** No object has this ETag: it is that of no bytes, and the probe has some. */
const OTHER_ETAG = '"d41d8cd98f00b204e9800998ecf8427e"'

/** `If-None-Match: *` writes only what is not there yet: three requests. */
export async function honoursAbsence(object: ProbeObject): Promise<boolean> {
  try {
    await object.put({})
    return await isRefused(object, { IfNoneMatch: '*' })
  } finally {
    await object.remove()
  }
}

/** `If-Match` writes only over the version it names: one request, another where it is ignored. */
export async function honoursVersion(object: ProbeObject): Promise<boolean> {
  if (await isRefused(object, { IfMatch: OTHER_ETAG })) return true
  await object.remove()
  return false
}

async function isRefused(
  object: ProbeObject,
  condition: Parameters<ProbeObject['put']>[0],
): Promise<boolean> {
  try {
    await object.put(condition)
    return false // written against the condition
  } catch (error) {
    if (isRefusedByCondition(error) || isAbsent(error)) return true
    if (isNotImplemented(error)) return false
    throw error
  }
}

import { DroverError } from '../lib/errors.ts'
import type { Key } from '../backupstore/layout.ts'
import type { PruneStore, RemovedMany, WriteCallOptions } from '../backupstore/object-store.ts'
import { MOST_REMOVED_AT_ONCE } from '../backupstore/object-store.ts'

/** Removes objects, with few calls where the store has a way; stops at the first that fails. */
export async function removeMany(
  store: Pick<PruneStore, 'remove' | 'removeAll'>,
  keys: readonly Key[],
  options: WriteCallOptions,
): Promise<RemovedMany> {
  const removed: Key[] = []
  try {
    for (let from = 0; from < keys.length; from += MOST_REMOVED_AT_ONCE) {
      const some = keys.slice(from, from + MOST_REMOVED_AT_ONCE)
      if (store.removeAll) {
        const batch = await store.removeAll(some, options)
        for (const key of batch.removed) removed.push(key)
        if (batch.failure) return { removed, failure: batch.failure }
        continue
      }
      for (const key of some) {
        // somebody else may have been faster: then it was not us who freed it
        if (await store.remove(key, options)) removed.push(key)
      }
    }
    return { removed }
  } catch (error) {
    if (error instanceof DroverError) return { removed, failure: error }
    throw error
  }
}

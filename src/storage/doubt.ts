/**
 * Remembers whether a change may still happen. A removal, or the config of a backup, that was asked
 * for and never answered can be carried out by the server at any later time; a lock that were given
 * up by then would protect nothing. Its holder leaves it to expire instead.
 */
import type { ErrorCode } from '../lib/errors.ts'
import { isDroverError } from '../lib/errors.ts'
import { CONFIGS_PREFIX } from '../backupstore/layout.ts'
import type { CallOptions, ObjectStore } from '../backupstore/object-store.ts'

/** @param unanswered codes of errors that leave the outcome open */
export function withDoubt(store: ObjectStore, unanswered: readonly ErrorCode[]): ObjectStore {
  let doubt = false
  const note = (error: unknown) => {
    doubt ||= isDroverError(error, ...unanswered)
  }
  const watch = async <T>(options: CallOptions | undefined, change: () => Promise<T>) => {
    // nothing is sent then
    const isSent = !options?.signal?.aborted
    try {
      return await change()
    } catch (error) {
      if (isSent) note(error)
      throw error
    }
  }
  const removeAll = store.removeAll?.bind(store)
  return {
    ...store,
    inDoubt: () => doubt,
    // a block that comes late is one that nobody refers to
    put: (key, body, options) =>
      key.startsWith(CONFIGS_PREFIX)
        ? watch(options, () => store.put(key, body, options))
        : store.put(key, body, options),
    remove: (key, options) => watch(options, () => store.remove(key, options)),
    ...(removeAll && {
      removeAll: (keys, options) =>
        watch(options, async () => {
          const removed = await removeAll(keys, options)
          note(removed.failure)
          return removed
        }),
    }),
  }
}

import { open } from 'node:fs/promises'
import { systemCode } from './errors.ts'

/** Makes the names in a folder survive a power cut. A folder that is gone has none. */
export async function flushFolder(folder: string): Promise<void> {
  let handle
  try {
    handle = await open(folder, 'r')
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return
    throw error
  }
  try {
    await handle.sync()
  } catch (error) {
    // some file systems cannot flush a folder, and need not
    if (systemCode(error) !== 'EINVAL' && systemCode(error) !== 'ENOTSUP') throw error
  } finally {
    await handle.close()
  }
}

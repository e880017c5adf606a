import { realpath, stat } from 'node:fs/promises'
import { DroverError, systemCode } from '../../lib/errors.ts'
import { isAbsent, targetError } from './fs-errors.ts'

export interface Root {
  /** With all links resolved. */
  readonly path: string
  /** @throws DroverError TARGET_UNREACHABLE when it is another folder now (unmounted, say) */
  check(): Promise<void>
}

/** @throws DroverError TARGET_NOT_FOUND, TARGET_* */
export async function openRoot(folder: string): Promise<Root> {
  let path: string
  try {
    path = await realpath(folder)
    const first = await stat(path, { bigint: true })
    if (!first.isDirectory()) throw Object.assign(new Error('no folder'), { code: 'ENOTDIR' })
    return {
      path,
      async check() {
        const now = await stat(path, { bigint: true }).catch(() => undefined)
        if (now?.dev === first.dev && now.ino === first.ino) return
        throw new DroverError(
          'TARGET_UNREACHABLE',
          `${folder} is not the folder any more that it was at the start: is it still mounted?`,
          { retryable: true },
        )
      },
    }
  } catch (error) {
    if (isAbsent(error) || systemCode(error) === 'ENOTDIR') {
      throw new DroverError(
        'TARGET_NOT_FOUND',
        `the target's folder ${folder} does not exist: expected an existing folder`,
        { details: { folder }, cause: error },
      )
    }
    throw targetError(error, `opening ${folder}`)
  }
}

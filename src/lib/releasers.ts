/**
 * Things to let go of, in reverse order of taking them. Every releaser runs even when an earlier
 * one fails; a failure to release never hides the failure of the work itself.
 */
export class Releasers {
  readonly #stack: Array<() => unknown> = []

  add(release: () => unknown): void {
    this.#stack.push(release)
  }

  /** Runs them all, then throws the first failure, if any. */
  async releaseAll(): Promise<void> {
    let failure: { error: unknown } | undefined
    for (let release = this.#stack.pop(); release; release = this.#stack.pop()) {
      try {
        await release()
      } catch (error) {
        failure ??= { error }
      }
    }
    if (failure) throw failure.error
  }
}

/** Runs `work` with a set of releasers that are all run afterwards, whatever happens. */
export async function withReleasers<T>(work: (releasers: Releasers) => Promise<T>): Promise<T> {
  const releasers = new Releasers()
  let result: T
  try {
    result = await work(releasers)
  } catch (error) {
    // the error of the work is the one worth knowing
    await releasers.releaseAll().catch(() => undefined)
    throw error
  }
  await releasers.releaseAll()
  return result
}

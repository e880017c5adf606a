/**
 * Preloaded into a drover process (see ../preloads.ts): at a given call of the file system the
 * process sends itself a signal, or stops answering. So a test can stop it between any two changes
 * of a disk, however short the time between them.
 *
 * Plain JavaScript, so that it costs the process no type stripping.
 */
import fs, { writeFileSync } from 'node:fs'
import fsPromises from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { isMainThread } from 'node:worker_threads'

if (isMainThread && process.env.DROVER_TEST_STEP) {
  /** @type {import('../preloads.ts').Step} */
  const step = JSON.parse(process.env.DROVER_TEST_STEP)
  const path = new RegExp(step.path ?? '')
  const ofHandle = step.call.startsWith('handle.')
  let seen = 0

  const act = () => {
    if (step.action !== 'hang') return void process.kill(process.pid, step.action)
    if (step.marker) writeFileSync(step.marker, '')
    setInterval(() => undefined, 60_000) // like a call at work, it keeps the process from ending
    return new Promise(() => undefined)
  }

  const owner = ofHandle ? await fileHandlePrototype() : fsPromises
  const name = ofHandle ? step.call.slice('handle.'.length) : step.call
  const original = owner[name]
  if (!original) throw new Error(`no call ${step.call}`)

  owner[name] = async function stopping(...args) {
    // what a handle is given are bytes and numbers: only the count tells those calls apart
    const fits = ofHandle || args.some((arg) => typeof arg === 'string' && path.test(arg))
    if (!fits || ++seen !== step.nth) return original.apply(this, args)
    if (step.when === 'before') await act()
    const result = original.apply(this, args)
    if (step.when === 'during') await act()
    await result
    if (step.when === 'after') await act()
    return result
  }

  // the same call in its synchronous form counts as well; it can be stopped by a signal only
  const originalSync = ofHandle ? undefined : fs[`${name}Sync`]
  if (originalSync && step.action !== 'hang') {
    fs[`${name}Sync`] = function stoppingSync(...args) {
      const fits = args.some((arg) => typeof arg === 'string' && path.test(arg))
      if (!fits || ++seen !== step.nth) return originalSync.apply(this, args)
      if (step.when !== 'after') process.kill(process.pid, step.action)
      const result = originalSync.apply(this, args)
      if (step.when === 'after') process.kill(process.pid, step.action)
      return result
    }
  }
  syncBuiltinESMExports()
}

async function fileHandlePrototype() {
  const handle = await fsPromises.open('/dev/null', 'r')
  await handle.close()
  return Object.getPrototypeOf(handle)
}

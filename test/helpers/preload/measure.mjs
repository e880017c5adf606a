/**
 * Preloaded into a drover process (see ../preloads.ts): tells at its end how much memory it had at
 * most, how long its event loop was held up, and how much of the work its main thread did itself.
 *
 * Plain JavaScript, so that it costs the process no type stripping, which takes memory.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import fsPromises from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { isMainThread } from 'node:worker_threads'

const TICKS_A_SECOND = 100
const RESOLUTION_MS = 5

const file = process.env.DROVER_TEST_MEASURE
if (isMainThread && file) {
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  delay.enable()

  // Time on the clock is also what other programs take from us; processor time is not.
  let turnBegan = process.threadCpuUsage()
  let longestTurnMs = 0
  const turn = () => {
    const { user, system } = process.threadCpuUsage(turnBegan)
    longestTurnMs = Math.max(longestTurnMs, (user + system) / 1000)
    turnBegan = process.threadCpuUsage()
  }
  setInterval(turn, RESOLUTION_MS).unref()

  // Loading the program is no part of the work, which begins when the first file is opened.
  const { open } = fsPromises
  let before = threadSeconds()
  fsPromises.open = (...args) => {
    delay.reset()
    turn()
    longestTurnMs = 0
    before = threadSeconds()
    fsPromises.open = open
    syncBuiltinESMExports()
    return open(...args)
  }
  syncBuiltinESMExports()

  process.on('exit', () => {
    turn()
    const now = threadSeconds()
    /** @type {import('../preloads.ts').Measured} */
    const measured = {
      peakMemoryBytes: peakMemoryBytes(),
      longestDelayMs: delay.max / 1e6,
      longestTurnMs,
      mainThreadSeconds: now.main - before.main,
      cpuSeconds: now.all - before.all,
    }
    writeFileSync(file, JSON.stringify(measured))
  })
}

function peakMemoryBytes() {
  const found = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))
  if (!found) throw new Error('no VmHWM in /proc/self/status')
  return Number(found[1]) * 1024
}

function threadSeconds() {
  const secondsIn = (path) => {
    const stat = readFileSync(path, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND
  }
  return {
    main: secondsIn(`/proc/self/task/${process.pid}/stat`),
    all: secondsIn('/proc/self/stat'),
  }
}

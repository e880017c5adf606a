/** From a target's URL to the steps in which its driver looks it over. */
import type { RunId } from '../../backupstore/layout.ts'
import type { RequestCounts } from '../../backupstore/object-store.ts'
import type { TargetUrl } from '../../backupstore/target-url.ts'
import { folderProbe } from '../fs/probe.ts'
import type { StorageSettings } from '../settings.ts'
import type { Probe, StepResult, StepWatch } from './steps.ts'
import { runSteps } from './steps.ts'

export interface Diagnosis {
  /** Whether nothing failed. */
  readonly ok: boolean
  readonly steps: readonly StepResult[]
  readonly requests: RequestCounts | undefined
}

/** @throws DroverError INVALID_URL, INTERRUPTED */
export async function diagnose(
  target: TargetUrl,
  run: RunId,
  settings: StorageSettings,
  signal: AbortSignal,
  watch: StepWatch,
): Promise<Diagnosis> {
  const probe = await probeOf(target, run, settings)
  try {
    const limits = { deadlineMs: settings.callTimeoutMs, signal }
    const steps = await runSteps(probe.steps, limits, watch)
    const ok = steps.every(({ verdict }) => verdict !== 'failed')
    return { ok, steps, requests: probe.requests?.() }
  } finally {
    await probe.close()
  }
}

async function probeOf(target: TargetUrl, run: RunId, settings: StorageSettings): Promise<Probe> {
  switch (target.kind) {
    case 'vfs':
      return folderProbe(target.path, run, settings)
    case 's3': {
      // loaded when it is needed: the SDK is larger than all the rest
      const { s3Probe } = await import('../s3/probe/probe.ts')
      return s3Probe(target, run, settings)
    }
    case 'nfs': {
      const { nfsProbe } = await import('../nfs/probe.ts')
      return nfsProbe(target, run, settings)
    }
  }
}

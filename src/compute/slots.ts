import { BLOCK_BYTES, MAX_STORED_BLOCK_BYTES } from '../backupstore/block.ts'
import type { Slot } from '../backupstore/compute.ts'

const SLOT_BYTES = BLOCK_BYTES + MAX_STORED_BLOCK_BYTES

export const slotMemory = (slots: number): SharedArrayBuffer =>
  new SharedArrayBuffer(slots * SLOT_BYTES)

/** The views of one memory; the same on every thread. */
export function slotsOf(memory: SharedArrayBuffer, count: number): Slot[] {
  return Array.from({ length: count }, (_, index) => ({
    index,
    raw: Buffer.from(memory, index * SLOT_BYTES, BLOCK_BYTES),
    stored: Buffer.from(memory, index * SLOT_BYTES + BLOCK_BYTES, MAX_STORED_BLOCK_BYTES),
  }))
}

export function slotAt(slots: readonly Slot[], index: number): Slot {
  const slot = slots[index]
  if (!slot) throw new Error(`no slot ${index}`)
  return slot
}

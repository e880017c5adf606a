/** Errors on their way from the helper. */
import { DroverError, systemCode } from '../../lib/errors.ts'
import type { WireError } from './messages.ts'

export function toWire(error: unknown): WireError {
  if (!(error instanceof DroverError)) {
    const message = error instanceof Error ? error.message : String(error)
    return {
      code: 'INTERNAL',
      message: `the helper process failed: ${message}`,
      details: {},
      retryable: false,
    }
  }
  const { code, message, details, retryable } = error
  const system = systemCode(error.cause)
  return { code, message, details, retryable, ...(system === undefined ? {} : { system }) }
}

export function fromWire({ code, message, details, retryable, system }: WireError): DroverError {
  const cause =
    system === undefined ? undefined : Object.assign(new Error(system), { code: system })
  return new DroverError(code, message, { details, retryable, cause })
}

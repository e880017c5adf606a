/** What answers tell besides what they were asked for, those that are errors included. */
import { timeOfAnswer } from '../client.ts'

/** A header of the answer that an error comes from; what caused it is looked at, too. */
export function headerOf(error: unknown, name: string): string | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    const response = '$response' in at ? (at.$response as { headers?: unknown }) : undefined
    const headers = response?.headers as Record<string, string> | undefined
    if (headers) return headers[name]
  }
  return undefined
}

/** How far the server's clock was ahead of ours when it gave an answer just now, ms. */
export function aheadBy(answer: unknown): number | undefined {
  const dateMs =
    answer instanceof Error
      ? Date.parse(headerOf(answer, 'date') ?? '')
      : timeOfAnswer(answer as { $metadata?: object })
  // it tells whole seconds
  return Number.isNaN(dateMs) ? undefined : dateMs + 500 - Date.now()
}

/** A reporter for `node --test`: one line of JSON for each test that ended, inner ones first. */
import type { TestEvent } from 'node:test/reporters'
import { inspect } from 'node:util'

export interface EndedTest {
  readonly name: string
  readonly nesting: number
  readonly seconds: number
  readonly skipped: boolean
  /** Undefined for one that passed. */
  readonly failure?: string
}

export default async function* eventLines(
  events: AsyncIterable<TestEvent>,
): AsyncGenerator<string> {
  for await (const event of events) {
    if (event.type !== 'test:pass' && event.type !== 'test:fail') continue
    const { name, nesting, details, skip } = event.data
    const error = 'error' in details ? details.error : undefined
    const ended: EndedTest = {
      name,
      nesting,
      seconds: details.duration_ms / 1000,
      skipped: skip !== undefined && skip !== false,
      ...(event.type === 'test:fail' ? { failure: inspect(error) } : {}),
    }
    yield `${JSON.stringify(ended)}\n`
  }
}

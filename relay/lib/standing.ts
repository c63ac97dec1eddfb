/** Problems that last: each with since when it was seen, until it is seen no more. */

import { z } from "zod"

export const StandingProblem = z.object({
  text: z.string(),
  /** When it was first seen. */
  since: z.iso.datetime(),
})
export type StandingProblem = z.infer<typeof StandingProblem>

export class Standing {
  readonly #problems = new Map<string, StandingProblem>()

  /** @returns whether it is new under its name, or has another text than before. */
  note(name: string, text: string): boolean {
    const known = this.#problems.get(name)
    this.#problems.set(name, { text, since: known?.since ?? new Date().toISOString() })
    return known?.text !== text
  }

  has(name: string): boolean {
    return this.#problems.has(name)
  }

  /** It is over. */
  clear(name: string): void {
    this.#problems.delete(name)
  }

  /** Those of the prefix are exactly these. @returns the names of those that are new. */
  replace(prefix: string, found: ReadonlyMap<string, string>): string[] {
    for (const name of this.#problems.keys())
      if (name.startsWith(prefix) && !found.has(name.slice(prefix.length))) this.clear(name)
    return [...found].filter(([name, text]) => this.note(prefix + name, text)).map(([name]) => name)
  }

  list(): StandingProblem[] {
    return [...this.#problems.values()]
  }
}

/** A register: which lanes stand under a name, such as a channel or a user. */

import type { Lane } from "./lane.ts"

export class Register {
  /** Most names have one lane, and there may be ten thousand names. */
  readonly #lanes = new Map<string, Lane | Set<Lane>>()

  /** How many names there are. */
  get size(): number {
    return this.#lanes.size
  }

  names(): Iterable<string> {
    return this.#lanes.keys()
  }

  add(name: string, lane: Lane): void {
    const found = this.#lanes.get(name)
    if (found === undefined) this.#lanes.set(name, lane)
    else if (found instanceof Set) found.add(lane)
    else this.#lanes.set(name, new Set([found, lane]))
  }

  delete(name: string, lane: Lane): void {
    const found = this.#lanes.get(name)
    if (found instanceof Set) {
      found.delete(lane)
      if (found.size === 0) this.#lanes.delete(name)
    } else if (found === lane) this.#lanes.delete(name)
  }

  get(name: string): Iterable<Lane> {
    const found = this.#lanes.get(name)
    if (found === undefined) return []
    return found instanceof Set ? found : [found]
  }
}

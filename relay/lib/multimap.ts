/** A multimap: the values that stand under a name, such as the lanes of a channel or of a user. */

/** Compared by identity. A value stands under a name once. */
export class Multimap<V extends object> {
  /** Most names have one value, and there may be ten thousand names. */
  readonly #values = new Map<string, V | Set<V>>()

  /** How many names there are. */
  get size(): number {
    return this.#values.size
  }

  names(): Iterable<string> {
    return this.#values.keys()
  }

  add(name: string, value: V): void {
    const found = this.#values.get(name)
    if (found === undefined) this.#values.set(name, value)
    else if (found instanceof Set) found.add(value)
    else this.#values.set(name, new Set([found, value]))
  }

  delete(name: string, value: V): void {
    const found = this.#values.get(name)
    if (found instanceof Set) {
      found.delete(value)
      if (found.size === 0) this.#values.delete(name)
    } else if (found === value) this.#values.delete(name)
  }

  get(name: string): Iterable<V> {
    const found = this.#values.get(name)
    if (found === undefined) return []
    return found instanceof Set ? found : [found]
  }
}

/** Who listens to what. A listener that throws harms neither the others nor the feed. */

export interface Listeners {
  /** @returns what ends it. */
  add(name: string, listener: (value: never) => void): () => void
  tell(name: string, value: unknown): void
  has(name: string): boolean
}

/** @param onThrow told what a listener threw. */
export function createListeners(onThrow: (error: unknown, name: string) => void): Listeners {
  const all = new Map<string, Set<(value: never) => void>>()
  return {
    add(name, listener) {
      const listeners = all.get(name) ?? new Set()
      all.set(name, listeners)
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    tell(name, value) {
      for (const listener of all.get(name) ?? []) {
        try {
          listener(value as never)
        } catch (error) {
          onThrow(error, name)
        }
      }
    },
    has: (name) => (all.get(name)?.size ?? 0) > 0,
  }
}

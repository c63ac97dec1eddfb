/** The feed's events and their listeners. A listener that throws harms neither the others nor the feed. */

import { FeedError, type FeedErrorCode, messageOf } from "./error.ts"

export interface Emitter {
  /** @returns what removes the listener. */
  on(name: string, listener: (value: never) => void): () => void
  emit(name: string, value: unknown): void
  /** Emits an error. If nobody listens to errors, it goes to the console. */
  report(code: FeedErrorCode, message: string, cause?: unknown): void
}

export function createEmitter(): Emitter {
  const listeners = new Map<string, Set<(value: never) => void>>()

  function emit(name: string, value: unknown): void {
    for (const listener of listeners.get(name) ?? []) {
      try {
        listener(value as never)
      } catch (error) {
        if (name === "error") console.error(error)
        else report("listener", `a listener to ${name} threw: ${messageOf(error)}`, error)
      }
    }
  }

  function report(code: FeedErrorCode, message: string, cause?: unknown): void {
    const error = new FeedError(code, message, cause)
    if (!listeners.get("error")?.size) console.error(error)
    emit("error", error)
  }

  return {
    on(name, listener) {
      const those = listeners.get(name) ?? new Set()
      listeners.set(name, those)
      those.add(listener)
      return () => those.delete(listener)
    },
    emit,
    report,
  }
}

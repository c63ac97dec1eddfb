/**
 * The feed's events and their listeners. A listener that throws, now or later, harms neither the others nor the feed.
 */

import { FeedError, type FeedErrorCode, messageOf } from "./error.ts"

type Listener = (value: never) => unknown

export interface Emitter {
  /** @returns what removes the listener. */
  on(name: string, listener: Listener): () => void
  /** Calls the listeners that are there now, but those that another one has removed meanwhile. */
  emit(name: string, value: unknown): void
  /** Emits an error. If nobody listens to errors, it goes to the console. */
  report(code: FeedErrorCode, message: string, cause?: unknown): void
}

export function createEmitter(): Emitter {
  // One entry for each call of `on`: two callers may add the same function, and each removes its own.
  const listeners = new Map<string, Set<{ listener: Listener }>>()

  function emit(name: string, value: unknown): void {
    const those = listeners.get(name)
    const failed = (error: unknown) => {
      if (name === "error") console.error(error)
      else report("listener", `a listener to ${name} threw: ${messageOf(error)}`, error)
    }
    for (const entry of [...(those ?? [])]) {
      if (!those?.has(entry)) continue
      try {
        const result = entry.listener(value as never)
        if (result instanceof Promise) result.catch(failed)
      } catch (error) {
        failed(error)
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
      const entry = { listener }
      listeners.set(name, those.add(entry))
      return () => those.delete(entry)
    },
    emit,
    report,
  }
}

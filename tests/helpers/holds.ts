/** Holds: calls of a fake that wait in the middle until a test lets them go on. */

import { type Deferred, deferred } from "../../relay/lib/deferred.ts"

export interface Hold {
  /** Resolves when the call has come there. */
  readonly reached: Promise<void>
  release(): void
  fail(message: string): void
}

export interface Holds {
  /** Everything that was called, in order. */
  readonly calls: string[]
  /** Holds the next call of this name. */
  next(name: string): Hold
  /** What a fake calls. Waits if that is held. */
  pass(name: string): Promise<void>
}

export function createHolds(): Holds {
  const calls: string[] = []
  const held = new Map<string, { reached: Deferred<void>; released: Deferred<void> }>()
  return {
    calls,
    next(name) {
      const hold = { reached: deferred<void>(), released: deferred<void>() }
      held.set(name, hold)
      return {
        reached: hold.reached.promise,
        release: () => hold.released.resolve(),
        fail: (message) => hold.released.reject(new Error(message)),
      }
    },
    async pass(name) {
      calls.push(name)
      const hold = held.get(name)
      held.delete(name)
      hold?.reached.resolve()
      await hold?.released.promise
    },
  }
}

/** Those who wait for an answer of the relay, each with what was asked; a request that a cut has swallowed is asked again. */

export interface Waiter<Asked> {
  readonly asked: Asked
  /** The request that asks for it, while it is under way. */
  request: number | undefined
  resolve(): void
  reject(error: Error): void
}

export interface Waiting<Asked> {
  /** Resolves when it is granted. */
  add(asked: Asked): Promise<void>
  all(): readonly Waiter<Asked>[]
  /** Takes out those for whom it holds. */
  part(test: (waiter: Waiter<Asked>) => boolean): Waiter<Asked>[]
  /** There is no connection. */
  lost(): void
  end(error: Error): void
}

export function createWaiting<Asked>(): Waiting<Asked> {
  let waiters: Waiter<Asked>[] = []
  let ended: Error | undefined

  function part(test: (waiter: Waiter<Asked>) => boolean): Waiter<Asked>[] {
    const found = waiters.filter(test)
    waiters = waiters.filter((waiter) => !found.includes(waiter))
    return found
  }

  return {
    add(asked) {
      const done = new Promise<void>((resolve, reject) => {
        if (ended !== undefined) reject(ended)
        else waiters.push({ asked, request: undefined, resolve, reject })
      })
      // Who does not wait for it hears of it by the error event.
      done.catch(() => {})
      return done
    },
    all: () => waiters,
    part,
    lost() {
      for (const waiter of waiters) waiter.request = undefined
    },
    end(error) {
      ended = error
      for (const waiter of part(() => true)) waiter.reject(error)
    },
  }
}

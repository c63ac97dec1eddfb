/** Requests of the caller that the relay has not granted yet. They wait for a connection, and survive it. */

export interface PendingRequest<Wanted> {
  readonly wanted: Wanted
  resolve(): void
  reject(error: Error): void
}

export interface PendingRequests<Wanted> {
  /** Resolves when the relay grants it. */
  add(wanted: Wanted): Promise<void>
  all(): readonly PendingRequest<Wanted>[]
  /** Removes those that the test holds for, and returns them. */
  remove(test: (request: PendingRequest<Wanted>) => boolean): PendingRequest<Wanted>[]
  /** Rejects all of them, and all that come later. */
  close(error: Error): void
}

export function createPendingRequests<Wanted>(): PendingRequests<Wanted> {
  let requests: PendingRequest<Wanted>[] = []
  let closed: Error | undefined

  function remove(test: (request: PendingRequest<Wanted>) => boolean): PendingRequest<Wanted>[] {
    const removed = requests.filter(test)
    requests = requests.filter((request) => !removed.includes(request))
    return removed
  }

  return {
    add(wanted) {
      const done = new Promise<void>((resolve, reject) => {
        if (closed !== undefined) reject(closed)
        else requests.push({ wanted, resolve, reject })
      })
      // A caller that does not wait for it learns of a refusal by the error event.
      done.catch(() => {})
      return done
    },
    all: () => requests,
    remove,
    close(error) {
      closed = error
      for (const request of remove(() => true)) request.reject(error)
    },
  }
}

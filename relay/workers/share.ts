/** A worker's share in the feed: how many parts it has not taken, and for how long. */

import type { IpcChannel } from "./ipc.ts"

export class Share {
  /** Where its parts are written. */
  readonly channel: Pick<IpcChannel, "write">
  readonly #onTaken: () => void
  readonly #onEnd: (share: Share) => void
  #owed = 0
  /** Since when the oldest part that it has not taken waits. */
  #since = 0

  constructor(
    channel: Pick<IpcChannel, "write">,
    { onTaken, onEnd }: { onTaken: () => void; onEnd: (share: Share) => void },
  ) {
    this.channel = channel
    this.#onTaken = onTaken
    this.#onEnd = onEnd
  }

  /** Parts that it has been sent and has not taken. */
  get owed(): number {
    return this.#owed
  }

  /** A part was written to it. */
  owe(now: number): void {
    if (this.#owed++ === 0) this.#since = now
  }

  /** The worker has handed one more part to its lanes. */
  taken(): void {
    this.#owed--
    this.#since = performance.now()
    this.#onTaken()
  }

  /** For how long it has taken nothing although a part waits; milliseconds. */
  stuckFor(): number {
    return this.#owed === 0 ? 0 : performance.now() - this.#since
  }

  /** So many milliseconds do not count: this process itself did not run. */
  excuse(ms: number): void {
    this.#since += ms
  }

  /** The worker is gone. */
  end(): void {
    this.#onEnd(this)
  }
}

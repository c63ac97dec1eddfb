/** Kept pages: those of a read, as long as the replay buffer has room for all of them. */

import type { Change } from "../change/change.ts"
import type { Cursor, Snapshot } from "../change/cursor.ts"
import { type ReplayBuffer, sizeOf } from "./replay-buffer.ts"

export class KeptPages {
  readonly #since: Snapshot
  readonly #buffer: Pick<ReplayBuffer, "prepend">
  readonly #roomBytes: number
  /** Undefined if they were too many. */
  #pages: Array<readonly Change[]> | undefined = []
  #bytes = 0

  /** @param since where the read begins. */
  constructor(since: Snapshot, buffer: Pick<ReplayBuffer, "prepend" | "room">) {
    this.#since = since
    this.#buffer = buffer
    this.#roomBytes = buffer.room()
  }

  add(changes: readonly Change[]): void {
    this.#bytes += sizeOf(changes)
    if (this.#bytes > this.#roomBytes) this.#pages = undefined
    else this.#pages?.push(changes)
  }

  /** Puts them in front of what the buffer has. @param until the position at which the read ends. */
  prepend(until: Cursor): void {
    if (this.#pages !== undefined) this.#buffer.prepend(this.#since, this.#pages, until)
  }
}

/** Lane memory: what all lanes of a process hold together, with frames that several share counted once. */

import { bytesOf } from "./frames.ts"
import type { LaneEntry } from "./lane-entry.ts"

export class LaneMemory {
  #bytes = 0
  /** How many entries hold each list of chunks. */
  readonly #holders = new Map<readonly Buffer[], number>()

  /** Bytes. */
  get bytes(): number {
    return this.#bytes
  }

  hold({ shared, own }: LaneEntry): void {
    this.#add(shared)
    for (const chunks of own?.values() ?? []) this.#add(chunks)
  }

  release({ shared, own }: LaneEntry): void {
    this.#remove(shared)
    for (const chunks of own?.values() ?? []) this.#remove(chunks)
  }

  #add(chunks: readonly Buffer[]): void {
    const holders = this.#holders.get(chunks) ?? 0
    if (holders === 0) this.#bytes += bytesOf(chunks)
    this.#holders.set(chunks, holders + 1)
  }

  #remove(chunks: readonly Buffer[]): void {
    const holders = this.#holders.get(chunks) ?? 0
    if (holders > 1) return void this.#holders.set(chunks, holders - 1)
    if (this.#holders.delete(chunks)) this.#bytes -= bytesOf(chunks)
  }
}

/** Part frames: the chunks of one part of a batch, made once for all lanes that show the same of it. */

import type { Change } from "../change/change.ts"
import type { TimeSlice } from "../lib/time-slice.ts"
import { chunksOf, makeFrames } from "./frames.ts"
import type { VisibleChange } from "./visibility.ts"

export class PartFrames {
  readonly #closed: boolean
  readonly #slice: TimeSlice
  /** The changes by which the chunks are known. */
  readonly #numbers = new Map<Change, number>()
  readonly #made = new Map<string, readonly Buffer[]>()

  /** @param closed whether the batch ends here, so that a transaction's last change is known to be its last. */
  constructor(closed: boolean, slice: TimeSlice) {
    this.#closed = closed
    this.#slice = slice
  }

  /** @param after frames that follow, such as a checkpoint: the same wherever there are some. */
  async of(visibleChanges: readonly VisibleChange[], after: readonly Buffer[]): Promise<readonly Buffer[]> {
    const seen = visibleChanges.map(({ change, as, mask }) => `${this.#numberOf(change)} ${as} ${mask.key}`)
    const key = `${after.length} ${seen.join()}`
    const known = this.#made.get(key)
    if (known !== undefined) return known
    const chunks = chunksOf([...(await makeFrames(visibleChanges, this.#closed, this.#slice)), ...after])
    this.#made.set(key, chunks)
    return chunks
  }

  #numberOf(change: Change): number {
    const number = this.#numbers.get(change) ?? this.#numbers.size
    this.#numbers.set(change, number)
    return number
  }
}

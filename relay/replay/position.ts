/** Position: how far the feed has come, and the batch in progress. Pure. */

import type { Cursor } from "../change/cursor.ts"

export class Position {
  #head: Cursor | undefined
  #before: Cursor | undefined
  #lineages: ReadonlySet<string> = new Set()
  #batches = 0
  #inBatch = false
  #epoch = 0
  #atBatchEnd: Array<() => void> = []
  #waiting: Array<() => void> = []

  /** The position after the last batch, the one in progress included; undefined before `begin`. */
  get head(): Cursor | undefined {
    return this.#head
  }

  /** The lineage of the log that the feed reads. */
  get lineage(): string | undefined {
    return this.#head?.lineage
  }

  /** The lineages whose cursors hold. */
  get lineages(): ReadonlySet<string> {
    return this.#lineages
  }

  get inBatch(): boolean {
    return this.#inBatch
  }

  /** The number of the batch in progress; 0 between two. */
  get batch(): number {
    return this.#inBatch ? this.#batches : 0
  }

  /** The position before the batch in progress. */
  get before(): Cursor | undefined {
    return this.#before
  }

  /** Counts the resets: what was promised in an earlier epoch does not hold. */
  get epoch(): number {
    return this.#epoch
  }

  /** The log has this lineage now. */
  adopt(lineage: string, lineages: ReadonlySet<string>): void {
    this.#lineages = lineages
    if (this.#head !== undefined) this.#head = { lineage, snapshot: this.#head.snapshot }
  }

  begin(cursor: Cursor): void {
    this.#head = cursor
    this.advance()
  }

  /** @param cursor the position after the whole batch. */
  beginBatch(cursor: Cursor): void {
    this.#batches++
    this.#inBatch = true
    this.#before = this.#head
    this.#head = cursor
  }

  /** Runs what waited for the end of the batch. */
  endBatch(): void {
    this.#inBatch = false
    for (const act of this.#atBatchEnd.splice(0)) act()
    this.advance()
  }

  /** Ends the batch in progress without the rest of it: the position before it counts again. */
  abandonBatch(): void {
    this.#head = this.#before
    this.endBatch()
  }

  /** There is no position until `begin`. What waited for the end of the batch never runs. */
  reset(): void {
    this.#head = undefined
    this.#inBatch = false
    this.#atBatchEnd = []
    this.#epoch++
    this.advance()
  }

  /** Runs at the end of the batch in progress. */
  afterBatch(act: () => void): void {
    this.#atBatchEnd.push(act)
  }

  /** The feed has delivered something. */
  advance(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  /** Resolves when the feed has delivered something more. */
  advanced(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
    })
  }
}

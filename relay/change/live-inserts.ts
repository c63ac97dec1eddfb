/**
 * The versions of new rows. Most inserts are logged without one: nothing had touched the row by then, and to tell would
 * cost every writer. A later change of the transaction that replaces such a row names its version, so here the two find
 * each other. Pure.
 */

import type { RowChange } from "./change.ts"
import { keyOf } from "./order-proof.ts"

interface Inserted {
  readonly name: string
  /** Undefined where rows are not kept. */
  readonly text: string | undefined
}

const WRAP = 2n ** 32n

export class LiveInserts {
  readonly #byKey = new Map<string, Inserted>()
  readonly #keepsRows: boolean

  /** @param keepsRows whether the rows may be kept for comparing: those of one page. */
  constructor(keepsRows: boolean) {
    this.#keepsRows = keepsRows
  }

  get size(): number {
    return this.#byKey.size
  }

  /** Takes the changes in the order of the log. @returns the change with a version that says what it makes or replaces. */
  resolve(change: RowChange): RowChange {
    if (change.op === "insert") return change.live ? this.#name(change) : change
    const { before, oldVersion, meta } = change
    if (before === undefined || oldVersion === undefined || this.#byKey.size === 0) return change
    const key = keyOf(before.text, meta)
    const inserted = this.#byKey.get(key)
    if (inserted === undefined || !this.#replaces(change, key, inserted)) return change
    this.#byKey.delete(key)
    return { ...change, oldVersion: inserted.name }
  }

  clear(): void {
    this.#byKey.clear()
  }

  #name(change: RowChange): RowChange {
    const name = `live:${change.id}`
    const text = change.after?.text ?? ""
    this.#byKey.set(keyOf(text, change.meta), { name, text: this.#keepsRows ? text : undefined })
    return { ...change, newVersion: name }
  }

  /** Whether it is the inserted row that the change replaces, and not one that was there before with the same key. */
  #replaces({ op, before, after, meta, xid, oldXmin, oversize }: RowChange, key: string, { text }: Inserted): boolean {
    if (op === "delete" && oldXmin !== undefined) {
      const own = BigInt(xid) % WRAP
      // A subtransaction of this one has a younger id. Its row was inserted by it, and the same.
      const younger = (BigInt(oldXmin) - own + WRAP) % WRAP < WRAP / 2n
      return oldXmin === String(own) || (younger && (text === undefined || oversize || text === before?.text))
    }
    // The row that was inserted needs its key, which another one with the same key has given up only if it moved.
    if (after !== undefined && keyOf(after.text, meta) === key) return true
    return text !== undefined && text === before?.text
  }
}

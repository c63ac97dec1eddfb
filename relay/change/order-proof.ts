/**
 * The proof of an order: whether a client that applies the changes of one transaction to one table one after another ends
 * with what the table holds. It takes them as they come and keeps keys and versions, never rows. Pure.
 *
 * An order is right if each version of a row is made before it is replaced, and if of the changes that touch a key the last
 * one sets it wherever the row that it made is there at the end. Both hold for what a narrow filter lets through, too: of
 * the changes of one row the last that passes says whether it is still seen.
 */

import type { Meta, RowChange, TableChange } from "./change.ts"
import { scanRow } from "./row.ts"

/** What is the same for images with the same key. @throws SyntaxError as `scanRow`. */
export function keyOf(text: string, { key }: Meta): string {
  const row = scanRow(text, key)
  const [only] = key
  if (key.length === 1 && only !== undefined) return row.get(only) ?? "null"
  return key.map((name) => row.get(name) ?? "null").join()
}

/**
 * Whether this transaction made the row that a change replaced or removed; undefined where that is not certain.
 * @param first the version that the row had before idle updates: if there were any, the xmin is that of the last of them.
 */
export function madeHere(
  { xid, oldVersion, oldXmin }: RowChange,
  first: string | undefined,
): boolean | undefined {
  if (oldXmin === undefined || oldVersion !== first) return undefined
  const age = (Number(BigInt(xid) & 0xffff_ffffn) - Number(oldXmin)) | 0
  // A later xid is one of a savepoint of this transaction, or of a transaction that was over before.
  return age < 0 ? undefined : age === 0
}

/** Whether it is an update that changes nothing of what is captured. Such a one is not sent. */
export const isIdle = ({ op, oversize, before, after }: RowChange): boolean =>
  op === "update" && !oversize && before?.text === after?.text

/** The versions of a row between which nothing changed that is captured. */
export class IdleVersions {
  readonly #earlier = new Map<string, string>()

  get size(): number {
    return this.#earlier.size
  }

  /** Takes an idle update. @returns false if its versions are none that follow one another. */
  add({ oldVersion, newVersion }: RowChange): boolean {
    if (oldVersion === undefined || newVersion === undefined) return false
    if (this.#earlier.has(newVersion) || this.first(oldVersion) === newVersion) return false
    this.#earlier.set(newVersion, oldVersion)
    return true
  }

  /** The version that the row had before. */
  first(version: string): string {
    let first = version
    for (let next = this.#earlier.get(first); next !== undefined; next = this.#earlier.get(first))
      first = next
    return first
  }

  clear(): void {
    this.#earlier.clear()
  }
}

export class OrderProof {
  /** The versions that were made, and the keys of their rows. */
  readonly #made = new Map<string, string>()
  readonly #replaced = new Set<string>()
  /** For each key the version that the last change set, undefined where it removed the row. */
  readonly #holds = new Map<string, string | undefined>()
  readonly #idle = new IdleVersions()
  /** Keys of rows that were replaced and were, it seems, there before. */
  readonly #found = new Set<string>()
  /** Those of them that may have been inserted by a statement whose rows were not in the log yet. */
  readonly #doubtful = new Set<string>()
  /** Keys of rows that were captured by statement. */
  readonly #byStatement = new Set<string>()
  #deferred = false
  /** What the table held where the present part began: any rows in the middle of a transaction. */
  #began: "unique" | "any" | "empty" = "unique"
  #failed = false

  /** How much it remembers: the changes since the beginning, at the most. */
  get size(): number {
    return Math.max(this.#made.size, this.#replaced.size) + this.#idle.size
  }

  add(change: RowChange): void {
    if (isIdle(change)) return this.#addIdle(change)
    const { before, after, oldVersion, newVersion, meta } = change
    this.#deferred = meta.deferred === true
    const key = after && keyOf(after.text, meta)
    const version = oldVersion && this.#idle.first(oldVersion)
    if (before !== undefined) this.#remove(keyOf(before.text, meta), version, change, key)
    if (key !== undefined) this.#set(key, newVersion, change.live === true)
  }

  /** The table, or a part of it, is loaded again or empty from here on. */
  pass({ op, meta }: TableChange): void {
    this.#made.clear()
    this.#holds.clear()
    this.#failed = false
    // PostgreSQL refuses to truncate a table that a statement is at work on, so nothing from before comes later. The
    // places of its rows are given out anew.
    this.#began = op === "bulk_load" || meta.partition !== undefined ? "any" : "empty"
    if (this.#began === "any") return
    this.#replaced.clear()
    this.#idle.clear()
    this.#found.clear()
    this.#doubtful.clear()
    this.#byStatement.clear()
  }

  /** Whether the order up to here is right. */
  holds(): boolean {
    if (this.#failed) return false
    for (const [key, version] of this.#holds) {
      if (version === undefined ? this.#mayBeLeft(key) : this.#replaced.has(version)) return false
    }
    for (const [version, key] of this.#made)
      if (!this.#replaced.has(version) && this.#holds.get(key) === undefined) return false
    return true
  }

  #addIdle(change: RowChange): void {
    const { newVersion } = change
    // What replaced the version came before it, so where that belongs is not known any more.
    if (newVersion !== undefined && this.#replaced.has(newVersion)) this.#failed = true
    if (!this.#idle.add(change)) this.#failed = true
  }

  /** Whether a row that was there before may have the key of one that came and went. */
  #mayBeLeft(key: string): boolean {
    if (!this.#deferred || this.#began === "empty") return false
    return this.#began === "any" || !this.#found.has(key)
  }

  #remove(key: string, version: string | undefined, change: RowChange, next: string | undefined): void {
    this.#holds.set(key, undefined)
    if (version === undefined || this.#replaced.has(version)) {
      this.#failed = true
      return
    }
    this.#replaced.add(version)
    if (this.#made.has(version)) return
    // Of what this transaction made some may lie before the present part.
    const here =
      madeHere(change, version) === true && this.#began === "any" ? undefined : madeHere(change, version)
    const inserted = unversioned(key)
    if (here !== false && this.#byStatement.has(key)) this.#failed = true
    if (here !== false && this.#made.has(inserted)) {
      // A row that keeps its key is the one that was inserted there. One that moves away or goes may be another, during
      // whose statement the key was taken again.
      if (here !== true && (next !== key || this.#deferred)) this.#failed = true
      this.#made.delete(inserted)
      return
    }
    this.#found.add(key)
    if (here !== false) this.#doubtful.add(key)
  }

  #set(key: string, version: string | undefined, live: boolean): void {
    const name = version ?? unversioned(key)
    this.#holds.set(key, name)
    if (this.#made.has(name) || this.#replaced.has(name)) this.#failed = true
    this.#made.set(name, key)
    if (version !== undefined || live) return
    this.#byStatement.add(key)
    if (this.#doubtful.has(key)) this.#failed = true
  }
}

/** The name of a row that was inserted without its version. */
const unversioned = (key: string): string => `?${key}`

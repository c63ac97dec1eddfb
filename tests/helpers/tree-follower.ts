/** A client that keeps tables as docs/PROTOCOL.md says: one change after another, and what it is told to load it loads. */

import { isDeepStrictEqual } from "node:util"
import type { WebSocket } from "ws"
import { type Deferred, deferred } from "../../relay/lib/deferred.ts"
import type { Received } from "./client.ts"
import { DEADLINE_MS } from "./wait.ts"

export type Json = Record<string, unknown>
/** Rows by the text of their key. */
export type Rows = Map<string, Json>

export class TreeFollower {
  readonly #tables = new Map<string, Rows>()
  readonly #toLoad = new Set<string>()
  readonly #marks = new Map<string, Deferred<void>>()
  /** What came since the last rest, for a failure. */
  #trail: string[] = []

  constructor(socket: WebSocket) {
    socket.on("message", (data) => this.#take(JSON.parse(data.toString()) as Received, data.toString()))
    socket.on("close", (code, reason) => {
      for (const mark of this.#marks.values()) mark.reject(new Error(`closed with ${code} ${reason}`))
    })
  }

  get trail(): readonly string[] {
    return this.#trail
  }

  forgetTrail(): void {
    this.#trail = []
  }

  /** Resolves when a message of the application with this text has come. */
  async sees(mark: string): Promise<void> {
    const seen = deferred<void>()
    this.#marks.set(mark, seen)
    const timer = setTimeout(() => seen.reject(new Error(`waited in vain for ${mark}`)), DEADLINE_MS)
    await seen.promise.finally(() => clearTimeout(timer))
    this.#marks.delete(mark)
  }

  /** Whether it was told to load the table, or something is known to have gone by unseen. */
  mustLoad(table: string): boolean {
    return this.#toLoad.has(table)
  }

  load(table: string, rows: Rows): void {
    this.#tables.set(table, new Map(rows))
    this.#toLoad.delete(table)
  }

  /** What differs from what a table holds, by the columns of that. */
  difference(table: string, rows: Rows): string | undefined {
    const held = this.#tables.get(table) ?? new Map<string, Json>()
    for (const [key, row] of rows) {
      const copy = held.get(key)
      if (copy === undefined) return `${key} is missing`
      for (const [name, value] of Object.entries(row))
        if (!isDeepStrictEqual(copy[name], value))
          return `${key} has ${name} ${JSON.stringify(copy[name])} instead of ${JSON.stringify(value)}`
    }
    for (const key of held.keys()) if (!rows.has(key)) return `${key} is there`
    return undefined
  }

  #take(message: Received, text: string): void {
    if (message.type === "message") return this.#marks.get(String(message.payload))?.resolve()
    if (message.table === undefined) return
    this.#trail.push(text)
    this.#apply(message, message.table)
  }

  #apply(message: Received, table: string): void {
    const rows = this.#tables.get(table) ?? new Map<string, Json>()
    this.#tables.set(table, rows)
    const { action, key, data } = message
    switch (action) {
      case "truncate":
        rows.clear()
        if (message.partition !== undefined) this.#toLoad.add(table)
        return
      case "bulk_load":
        this.#toLoad.add(table)
        return
      case "delete":
      case "leave":
        rows.delete(JSON.stringify(key))
        return
      default:
        if (message.previous_key !== undefined) rows.delete(JSON.stringify(message.previous_key))
        if (data === undefined || data === null) this.#toLoad.add(table)
        else rows.set(JSON.stringify(key), data)
    }
  }
}

/**
 * A client as docs/PROTOCOL.md wants it: it keeps a copy of the tables, its cursor, and the ids that may come again, so
 * that the copy can be compared with the tables. Beside that it keeps the trail of everything it was told.
 */

import { once } from "node:events"
import { isDeepStrictEqual } from "node:util"
import type pg from "pg"
import { WebSocket } from "ws"
import type { Received } from "./client.ts"
import { token } from "./relay.ts"
import { until } from "./wait.ts"

export type Row = Record<string, unknown>

/** Rows by table and key, `public.vote {"id":"1"}`. */
export type Copy = Map<string, Row>

/** State read together with a cursor. */
export interface Reading {
  cursor: string
  copy: Copy
  /** Whether the copy is what the cursor says, nothing more: then each change must fit onto it. */
  exact: boolean
}

/** What the ledger was told since its state was loaded. */
export type Step =
  | { kind: "change"; message: Received; repeat: boolean }
  /** Everything up to the cursor was sent. `replayed` where it ends a replay. */
  | { kind: "mark"; cursor: string; replayed: number | undefined }
  /** From here on everything after the cursor comes, again if need be. `announced`: how many, if it is known. */
  | { kind: "resumed"; cursor: string; announced: number | undefined }

/** What a subscribe was sent with, for its answer. */
interface Asked {
  own: boolean
  reading: Reading | undefined
  widens: boolean
}

const copyKey = (table: unknown, key: unknown) => `${table} ${JSON.stringify(key)}`
const tableOf = (entry: string) => entry.slice(0, entry.indexOf(" "))

/** Rows of a table as a copy: `key` names the columns that identify them, sent as strings where they are bigint. */
export const copyOf = (table: string, rows: readonly Row[]): Copy =>
  new Map(rows.map((row) => [copyKey(table, { id: String(row.id) }), row]))

const TABLES = ["vote", "guarantee", "attendance"]

/** The tables and the cursor, as an application reads them together. */
export async function readState(session: pg.Client): Promise<Reading> {
  await session.query("begin isolation level repeatable read read only; set local timezone = 'UTC'")
  const { rows } = await session.query<{ cursor: string }>("select relay.cursor() as cursor")
  const copy: Copy = new Map()
  for (const table of TABLES) {
    const found = await session.query<{ row: Row }>(`select row_to_json(t.*) as row from ${table} t`)
    const entries = copyOf(
      `public.${table}`,
      found.rows.map(({ row }) => row),
    )
    for (const [key, row] of entries) copy.set(key, row)
  }
  await session.query("commit")
  return { cursor: rows[0]?.cursor as string, copy, exact: true }
}

export class Ledger {
  copy: Copy = new Map()
  cursor: string | undefined
  /** Where the trail begins. */
  base = ""
  exact = false
  trail: Step[] = []
  /** What did not fit onto the copy. */
  misfits: string[] = []
  /** The state at the last mark, as a client that stores it would find it after a restart. */
  stored: Reading | undefined
  /** How the last connection ended, `code` 0 by the ledger itself; undefined while it lasts. */
  ended: { code: number; reason: string } | undefined = { code: 0, reason: "never connected" }
  /** Whether the present connection has been accepted, and the state loaded if it had to be. */
  joined = false
  /** Messages of the application, and all counts since the beginning. */
  messages: Received[] = []
  counts = { changes: 0, repeats: 0, connections: 0, recovered: 0, loads: 0 }

  readonly #claims: Record<string, unknown>
  readonly #store: boolean
  #socket: WebSocket | undefined
  /** Resolves when the last connection has ended. */
  #over = Promise.resolve()
  /** The ids that may come again, each with the connection that it last came on. */
  #seen = new Map<string, number>()
  /** Changes that came before the state was loaded. */
  #early: Received[] | undefined
  #asked = new Map<string, Asked>()
  #answers = new Map<string, (message: Received) => void>()
  #requests = 0

  /** @param options.store whether `stored` is kept, which copies the copy at each mark. */
  constructor(options: { claims?: Record<string, unknown>; store?: boolean } = {}) {
    this.#claims = options.claims ?? {}
    this.#store = options.store ?? false
  }

  /** Begins from this state at the next connection. */
  adopt(reading: Reading): void {
    this.cursor = reading.cursor
    this.copy = new Map(reading.copy)
    this.exact = reading.exact
    this.base = reading.cursor
    this.trail = []
    this.stored = this.#store ? reading : undefined
    this.#seen.clear()
    this.#early = undefined
  }

  /**
   * Connects, with the kept cursor unless told otherwise; a connection that there is ends.
   * @returns connection_success. If it says `recovered: false`, call `load`.
   * @throws Error if the upgrade is refused or the connection ends before.
   */
  connect(url: string, channels: readonly string[], cursor = this.cursor): Promise<Received> {
    this.disconnect()
    const query = new URLSearchParams({ channels: channels.join(",") })
    if (cursor !== undefined) query.set("cursor", cursor)
    const socket = new WebSocket(`${url.replace("http", "ws")}/ws?${query}`, {
      headers: { authorization: `Bearer ${token(this.#claims)}` },
    })
    this.#socket = socket
    this.counts.connections++
    this.ended = undefined
    this.joined = false
    this.#over = new Promise((resolve) => socket.once("close", () => resolve()))
    return new Promise((resolve, reject) => {
      socket.on("error", reject)
      socket.on("close", (code, reason) => {
        if (this.#socket === socket) {
          this.ended = { code, reason: reason.toString() }
          this.joined = false
        }
        reject(new Error(`closed with ${code} ${reason}`))
      })
      socket.on("message", (data) => {
        if (this.#socket !== socket) return
        const message = JSON.parse(data.toString()) as Received
        this.#take(message)
        if (message.type !== "connection_success") return
        this.joined = !this.unloaded
        resolve(message)
      })
    })
  }

  /** What a client has loaded by itself, after it was told to. */
  load(rows: Copy): void {
    this.counts.loads++
    this.copy = new Map(rows)
    const early = this.#early ?? []
    this.#early = undefined
    this.joined = this.ended === undefined
    for (const message of early) this.#apply(message)
  }

  /**
   * Connects again with the kept cursor whenever the connection ends, and loads when it is told to, as a client does.
   * @param signal ends it.
   */
  async follow(
    url: string,
    channels: readonly string[],
    load: () => Promise<Copy>,
    signal: AbortSignal,
  ): Promise<void> {
    const aborted = once(signal, "abort")
    while (!signal.aborted) {
      try {
        await this.connect(url, channels)
        if (this.unloaded) this.load(await load())
      } catch {
        // Refused, or cut before its first message: again.
      }
      if (this.ended === undefined) await Promise.race([this.#over, aborted])
    }
    this.disconnect()
  }

  /** Whether it was told to load its state and has not. */
  get unloaded(): boolean {
    return this.#early !== undefined
  }

  /** Cuts the connection: what is under way is lost. */
  disconnect(): void {
    const socket = this.#socket
    this.#socket = undefined
    this.joined = false
    socket?.terminate()
    this.ended ??= { code: 0, reason: "cut by the ledger" }
    this.#asked.clear()
    this.#answers.clear()
  }

  /** Reads nothing from the socket until `unstall`. */
  stall(): void {
    this.#socket?.pause()
  }

  unstall(): void {
    this.#socket?.resume()
  }

  /**
   * Subscribes on the open connection. With `own` the kept cursor goes along, with a reading its cursor.
   * @param how.widens whether the channels bring rows that the copy lacks.
   * @returns the answer; undefined if the connection ends before.
   */
  async subscribe(
    channels: readonly string[],
    how: { own?: boolean; reading?: Reading; widens?: boolean },
  ): Promise<Received | undefined> {
    const request = `r${++this.#requests}`
    const own = how.own ?? false
    const cursor = own ? this.cursor : how.reading?.cursor
    this.#asked.set(request, { own, reading: how.reading, widens: how.widens ?? false })
    let answer: Received | undefined
    this.#answers.set(request, (message) => {
      answer = message
    })
    this.#socket?.send(
      JSON.stringify({ type: "subscribe", channels, request, ...(cursor === undefined ? {} : { cursor }) }),
    )
    await until("the answer to subscribe", () => answer !== undefined || this.ended !== undefined)
    return answer
  }

  #take(message: Received): void {
    switch (message.type) {
      case "connection_success":
        if (message.recovered === true) this.#resumed(message)
        else this.#begin(message.cursor as string)
        return
      case "subscribed":
        this.#subscribed(message)
        return
      case "unsubscribed":
      case "checkpoint":
        this.#mark(message)
        return
      case "error":
        this.misfits.push(`an error: ${JSON.stringify(message)}`)
        this.#answers.get(String(message.request))?.(message)
        return
      case "ping":
      case "pong":
      case "authenticated":
        return
      default:
        this.#change(message)
    }
  }

  #resumed(message: Received): void {
    this.counts.recovered++
    this.cursor = message.cursor
    const announced = typeof message.replayed === "number" ? message.replayed : undefined
    this.trail.push({ kind: "resumed", cursor: message.cursor as string, announced })
  }

  /** Nothing that was known holds any more. */
  #begin(cursor: string): void {
    this.cursor = cursor
    this.base = cursor
    this.exact = false
    this.trail = []
    this.stored = undefined
    this.#seen.clear()
    this.#early = []
  }

  #subscribed(message: Received): void {
    const request = String(message.request)
    const asked = this.#asked.get(request)
    this.#asked.delete(request)
    const resumes = asked !== undefined && (asked.own || asked.reading !== undefined)
    if (resumes && message.recovered === true) {
      if (asked.reading !== undefined) this.adopt(asked.reading)
      this.#resumed(message)
    } else if (resumes || asked?.widens === true) this.#begin(message.cursor as string)
    else this.#mark(message)
    this.#answers.get(request)?.(message)
    this.#answers.delete(request)
  }

  #mark(message: Received): void {
    const cursor = message.cursor as string
    const replayed = message.type === "checkpoint" ? (message.replayed as number | undefined) : undefined
    this.trail.push({ kind: "mark", cursor, replayed })
    // A subscribe with the kept cursor is under way: everything since that one will come again.
    if ([...this.#asked.values()].some(({ own }) => own)) return
    this.cursor = cursor
    // What came on an earlier connection alone, from a relay that was further, will come again from this one.
    for (const [id, connection] of this.#seen)
      if (connection === this.counts.connections) this.#seen.delete(id)
    if (this.#store && this.#early === undefined)
      this.stored = { cursor, copy: new Map(this.copy), exact: this.exact }
  }

  #change(message: Received): void {
    const repeat = this.#seen.has(message.id as string)
    this.#seen.set(message.id as string, this.counts.connections)
    this.trail.push({ kind: "change", message, repeat })
    if (repeat) {
      this.counts.repeats++
      return
    }
    this.counts.changes++
    if (message.type === "message") this.messages.push(message)
    else if (this.#early !== undefined) this.#early.push(message)
    else this.#apply(message)
  }

  #apply(message: Received): void {
    const { action, table, key, data } = message
    if (action === "truncate") {
      for (const entry of this.copy.keys()) if (tableOf(entry) === table) this.copy.delete(entry)
      return
    }
    const entry = copyKey(table, key)
    const before = copyKey(table, message.previous_key ?? key)
    if (this.exact) this.#fits(message, this.copy.get(before))
    this.copy.delete(before)
    if (action === "create" || action === "update") this.copy.set(entry, data as Row)
  }

  #fits(message: Received, had: Row | undefined): void {
    const misfit = (why: string) => this.misfits.push(`${why}: ${JSON.stringify(message)}`)
    if (message.action === "create") {
      if (had !== undefined) misfit("a create of a row that is there")
    } else if (had === undefined) misfit(`${message.action} of a row that is not there`)
    else if (message.action === "delete" && !isDeepStrictEqual(had, message.data))
      misfit("the last row of a delete is not the one that was known")
    else if (
      message.action === "update" &&
      !Object.entries(message.before ?? {}).every(([name, value]) => isDeepStrictEqual(had[name], value))
    )
      misfit("the row before an update is not the one that was known")
  }
}

/** How two copies differ, in words; empty if they do not. */
export function differences(copy: Copy, table: Copy): string[] {
  const found: string[] = []
  for (const [key, row] of table)
    if (!isDeepStrictEqual(copy.get(key), row))
      found.push(`${key}: has ${JSON.stringify(copy.get(key))}, the table ${JSON.stringify(row)}`)
  for (const key of copy.keys()) if (!table.has(key)) found.push(`${key}: not in the table`)
  return found
}

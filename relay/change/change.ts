/** A committed change: one row of the changelog, and what can be said of it without knowing who asks. Pure. */

import { z } from "zod"
import { capturedText, cutCaptured } from "./captured.ts"
import { inUtc } from "./instant.ts"
import { type Row, scalarText, scanRow } from "./row.ts"

/** What of a change is not the row, and is only there for some operations. */
const Facts = z.object({
  op: z.string().optional(),
  rows: z.number().optional(),
  partition: z.string().optional(),
})

/** What is the same for many changes of a table. */
export const Meta = Facts.extend({
  key: z.array(z.string()).default([]),
  exact: z.array(z.string()).default([]),
  /** Two rows may have the same key until the transaction ends. */
  deferred: z.boolean().optional(),
  scope: z.record(z.string(), z.string()).default({}),
  /** Columns of type timestamptz, which are written in the time zone of whoever wrote the row. */
  instants: z.array(z.string()).optional(),
  /** Columns and the roles that may see them. Pairs, because zod would skip a column __proto__ of a record. */
  restricted: z.array(z.tuple([z.string(), z.array(z.string())])).default([]),
})
export type Meta = z.infer<typeof Meta>

export const Op = z.enum(["insert", "update", "delete", "truncate", "bulk_load", "message"])
export type Op = z.infer<typeof Op>

/** A row of the log and what it is (relay.what), every value as PostgreSQL's text. */
export const LogRow = z.object({
  seq: z.string(),
  xid: z.string(),
  at: z.string(),
  table: z.string().nullable(),
  type: z.string(),
  op: Op,
  oversize: z.boolean(),
  meta: z.string().nullable(),
  data: z.string().nullable(),
})
export type LogRow = z.infer<typeof LogRow>

/**
 * The values of the two images that were cut up last. One change is compared with many lanes in a row, so two are enough
 * and memory stays small.
 */
const cut = new Map<Image, Row>()

/** One state of a row. Its text is cut up only when its values are needed, since most changes concern nobody. */
export class Image {
  readonly text: string
  readonly #scope: Meta["scope"]
  #channels: readonly string[] | undefined

  constructor(text: string, scope: Meta["scope"]) {
    this.text = text
    this.#scope = scope
  }

  /**
   * The channels that it is on: `election_updates` first, then one for each scope column that is not null.
   * @throws SyntaxError as `scanRow`.
   */
  get channels(): readonly string[] {
    this.#channels ??= channelsOf(this.text, this.#scope)
    return this.#channels
  }

  /** Its values. @throws SyntaxError as `scanRow`. */
  get row(): Row {
    const known = cut.get(this)
    if (known !== undefined) return known
    const row = scanRow(this.text)
    if (cut.size === 2) cut.clear()
    cut.set(this, row)
    return row
  }
}

export interface RowChange {
  readonly kind: "row"
  readonly op: "insert" | "update" | "delete"
  readonly id: string
  readonly xid: string
  /** In UTC, as PostgreSQL writes it. */
  readonly at: string
  readonly table: string
  readonly type: string
  readonly meta: Meta
  /** update and delete. */
  readonly before: Image | undefined
  /** insert and update. */
  readonly after: Image | undefined
  /** Whether the row was too large to be logged: its images have the columns of its key and its channels only. */
  readonly oversize: boolean
  /** Which version of the row each image is: `leaf:(block,offset)`, unique in a transaction. Undefined where it was not told. */
  readonly oldVersion: string | undefined
  readonly newVersion: string | undefined
  /** Of a delete: which transaction made the version, modulo 2^32. */
  readonly oldXmin?: string | undefined
  /** Of an insert without a version: nothing had touched the row when it was logged. */
  readonly live?: boolean | undefined
}

export interface TableChange {
  readonly kind: "table"
  readonly op: "truncate" | "bulk_load"
  readonly id: string
  readonly xid: string
  /** In UTC, as PostgreSQL writes it. */
  readonly at: string
  readonly table: string
  readonly type: string
  readonly meta: Meta
}

export interface Message {
  readonly kind: "message"
  readonly op: "message"
  readonly id: string
  readonly xid: string
  /** In UTC, as PostgreSQL writes it. */
  readonly at: string
  readonly channel: string
  readonly payload: string
}

export type Change = RowChange | TableChange | Message

/** The channel that every row is on, and that every connection joins by default. */
export const ALL = "election_updates"

/** By its text: the same for each row of a table, so it is parsed once, and kept once for all changes in memory. */
const metas = new Map<string, Meta>()

/** @throws ZodError or SyntaxError. */
export function readMeta(text: string | null): Meta {
  const known = metas.get(text ?? "{}")
  if (known !== undefined) return known
  const meta = Meta.parse(JSON.parse(text ?? "{}"))
  if (metas.size >= 1_000) metas.clear()
  metas.set(text ?? "{}", meta)
  return meta
}

function channelsOf(text: string, scope: Meta["scope"]): readonly string[] {
  const channels = [ALL]
  const row = scanRow(text, Object.values(scope))
  for (const prefix in scope) {
    const id = scalarText(row.get(scope[prefix] as string))
    if (id !== undefined) channels.push(`${prefix}:${id}`)
  }
  return channels
}

/**
 * Reads a row of the log.
 * @throws ZodError, SyntaxError or RangeError if it is not what the capture writes. The message may hold row data.
 */
export function readChange(row: LogRow): Change {
  switch (row.op) {
    case "insert":
    case "update":
    case "delete":
      return readRowChange(row, row.op)
    case "truncate":
    case "bulk_load": {
      const base = tableBase(row)
      const facts = Facts.parse(JSON.parse(row.data ?? "{}"))
      const meta = Object.keys(facts).length === 0 ? base.meta : { ...base.meta, ...facts }
      return { kind: "table", op: row.op, ...base, meta }
    }
    case "message":
      return readMessage(row)
  }
}

function tableBase({ seq: id, xid, at, table, type, meta }: LogRow) {
  if (table === null) throw new SyntaxError("a change must have a table")
  return { id, xid, at, table, type, meta: readMeta(meta) }
}

function readRowChange(row: LogRow, op: RowChange["op"]): RowChange {
  const base = tableBase(row)
  const { key, scope, instants = [] } = base.meta
  const { images: written, versions, xmin, live } = cutCaptured(row.data ?? "", op, key)
  const images = instants.length === 0 ? written : written.map((text) => inUtc(text, instants))
  const [first, last] = [images[0] as string, images.at(-1) as string]
  return {
    kind: "row",
    op,
    ...base,
    before: op === "insert" ? undefined : new Image(first, scope),
    after: op === "delete" ? undefined : new Image(last, scope),
    oversize: row.oversize,
    oldVersion: op === "insert" ? undefined : versions[0],
    newVersion: op === "delete" ? undefined : versions.at(-1),
    oldXmin: xmin,
    live,
  }
}

function readMessage({ seq: id, xid, at, data }: LogRow): Message {
  const { channel } = Addressed.parse(JSON.parse(data ?? ""))
  const payload = scanRow(data ?? "").get("payload") ?? "null"
  return { kind: "message", op: "message", id, xid, at, channel, payload }
}

const Addressed = z.object({ channel: z.string().min(1) })

/** The `seq` in the log by which a change came; its id has more where it comes in another place. */
export const seqOf = ({ id }: Change): bigint => BigInt(id.split(".", 1)[0] as string)

const metaTexts = new WeakMap<Meta, string>()

/** The row that `readChange` reads as this change, for another process. */
export function logRowOf(change: Change): LogRow {
  const oversize = change.kind === "row" && change.oversize
  const base = { seq: change.id, xid: change.xid, at: change.at, op: change.op, oversize }
  if (change.kind === "message") {
    const data = `{"channel":${JSON.stringify(change.channel)},"payload":${change.payload}}`
    return { ...base, table: null, type: "message", meta: null, data }
  }
  const { table, type } = change
  if (change.kind === "table") {
    const { op, rows, partition, ...meta } = change.meta
    const data = JSON.stringify({ op, rows, partition })
    return { ...base, table, type, meta: JSON.stringify(meta), data }
  }
  let meta = metaTexts.get(change.meta)
  if (meta === undefined) {
    meta = JSON.stringify(change.meta)
    metaTexts.set(change.meta, meta)
  }
  const { before, after, oldVersion, newVersion, oldXmin: xmin, live = false } = change
  const images = [before, after].flatMap((image) => image?.text ?? [])
  const versions = [oldVersion, newVersion].flatMap((version) => version ?? [])
  return { ...base, table, type, meta, data: capturedText({ images, versions, xmin, live }) }
}

/** The key of a row as JSON text; bigint and numeric columns as strings. */
export function keyText(meta: Meta, row: Row): string {
  const parts = meta.key.map((name) => {
    const raw = row.get(name) ?? "null"
    const value = meta.exact.includes(name) && raw !== "null" && !raw.startsWith('"') ? `"${raw}"` : raw
    return `${JSON.stringify(name)}:${value}`
  })
  return `{${parts.join(",")}}`
}

/** The names of the columns that differ, in the row's order. */
export function changedColumns(before: Row, after: Row): string[] {
  const names: string[] = []
  for (const [name, raw] of after) if (before.get(name) !== raw) names.push(name)
  for (const name of before.keys()) if (!after.has(name)) names.push(name)
  return names
}

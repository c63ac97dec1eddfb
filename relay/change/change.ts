/** A committed change: one row of the changelog, and what can be said of it without knowing who asks. Pure. */

import { z } from "zod"
import { looksWhole, type Row, scalarText, scanRow } from "./row.ts"

/** What the capture writes beside a row. */
const Meta = z.object({
  key: z.array(z.string()).default([]),
  exact: z.array(z.string()).default([]),
  scope: z.record(z.string(), z.string()).default({}),
  /** Columns and the roles that may see them. Pairs, because zod would skip a column __proto__ of a record. */
  restricted: z.array(z.tuple([z.string(), z.array(z.string())])).default([]),
  op: z.string().optional(),
  rows: z.number().optional(),
  partition: z.string().optional(),
  channel: z.string().optional(),
})
export type Meta = z.infer<typeof Meta>

/** A row of relay.change, every value as PostgreSQL's text. */
export const LogRow = z.object({
  seq: z.string(),
  xid: z.string(),
  at: z.string(),
  table: z.string().nullable(),
  op: z.enum(["insert", "update", "delete", "truncate", "bulk_load", "message"]),
  type: z.string(),
  old: z.string().nullable(),
  new: z.string().nullable(),
  meta: z.string().nullable(),
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

/** What the changes of one table have in common. */
interface TableInfo {
  readonly table: string
  readonly type: string
  readonly meta: Meta
  /** That of `meta`. */
  readonly text: string
}

const tableInfos = new Map<string, TableInfo>()

/** The same for each row of a table, so it is parsed once, and kept once for all changes in memory. */
function tableInfoOf(row: LogRow): TableInfo {
  const table = row.table ?? ""
  const text = row.meta ?? "{}"
  const known = tableInfos.get(table)
  if (known?.text === text && known.type === row.type) return known
  const info = { table, type: row.type, meta: Meta.parse(JSON.parse(text)), text }
  if (tableInfos.size >= 1_000) tableInfos.clear()
  tableInfos.set(table, info)
  return info
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

function readImage(text: string | null, { scope }: Meta): Image | undefined {
  if (text === null) return undefined
  if (!looksWhole(text)) throw new SyntaxError("a row must be a JSON object")
  return new Image(text, scope)
}

/**
 * Reads a row of the changelog.
 * @throws ZodError or SyntaxError if the row is not what the capture writes.
 */
export function readChange(input: unknown): Change {
  const row = LogRow.parse(input)
  const { table, type, meta } = tableInfoOf(row)
  const { seq: id, xid, at, op } = row
  switch (op) {
    case "insert":
    case "update":
    case "delete": {
      const before = readImage(row.old, meta)
      const after = readImage(row.new, meta)
      return { kind: "row", op, id, xid, at, table, type, meta, before, after }
    }
    case "truncate":
    case "bulk_load":
      return { kind: "table", op, id, xid, at, table, type, meta }
    case "message":
      return { kind: "message", op, id, xid, at, channel: meta.channel ?? "", payload: row.new ?? "null" }
  }
}

const metaTexts = new WeakMap<Meta, string>()

/** The row that `readChange` reads as this change, for another process. */
export function logRowOf(change: Change): LogRow {
  const base = { seq: change.id, xid: change.xid, at: change.at, op: change.op }
  if (change.kind === "message") {
    const meta = JSON.stringify({ channel: change.channel })
    return { ...base, table: null, type: "message", old: null, new: change.payload, meta }
  }
  let meta = metaTexts.get(change.meta)
  if (meta === undefined) {
    meta = JSON.stringify(change.meta)
    metaTexts.set(change.meta, meta)
  }
  const images = change.kind === "row" ? change : { before: undefined, after: undefined }
  return {
    ...base,
    table: change.table,
    type: change.type,
    old: images.before?.text ?? null,
    new: images.after?.text ?? null,
    meta,
  }
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

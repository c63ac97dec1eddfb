/** A committed change: one row of the changelog, and what can be said of it without knowing who asks. Pure. */

import { z } from "zod"
import { type Row, scalarText, scanRow } from "./row.ts"

/** What the capture writes beside a row. */
const Meta = z.object({
  key: z.array(z.string()).default([]),
  exact: z.array(z.string()).default([]),
  scope: z.record(z.string(), z.string()).default({}),
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

/** One state of a row: its text, its values, and the channels that it lies in. */
export interface Image {
  readonly text: string
  readonly row: Row
  /** `election_updates` first, then one channel for each scope column that is not null. */
  readonly channels: readonly string[]
}

export interface RowChange {
  readonly kind: "row"
  readonly op: "insert" | "update" | "delete"
  readonly id: string
  readonly xid: string
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
  readonly at: string
  readonly channel: string
  readonly payload: string
}

export type Change = RowChange | TableChange | Message

/** The channel that every row lies in, and every connection starts in. */
export const ALL = "election_updates"

const metas = new Map<string, Meta>()

/** A table's meta is the same text in each of its rows, so it is parsed once. */
function readMeta(text: string): Meta {
  const known = metas.get(text)
  if (known !== undefined) return known
  const meta = Meta.parse(JSON.parse(text))
  if (metas.size >= 1_000) metas.clear()
  metas.set(text, meta)
  return meta
}

function readImage(text: string | null, meta: Meta): Image | undefined {
  if (text === null) return undefined
  const row = scanRow(text)
  const channels = [ALL]
  for (const prefix in meta.scope) {
    const id = scalarText(row.get(meta.scope[prefix] as string))
    if (id !== undefined) channels.push(`${prefix}:${id}`)
  }
  return { text, row, channels }
}

/**
 * Makes a change of a row of the changelog.
 * @throws ZodError or SyntaxError if the row is not what the capture writes.
 */
export function readChange(input: unknown): Change {
  const row = LogRow.parse(input)
  const meta = readMeta(row.meta ?? "{}")
  const base = {
    id: row.seq,
    xid: row.xid,
    at: isoTime(row.at),
    table: row.table ?? "",
    type: row.type,
    meta,
  }
  switch (row.op) {
    case "insert":
    case "update":
    case "delete":
      return {
        kind: "row",
        op: row.op,
        ...base,
        before: readImage(row.old, meta),
        after: readImage(row.new, meta),
      }
    case "truncate":
    case "bulk_load":
      return { kind: "table", op: row.op, ...base }
    case "message":
      return {
        kind: "message",
        op: row.op,
        id: row.seq,
        xid: row.xid,
        at: base.at,
        channel: meta.channel ?? "",
        payload: row.new ?? "null",
      }
  }
}

const metaTexts = new WeakMap<Meta, string>()

/** The row that `readChange` makes this change of, for another process that reads it. */
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

/** PostgreSQL's `2026-11-03 20:15:00.25+00` (the reading session is in UTC and ISO) as RFC 3339. */
const isoTime = (text: string): string => text.replace(" ", "T").replace(/\+00$/, "Z")

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

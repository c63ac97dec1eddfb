/** Encoding: messages and changes as the text of their frames, JSON, one message each. */

import {
  ALL,
  type Change,
  changedColumns,
  type Image,
  keyText,
  type Meta,
  type RowChange,
  type TableChange,
} from "../change/change.ts"
import { type Mask, shownText } from "../change/column-mask.ts"
import { type Row, scanRow } from "../change/row.ts"
import type { Action } from "./filter.ts"
import type { ServerMessage } from "./server-message.ts"

/** A message as the text of its frame. */
export const encodeMessage = (message: ServerMessage): string => JSON.stringify(message)

/**
 * What a subscription sees of a change: `whole`; `enter` and `leave` for a row that moved into or out of it, or `none`.
 * A row that enters is sent as a create; of one that leaves only the key is sent.
 */
export type View = "whole" | "enter" | "leave" | "none"

/**
 * A change as the text of its frame. Row text is spliced in as PostgreSQL wrote it, never parsed and written again.
 * @param mask what is left out.
 * @param last whether no further change of its transaction follows on the connection.
 */
export function encodeChange(change: Change, view: Exclude<View, "none">, mask: Mask, last: boolean): string {
  const tx = `"tx":{"id":"${change.xid}","last":${last}}}`
  if (change.kind === "message") {
    return `{"type":"message","id":"${change.id}","at":"${isoTime(change.at)}","channel":${JSON.stringify(change.channel)},"payload":${change.payload},${tx}`
  }
  const head = (action: string) =>
    `{"type":${JSON.stringify(change.type)},"action":"${action}","id":"${change.id}","at":"${isoTime(change.at)}","table":${JSON.stringify(change.table)},`
  if (change.kind === "table") {
    const { op, rows, partition } = change.meta
    const facts = JSON.stringify({ operation: op, rows, partition, channels: [ALL] })
    return `${head(actionOf(change, view))}${facts.slice(1, -1)},${tx}`
  }
  return head(actionOf(change, view)) + rowFields(change, view, mask) + tx
}

/** The action that is sent for a change. */
export function actionOf(change: RowChange | TableChange, view: Exclude<View, "none">): Action {
  if (view === "leave") return "leave"
  if (view === "enter" || change.op === "insert") return "create"
  return change.op
}

function rowFields(change: RowChange, view: Exclude<View, "none">, mask: Mask): string {
  const { before, after, meta } = change
  const image = view === "leave" || change.op === "delete" ? before : after
  if (image === undefined) return ""
  const key = `"key":${keyOf(image, meta)},`
  if (view === "leave") return key
  const channels = `"channels":${JSON.stringify(image.channels)},`
  const updates = change.op === "update" && view === "whole"
  if (change.oversize)
    return `${key}"data":null,"oversize":true,${updates ? previousKey(change) : ""}${channels}`
  const data = `${key}"data":${mask.columns.size === 0 ? image.text : shownText(image.row, mask)},`
  if (!updates || before === undefined) return data + channels
  return data + differences(change, before.row, image.row, mask) + channels
}

function differences(change: RowChange, before: Row, after: Row, { columns }: Mask): string {
  const names = changedColumns(before, after).filter((name) => !columns.has(name))
  const values = names.map((name) => `${JSON.stringify(name)}:${before.get(name) ?? "null"}`)
  const moved = names.some((name) => change.meta.key.includes(name)) ? previousKey(change) : ""
  return `"changed":${JSON.stringify(names)},"before":{${values.join(",")}},${moved}`
}

const keyOf = ({ text }: Image, meta: Meta): string => keyText(meta, scanRow(text, meta.key))

/** The key that the row had, if it had another. */
function previousKey({ before, after, meta }: RowChange): string {
  const key = before && keyOf(before, meta)
  return key === undefined || (after && keyOf(after, meta)) === key ? "" : `"previous_key":${key},`
}

/** PostgreSQL's `2026-11-03 20:15:00.25+00` (the reading session is in UTC and ISO) as RFC 3339. */
const isoTime = (text: string): string => text.replace(" ", "T").replace(/\+00$/, "Z")

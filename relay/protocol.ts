/** The wire: what clients may say, what the relay says, and the close codes. JSON text frames, one message each. */

import { z } from "zod"
import { ALL, type Change, changedColumns, keyText, type RowChange } from "./change.ts"
import type { ServerMessage } from "./messages.ts"
import type { Row } from "./row.ts"

/** A channel: a prefix, or a prefix and an id, such as `committee:7`. */
export const ChannelName = z
  .string()
  .max(200)
  .regex(
    /^[a-z][a-z0-9_]{0,62}(:[^\s:]{1,128})?$/,
    "a channel is a name, or a name and an id, such as committee:7",
  )

const request = z.union([z.string().max(64), z.number()]).optional()
const channels = z.array(ChannelName).min(1).max(1_000)

/** What a client may send. `request` comes back in the answer. */
export const ClientMessage = z.discriminatedUnion("type", [
  z.object({ type: z.literal("ping"), request }),
  z.object({ type: z.literal("pong"), request }),
  z.object({ type: z.literal("subscribe"), channels, cursor: z.string().max(16_384).optional(), request }),
  z.object({ type: z.literal("unsubscribe"), channels, request }),
  z.object({ type: z.literal("authenticate"), token: z.string().max(8_192), request }),
])
export type ClientMessage = z.infer<typeof ClientMessage>

/** 4000 to 4499: connect again; 4500 to 4999: do not, until something has changed. */
export const CloseCode = {
  drain: 4000,
  tokenExpired: 4005,
  slowConsumer: 4008,
  cannotContinue: 4010,
  tryAgain: 4011,
  noPong: 4012,
  tooManyRequests: 4013,
  invalidToken: 4500,
  badMessage: 4501,
  notAuthenticated: 4502,
  connectionLimit: 4504,
  tooManyChannels: 4505,
  forbidden: 4507,
  tooManyErrors: 4509,
} as const
export type CloseCode = (typeof CloseCode)[keyof typeof CloseCode]

export type ErrorCode = Extract<ServerMessage, { type: "error" }>["code"]

/** How a connection stands to the changes before it. */
export type Recovery = Pick<
  Extract<ServerMessage, { type: "subscribed" }>,
  "recovered" | "replayed" | "reason"
>

/** A message as the text of its frame. */
export const encodeMessage = (message: ServerMessage): string => JSON.stringify(message)

/**
 * What a subscription sees of a change: `whole`; `enter` and `leave` for a row that moved into or out of it, or `none`.
 * A row that enters is told as a create; of one that leaves only the key is told.
 */
export type View = "whole" | "enter" | "leave" | "none"

/**
 * A change as the text of its frame. Row text is spliced in as PostgreSQL wrote it, never parsed and written again.
 * @param last whether no further change of its transaction follows on the connection.
 */
export function encodeChange(change: Change, view: Exclude<View, "none">, last: boolean): string {
  const tx = `"tx":{"id":"${change.xid}","last":${last}}}`
  if (change.kind === "message") {
    return `{"type":"message","id":"${change.id}","at":"${change.at}","channel":${JSON.stringify(change.channel)},"payload":${change.payload},${tx}`
  }
  const head = (action: string) =>
    `{"type":${JSON.stringify(change.type)},"action":"${action}","id":"${change.id}","at":"${change.at}","table":${JSON.stringify(change.table)},`
  if (change.kind === "table") {
    const { op, rows, partition } = change.meta
    const facts = JSON.stringify({ operation: op, rows, partition, channels: [ALL] })
    return `${head(change.op)}${facts.slice(1, -1)},${tx}`
  }
  return head(actionOf(change, view)) + rowFields(change, view) + tx
}

function actionOf(change: RowChange, view: Exclude<View, "none">): string {
  if (view === "leave") return "leave"
  if (view === "enter" || change.op === "insert") return "create"
  return change.op
}

function rowFields(change: RowChange, view: Exclude<View, "none">): string {
  const { before, after, meta } = change
  const image = view === "leave" || change.op === "delete" ? before : after
  if (image === undefined) return ""
  const key = `"key":${keyText(meta, image.row)},`
  if (view === "leave") return key
  const data = `${key}"data":${image.text},`
  const channels = `"channels":${JSON.stringify(image.channels)},`
  if (change.op !== "update" || view === "enter" || before === undefined) return data + channels
  return data + differences(change, before.row, image.row) + channels
}

function differences(change: RowChange, before: Row, after: Row): string {
  const names = changedColumns(before, after)
  const values = names.map((name) => `${JSON.stringify(name)}:${before.get(name) ?? "null"}`)
  const moved = names.some((name) => change.meta.key.includes(name))
    ? `"previous_key":${keyText(change.meta, before)},`
    : ""
  return `"changed":${JSON.stringify(names)},"before":{${values.join(",")}},${moved}`
}

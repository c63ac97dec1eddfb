/** The wire: what clients may say, what the relay says, and the close codes. JSON text frames, one message each. */

import { z } from "zod"
import { ALL, type Change, changedColumns, keyText, type RowChange, type TableChange } from "./change.ts"
import { type Action, FilterFields } from "./filter.ts"
import type { ServerMessage } from "./messages.ts"
import { type Mask, shownText } from "./restriction.ts"
import { type Row, scanRow } from "./row.ts"

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
  z
    .object({
      type: z.literal("subscribe"),
      channels: channels.optional(),
      ...FilterFields.shape,
      cursor: z.string().max(16_384).optional(),
      request,
    })
    .refine(
      ({ channels, where, types, actions }) =>
        [channels, where, types, actions].some((field) => field !== undefined),
      "name channels, or where, types or actions",
    ),
  z.object({ type: z.literal("unsubscribe"), channels, request }),
  z.object({ type: z.literal("authenticate"), token: z.string().max(8_192), request }),
])
export type ClientMessage = z.infer<typeof ClientMessage>

/** The request of a message that cannot be obeyed otherwise. */
export const requestOf = (json: unknown): string | number | undefined =>
  z.object({ request }).safeParse(json).data?.request

/** Where the first fault is and what must be there. */
export function describeFault({ issues: [issue] }: z.ZodError): string {
  const path = issue?.path.join(".") ?? ""
  return `${path === "" ? "" : `${path}: `}${issue?.message ?? ""}`
}

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

/** What is told that has happened. */
export function actionOf(change: RowChange | TableChange, view: Exclude<View, "none">): Action {
  if (view === "leave") return "leave"
  if (view === "enter" || change.op === "insert") return "create"
  return change.op
}

function rowFields(change: RowChange, view: Exclude<View, "none">, mask: Mask): string {
  const { before, after, meta } = change
  const image = view === "leave" || change.op === "delete" ? before : after
  if (image === undefined) return ""
  const key = `"key":${keyText(meta, scanRow(image.text, meta.key))},`
  if (view === "leave") return key
  const data = `${key}"data":${mask.columns.size === 0 ? image.text : shownText(image.row, mask)},`
  const channels = `"channels":${JSON.stringify(image.channels)},`
  if (change.op !== "update" || view === "enter" || before === undefined) return data + channels
  return data + differences(change, before.row, image.row, mask) + channels
}

function differences(change: RowChange, before: Row, after: Row, { columns }: Mask): string {
  const names = changedColumns(before, after).filter((name) => !columns.has(name))
  const values = names.map((name) => `${JSON.stringify(name)}:${before.get(name) ?? "null"}`)
  const moved = names.some((name) => change.meta.key.includes(name))
    ? `"previous_key":${keyText(change.meta, before)},`
    : ""
  return `"changed":${JSON.stringify(names)},"before":{${values.join(",")}},${moved}`
}

/** PostgreSQL's `2026-11-03 20:15:00.25+00` (the reading session is in UTC and ISO) as RFC 3339. */
const isoTime = (text: string): string => text.replace(" ", "T").replace(/\+00$/, "Z")

/** What the relay sends, as schemas. Tests check every frame of a relay against them. */

import { z } from "zod"

const Tx = z.strictObject({ id: z.string(), last: z.boolean() })
const Values = z.record(z.string(), z.unknown())
const channels = z.array(z.string())
const about = { type: z.string(), id: z.string(), at: z.iso.datetime(), table: z.string(), tx: Tx }

/** A change of a row. */
const RowMessage = z.discriminatedUnion("action", [
  z.strictObject({ ...about, action: z.literal("create"), key: Values, data: Values, channels }),
  z.strictObject({
    ...about,
    action: z.literal("update"),
    key: Values,
    data: Values,
    channels,
    changed: z.array(z.string()),
    before: Values,
    previous_key: Values.optional(),
  }),
  z.strictObject({ ...about, action: z.literal("delete"), key: Values, data: Values, channels }),
  z.strictObject({ ...about, action: z.literal("leave"), key: Values }),
])

/** A change of a row that is too large to be sent: clients load it. */
export const OversizeMessage = z.strictObject({
  ...about,
  action: z.enum(["create", "update", "delete"]),
  key: Values,
  data: z.null(),
  oversize: z.literal(true),
  previous_key: Values.optional(),
  channels,
})

/** A change of a table that names no rows. */
const TableMessage = z.discriminatedUnion("action", [
  z.strictObject({ ...about, action: z.literal("truncate"), channels, partition: z.string().optional() }),
  z.strictObject({
    ...about,
    action: z.literal("bulk_load"),
    channels,
    operation: z.string().optional(),
    rows: z.number().optional(),
    partition: z.string().optional(),
  }),
])

/** The changes by their action. */
export const CHANGES = [...RowMessage.options, ...TableMessage.options]

/** A committed change of a tracked table. */
export const ChangeMessage = z.union([RowMessage, OversizeMessage, TableMessage])
export type ChangeMessage = z.infer<typeof ChangeMessage>

/** A message of the application, from relay.broadcast or relay.send_to_user. */
export const ApplicationMessage = z.strictObject({
  type: z.literal("message"),
  id: z.string(),
  at: z.iso.datetime(),
  channel: z.string(),
  payload: z.unknown(),
  tx: Tx,
})
export type ApplicationMessage = z.infer<typeof ApplicationMessage>

/** The latest value that a function of the application has computed. It belongs to no transaction. */
export const DerivedMessage = z.strictObject({
  type: z.string(),
  action: z.string().optional(),
  channel: z.string(),
  at: z.iso.datetime(),
  data: z.unknown(),
})
export type DerivedMessage = z.infer<typeof DerivedMessage>

/** Why the changes since a client's cursor cannot be sent. */
const Reason = z.enum(["no_cursor", "malformed", "lineage", "too_old", "ahead"])
export type Reason = z.infer<typeof Reason>

const recovery = {
  cursor: z.string(),
  recovered: z.boolean(),
  /** How many changes follow before the checkpoint that ends the replay; null if that is not known yet. */
  replayed: z.number().nullable(),
  reason: Reason.nullable(),
}
const request = z.union([z.string(), z.number()]).optional()

/** The relay's own messages. */
export const ServerMessage = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("connection_success"),
    user: z.string(),
    connection: z.string(),
    channels,
    ...recovery,
    heartbeat_seconds: z.number(),
    expires_in: z.number(),
  }),
  z.strictObject({ type: z.literal("subscribed"), channels, ...recovery, request }),
  z.strictObject({ type: z.literal("unsubscribed"), channels, cursor: z.string(), request }),
  z.strictObject({
    type: z.literal("authenticated"),
    user: z.string(),
    channels,
    expires_in: z.number(),
    request,
  }),
  z.strictObject({ type: z.literal("checkpoint"), cursor: z.string(), replayed: z.number().optional() }),
  z.strictObject({ type: z.literal("ping") }),
  z.strictObject({ type: z.literal("pong"), at: z.iso.datetime(), request }),
  z.strictObject({
    type: z.literal("error"),
    code: z.enum([
      "bad_message",
      "unknown_type",
      "not_authenticated",
      "not_started",
      "forbidden_channel",
      "not_subscribed",
      "other_user",
      "too_many_filters",
      "busy",
    ]),
    message: z.string(),
    request,
  }),
])
export type ServerMessage = z.infer<typeof ServerMessage>

export type ErrorCode = Extract<ServerMessage, { type: "error" }>["code"]

/** Whether a connection gets the changes since its cursor. */
export type Recovery = Pick<
  Extract<ServerMessage, { type: "subscribed" }>,
  "recovered" | "replayed" | "reason"
>

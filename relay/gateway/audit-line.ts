/** A line of the audit log, as others read it: a JSON object. Tokens and row data never reach it. */

import { z } from "zod"
import type { AuditEvent, AuditSubject } from "./audit-event.ts"

const address = { time: z.iso.datetime(), address: z.string() }
/** A plain request has none. */
const asker = { ...address, connection: z.uuid().optional(), user: z.string().optional() }
const connection = { ...address, connection: z.uuid(), user: z.string().optional() }
const texts = z.array(z.string())
const filter = { where: texts.optional(), types: texts.optional(), actions: texts.optional() }

export const AuditLine = z.discriminatedUnion("event", [
  z.strictObject({ ...address, event: z.literal("refused"), reason: z.string(), status: z.int() }),
  z.strictObject({ ...asker, event: z.literal("token_refused"), reason: z.string() }),
  z.strictObject({ ...asker, event: z.literal("channels_refused"), channels: texts }),
  z.strictObject({
    ...connection,
    event: z.literal("connected"),
    channels: texts,
    ...filter,
    expires_at: z.iso.datetime(),
  }),
  z.strictObject({ ...connection, event: z.literal("subscribed"), channels: texts, ...filter }),
  z.strictObject({ ...connection, event: z.literal("unsubscribed"), channels: texts }),
  z.strictObject({
    ...connection,
    event: z.literal("renewed"),
    channels: texts,
    expires_at: z.iso.datetime(),
  }),
  z.strictObject({
    ...connection,
    event: z.literal("closed"),
    code: z.int(),
    reason: z.string(),
    by: z.enum(["relay", "client", "nobody"]),
    seconds: z.number(),
  }),
  z.strictObject({
    time: z.iso.datetime(),
    event: z.literal("summed"),
    of: z.string(),
    reason: z.string().optional(),
    times: z.int(),
  }),
])
export type AuditLine = z.infer<typeof AuditLine>
export type Fields<Line = AuditLine> = Line extends unknown
  ? Omit<Line, "time" | "address" | "connection" | "user">
  : never

/** What clients write is cut to this. Characters. */
const MAX_TEXT = 128
/** What a list may take of a line. Bytes. */
const MAX_LIST = 500
const TOKEN = /eyJ[\w-]+\.[\w.-]+/g

/** The fields of an event, but for the time and the subject. */
export function fieldsOf(subject: AuditSubject, event: AuditEvent): Fields {
  switch (event.event) {
    case "refused":
    case "token_refused":
      return event
    case "channels_refused":
    case "unsubscribed":
      return { event: event.event, channels: shortList(event.channels) }
    case "subscribed":
      return { event: "subscribed", channels: shortList(event.channels), ...filterFields(subject) }
    case "connected":
      return {
        event: "connected",
        channels: shortList(event.channels),
        ...filterFields(subject),
        expires_at: isoTime(event.expiresAt),
      }
    case "renewed":
      return {
        event: "renewed",
        channels: shortList(event.channels),
        expires_at: isoTime(event.expiresAt),
      }
    case "closed": {
      const { code, reason, by, openMs } = event
      return { event: "closed", code, reason: shortText(reason), by, seconds: Math.round(openMs) / 1_000 }
    }
  }
}

/** In ASCII alone: no text of a client ends a line, moves a terminal's cursor or makes it longer than its bytes. */
export const jsonOf = (value: unknown): string =>
  JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  )

export const isoTime = (ms = Date.now()): string => new Date(ms).toISOString()

const shortText = (text: string): string => text.replace(TOKEN, "[token]").slice(0, MAX_TEXT)

/** As many as there is room for, and how many more there are. */
function shortList(all: Iterable<string>): string[] {
  const listed: string[] = []
  let left = MAX_LIST
  let more = 0
  for (const item of all) {
    const text = shortText(item)
    left -= jsonOf(text).length
    if (left < 0) more++
    else listed.push(text)
  }
  return more === 0 ? listed : [...listed, `and ${more} more`]
}

/** Columns and operators, and never the values. */
function filterFields({ filter }: AuditSubject) {
  const where = filter?.where.map(({ column, kind }) => `${column} ${kind}`) ?? []
  return {
    where: where.length === 0 ? undefined : shortList(where),
    types: filter?.types ? shortList(filter.types) : undefined,
    actions: filter?.actions ? shortList(filter.actions) : undefined,
  }
}

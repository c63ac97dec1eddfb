/** What the audit log tells: a JSON object a line. Tokens and row data never reach it. */

import { z } from "zod"
import type { AuthResult } from "../access/auth.ts"
import type { Filter } from "../protocol/filter.ts"

/** Whom a line is about: a connection, or what never became one. */
export interface Party {
  readonly address: string
  readonly id?: string
  /** Empty as long as nobody knows. */
  readonly user?: string
  readonly filter?: Filter | undefined
}

export type Happening =
  /** An upgrade. The reason is the result under which it is counted. */
  | { event: "refused"; reason: string; status: number }
  | { event: "token_refused"; reason: Extract<AuthResult, { ok: false }>["reason"] | "other_user" }
  | { event: "channels_refused"; channels: Iterable<string> }
  | { event: "connected"; channels: Iterable<string>; expiresAt: number }
  | { event: "subscribed"; channels: Iterable<string> }
  | { event: "unsubscribed"; channels: Iterable<string> }
  | { event: "renewed"; channels: Iterable<string>; expiresAt: number }
  | { event: "closed"; code: number; reason: string; by: "relay" | "client" | "nobody"; openMs: number }

export const who = { time: z.iso.datetime(), address: z.string() }
export const whose = { ...who, connection: z.uuid(), user: z.string().optional() }
export const names = z.array(z.string())
const filter = { where: names.optional(), types: names.optional(), actions: names.optional() }

/** A line as others read it. */
export const AuditLine = z.discriminatedUnion("event", [
  z.strictObject({ ...who, event: z.literal("refused"), reason: z.string(), status: z.int() }),
  z.strictObject({ ...whose, event: z.literal("token_refused"), reason: z.string() }),
  z.strictObject({ ...whose, event: z.literal("channels_refused"), channels: names }),
  z.strictObject({
    ...whose,
    event: z.literal("connected"),
    channels: names,
    ...filter,
    expires_at: z.iso.datetime(),
  }),
  z.strictObject({ ...whose, event: z.literal("subscribed"), channels: names, ...filter }),
  z.strictObject({ ...whose, event: z.literal("unsubscribed"), channels: names }),
  z.strictObject({ ...whose, event: z.literal("renewed"), channels: names, expires_at: z.iso.datetime() }),
  z.strictObject({
    ...whose,
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
/** What a list of names may take of a line. Bytes. */
const MAX_LIST = 500
const TOKEN = /eyJ[\w-]+\.[\w.-]+/g

/** In ASCII alone: nothing that a client says ends a line, moves a terminal's cursor or makes it longer than its bytes. */
export const jsonOf = (value: unknown): string =>
  JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  )

const shown = (text: string): string => text.replace(TOKEN, "[token]").slice(0, MAX_TEXT)

/** As many as there is room for, and how many more there are. */
function few(all: Iterable<string>): string[] {
  const listed: string[] = []
  let left = MAX_LIST
  let more = 0
  for (const name of all) {
    const text = shown(name)
    left -= jsonOf(text).length
    if (left < 0) more++
    else listed.push(text)
  }
  return more === 0 ? listed : [...listed, `and ${more} more`]
}

/** Columns and operators, and never the values. */
function filterFields({ filter }: Party) {
  const where = filter?.where.map(({ column, kind }) => `${column} ${kind}`) ?? []
  return {
    where: where.length === 0 ? undefined : few(where),
    types: filter?.types ? few(filter.types) : undefined,
    actions: filter?.actions ? few(filter.actions) : undefined,
  }
}

export function fieldsOf(party: Party, happening: Happening): Fields {
  const { event } = happening
  switch (event) {
    case "refused":
    case "token_refused":
      return happening
    case "channels_refused":
    case "unsubscribed":
      return { event, channels: few(happening.channels) }
    case "subscribed":
      return { event, channels: few(happening.channels), ...filterFields(party) }
    case "connected":
      return {
        event,
        channels: few(happening.channels),
        ...filterFields(party),
        expires_at: isoTime(happening.expiresAt),
      }
    case "renewed":
      return { event, channels: few(happening.channels), expires_at: isoTime(happening.expiresAt) }
    case "closed": {
      const { code, reason, by, openMs } = happening
      return { event, code, reason: shown(reason), by, seconds: Math.round(openMs) / 1_000 }
    }
  }
}

export const isoTime = (ms = Date.now()): string => new Date(ms).toISOString()

/** `commitcast tail`: the changes as they come, a line each. */

import { styleText } from "node:util"
import { type Command, Option } from "commander"
import { WebSocket } from "ws"
import { z } from "zod"
import { connect } from "../../client/client.ts"
import type { FilterFields } from "../../client/filter.ts"
import { readState } from "../embedded/state.ts"
import {
  addCommand,
  DATABASE,
  KEYS,
  print as printLine,
  note as printNote,
  readObject,
  splitList,
} from "./arguments.ts"
import { jsonLine, textLine } from "./one-line.ts"
import { settingsOf } from "./settings.ts"
import { findSecret, signToken } from "./token.ts"

export interface TailOptions {
  /** The relay, as http:// or ws://. */
  url: string
  path: string
  token: string
  channels: string[]
  filter: FilterFields
  /** One line of text a change, or the message as it came. */
  format: "text" | "json"
  print(line: string): void
  /** What is not a change: connected, lost. */
  note(line: string): void
  signal: AbortSignal
}

/** What a line is made of; other fields are of no interest here. */
const Shown = z.object({
  type: z.string(),
  action: z.string().optional(),
  at: z.string().optional(),
  table: z.string().optional(),
  key: z.record(z.string(), z.unknown()).optional(),
  data: z.record(z.string(), z.unknown()).nullish(),
  oversize: z.boolean().optional(),
  changed: z.array(z.string()).optional(),
  before: z.record(z.string(), z.unknown()).optional(),
  channel: z.string().optional(),
  payload: z.unknown().optional(),
})
type Shown = z.infer<typeof Shown>

/** Reasons to load what nobody has loaded here. */
const NOTHING_MISSED = ["no_cursor", "bulk_load", "truncate", "oversize"]

/** Where a change keeps the text that it came as: numbers may be more than a double holds. */
const TEXT = Symbol("text")

/** Follows a relay until the signal, through lost connections. @throws Error if the relay says that it is of no use. */
export function tail(options: TailOptions): Promise<void> {
  const url = new URL(options.url.replace(/^http/, "ws"))
  url.pathname = options.path
  const { token, channels, filter, format, print, note, signal } = options
  const feed = connect({
    url: url.href,
    token,
    ...filter,
    WebSocket,
    parse: (text) => Object.assign(JSON.parse(text), { [TEXT]: text }),
    ...(channels.length > 0 ? { channels } : {}),
  })
  const show = (change: object) => {
    if (format === "json" && TEXT in change) print(jsonLine(String(change[TEXT])))
    else print(line(Shown.parse(change)))
  }
  feed.on("change", show)
  feed.on("message", show)
  // The feed would try these again. Whoever typed the command can mend them at once.
  let mistake: string | undefined
  feed.on("error", ({ code, message }) => {
    if (code === "channels" || /^(closed with 4501|bad_message)/.test(message)) {
      mistake ??= message
      return feed.close()
    }
    if (code !== "refused") note(message) // that one is thrown, below
  })
  feed.on("resync", ({ reason }) => {
    if (!NOTHING_MISSED.includes(reason)) note(`changes may have been missed (${reason})`)
  })
  return new Promise((resolve, reject) => {
    let lost = false
    feed.on("state", (state) => {
      switch (state.kind) {
        case "live":
          return note(lost ? "connected again" : "connected")
        case "waiting":
          lost = true
          return note(`no connection (${state.cause}); next attempt in ${Math.round(state.delayMs)} ms`)
        case "closed":
          if (signal.aborted) return resolve()
          return reject(new Error(mistake ?? state.cause))
      }
    })
    signal.addEventListener("abort", () => feed.close(), { once: true })
  })
}

const COLOURS = {
  create: "green",
  update: "yellow",
  delete: "red",
  leave: "gray",
  truncate: "magenta",
  bulk_load: "magenta",
} as const

function line(shown: Shown): string {
  const time = shown.at?.slice(11, 23) ?? ""
  const action = (shown.action ?? "").padEnd(9)
  const colour = COLOURS[(shown.action ?? "") as keyof typeof COLOURS]
  const key = Object.values(shown.key ?? {})
    .map(wordOf)
    .join(",")
  return [
    textLine(time),
    textLine(shown.type).padEnd(18),
    colour === undefined ? textLine(action) : styleText(colour, action),
    textLine(key).padEnd(6),
    textLine(describe(shown)),
  ].join("  ")
}

function describe({ type, action, data, oversize, changed, before, payload, table }: Shown): string {
  if (type === "message") return JSON.stringify(payload)
  if (oversize) return "too large to be sent: read the row from the table"
  if (action === "update")
    return (changed ?? [])
      .map((name) => `${name}: ${short(before?.[name])} → ${short(data?.[name])}`)
      .join("  ")
  if (data === undefined || data === null) return table ?? ""
  return Object.entries(data)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name}=${short(value)}`)
    .join(" ")
}

function short(value: unknown): string {
  const text = wordOf(value)
  return text.length > 40 ? `${text.slice(0, 39)}…` : text
}

const wordOf = (value: unknown): string => (typeof value === "string" ? value : (JSON.stringify(value) ?? ""))

export function addTail(program: Command): void {
  addCommand(program, "tail", "print the changes as they come: readable on a terminal, JSON elsewhere", [
    ...DATABASE,
    ...KEYS,
    "WS_PATH",
  ])
    .option("--url <url>", "the relay; default: the embedded one that runs, else http://127.0.0.1:8080")
    .option("--token <token>", "default: one for user 1, signed with the relay's secret")
    .option("--channels <list>", "default: election_updates", splitList)
    .option("--where <json>", 'rows for which this holds, such as {"votes":{"gte":100}}', readObject)
    .option("--types <list>", "messages of these types only, such as voting_update", splitList)
    .option("--actions <list>", "changes of these actions only, such as create,delete", splitList)
    .addOption(
      new Option("--format <format>", "text or json")
        .choices(["text", "json"])
        .default(process.stdout.isTTY ? "text" : "json"),
    )
    .action(async (options) => {
      const settings = settingsOf(options)
      const stopped = new AbortController()
      process.once("SIGINT", () => stopped.abort())
      process.once("SIGTERM", () => stopped.abort())
      await tail({
        url: options.url ?? (await readState(settings.COMMITCAST_DIR))?.relay_url ?? "http://127.0.0.1:8080",
        path: settings.WS_PATH,
        token:
          options.token ??
          signToken(await findSecret(settings), settings, { user: "1", admin: true, expires: "12h" }),
        channels: options.channels ?? [],
        filter: { where: options.where, types: options.types, actions: options.actions },
        format: options.format,
        print: printLine,
        note: printNote,
        signal: stopped.signal,
      })
    })
}

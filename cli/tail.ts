/** `commitcast tail`: the changes as they come, a line each. */

import { styleText } from "node:util"
import { WebSocket } from "ws"
import { z } from "zod"
import { backoff } from "../relay/backoff.ts"

export interface TailOptions {
  /** The relay, as http:// or ws://. */
  url: string
  path: string
  token: string
  channels: string[]
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
  data: z.record(z.string(), z.unknown()).optional(),
  changed: z.array(z.string()).optional(),
  before: z.record(z.string(), z.unknown()).optional(),
  channel: z.string().optional(),
  payload: z.unknown().optional(),
  message: z.string().optional(),
  user: z.string().optional(),
  channels: z.array(z.string()).optional(),
})
type Shown = z.infer<typeof Shown>

/** Of the relay's own messages only these are worth a word. */
const SILENT = new Set(["ping", "pong", "checkpoint", "subscribed", "unsubscribed", "authenticated"])

/** Follows a relay until the signal. Connects again unless the relay says that it is of no use. @throws Error then. */
export async function tail(options: TailOptions): Promise<void> {
  for (let attempt = 0; !options.signal.aborted; attempt++) {
    const { code, reason, opened } = await follow(options)
    if (options.signal.aborted) return
    if (code >= 4500 && code < 5000) throw new Error(`the relay closed with ${code}: ${reason}`)
    if (opened) attempt = 0
    const delay = backoff(attempt + 2)
    options.note(
      `no connection (${reason || code}); what changes meanwhile is not shown; next attempt in ${Math.round(delay)} ms`,
    )
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, delay)
      options.signal.addEventListener("abort", () => [clearTimeout(timer), resolve(undefined)], {
        once: true,
      })
    })
  }
}

function follow(options: TailOptions): Promise<{ code: number; reason: string; opened: boolean }> {
  const url = new URL(options.url.replace(/^http/, "ws"))
  url.pathname = options.path
  if (options.channels.length > 0) url.searchParams.set("channels", options.channels.join(","))
  return new Promise((resolve) => {
    let opened = false
    let failure = ""
    const socket = new WebSocket(url, {
      headers: { authorization: `Bearer ${options.token}` },
      handshakeTimeout: 10_000,
    })
    const stop = () => socket.close(1000)
    options.signal.addEventListener("abort", stop, { once: true })
    socket.on("error", (error) => {
      failure = error.message
    })
    socket.on("message", (data) => {
      opened = true
      receive(data.toString(), options)
    })
    socket.on("close", (code, reason) => {
      options.signal.removeEventListener("abort", stop)
      resolve({ code, reason: reason.toString() || failure, opened })
    })
  })
}

function receive(text: string, { format, print, note }: TailOptions): void {
  const shown = Shown.parse(JSON.parse(text))
  if (SILENT.has(shown.type)) return
  if (shown.type === "connection_success")
    note(`connected as user ${shown.user} to ${shown.channels?.join(", ")}`)
  else print(format === "json" ? text : line(shown))
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
  const key = Object.values(shown.key ?? {}).join(",")
  return [
    time,
    shown.type.padEnd(18),
    colour === undefined ? action : styleText(colour, action),
    key.padEnd(6),
    describe(shown),
  ].join("  ")
}

function describe({ type, action, data, changed, before, payload, message, table }: Shown): string {
  if (type === "message") return JSON.stringify(payload)
  if (type === "error") return message ?? ""
  if (action === "update")
    return (changed ?? [])
      .map((name) => `${name}: ${short(before?.[name])} → ${short(data?.[name])}`)
      .join("  ")
  if (data === undefined) return table ?? ""
  return Object.entries(data)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name}=${short(value)}`)
    .join(" ")
}

function short(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value)
  return text === undefined ? "" : text.length > 40 ? `${text.slice(0, 39)}…` : text
}

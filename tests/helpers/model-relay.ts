/**
 * A relay in a hundred lines, for tests of the client that make every event themselves. Its log is a list of changes, each
 * on a channel; a cursor is a length of it. What it sends waits on the wire until the test lets it come.
 */

import type { WebSocketLike } from "../../client/socket.ts"

export interface ModelRelay {
  log: Array<{ id: string; channel: string }>
  /** The connections that are open, as the relay sees them. */
  open(): ModelSocket[]
  write(channel: string): void
  WebSocket: new (url: string, protocols: string[]) => ModelSocket
}

/** `user.allowed-channels.number`, in the form of a JWT; a user `bad` is nobody. */
export const modelToken = (user: string, allowed: readonly number[], n: number): string =>
  `${user}.${allowed.join("-")}.${n}`

type Message = Record<string, unknown>
const ALL = "election_updates"
const HEARTBEAT_SECONDS = 20
const MAX_CHANNELS = 5

export class ModelSocket implements WebSocketLike {
  onopen: WebSocketLike["onopen"] = null
  onmessage: WebSocketLike["onmessage"] = null
  onclose: WebSocketLike["onclose"] = null
  onerror: WebSocketLike["onerror"] = null
  readonly #relay: ModelRelay
  readonly #query: URLSearchParams
  #token: string
  #inbox: Message[] = []
  #wire: Array<Message | { close: number; reason: string }> = []
  /** The relay has welcomed it. */
  accepted = false
  /** Who has ended it. */
  ended: "client" | "relay" | undefined
  channels = new Set<string>()
  types: unknown = null

  constructor(relay: ModelRelay, url: string, protocols: string[]) {
    this.#relay = relay
    this.#query = new URL(url).searchParams
    this.#token = (protocols[1] ?? "").replace("bearer.", "")
  }

  send(data: string): void {
    this.#inbox.push(JSON.parse(data))
  }

  close(): void {
    this.ended ??= "client"
  }

  /** The relay takes the upgrade, or the next message. @returns false if there is none. */
  proceed(): boolean {
    if (this.ended !== undefined) return false
    if (!this.accepted) {
      this.#admit()
      return true
    }
    const message = this.#inbox.shift()
    if (message !== undefined) this.#handle(message)
    return message !== undefined
  }

  /** The next frame comes. @returns false if there is none. */
  receive(): boolean {
    const frame = this.#wire.shift()
    if (frame === undefined || this.ended === "client") return false
    if ("close" in frame) this.#end(frame.close as number, frame.reason as string)
    else this.onmessage?.({ data: JSON.stringify(frame) })
    return true
  }

  /** The line is cut, with what is on it. */
  cut(code = 1006, reason = ""): void {
    if (this.ended === undefined) this.#end(code, reason)
  }

  publish(change: { id: string; channel: string }): void {
    const isSeen = this.channels.has(change.channel) || this.channels.has(ALL)
    if (!this.accepted || this.ended !== undefined || !isSeen) return
    this.#push({
      type: "update",
      action: "delete",
      key: {},
      data: {},
      tx: { id: "1", last: true },
      ...change,
    })
  }

  checkpoint(): void {
    if (this.accepted) this.#push({ type: "checkpoint", cursor: String(this.#relay.log.length) })
  }

  #end(code: number, reason: string): void {
    this.ended = "relay"
    this.onclose?.({ code, reason })
  }

  #push(message: Message): void {
    this.#wire.push(message)
  }

  #refuse(close: number, reason: string): void {
    this.accepted = true
    this.#wire.push({ close, reason })
  }

  #may(channel: string): boolean {
    const [user, allowed = ""] = this.#token.split(".")
    const [prefix, id = ""] = channel.split(":")
    if (prefix === "user") return id === user
    return channel === ALL || allowed.split("-").includes(id[0] ?? "")
  }

  #admit(): void {
    const [user] = this.#token.split(".")
    if (user === "bad" || user === undefined) return this.#refuse(4500, "invalid token")
    const asked = (this.#query.get("channels") ?? ALL).split(",").filter((name) => name !== `user:${user}`)
    const forbidden = asked.find((channel) => !this.#may(channel))
    if (forbidden !== undefined) return this.#refuse(4507, `channel not allowed: ${forbidden}`)
    if (asked.length > MAX_CHANNELS) return this.#refuse(4505, "too many channels")
    this.accepted = true
    this.channels = new Set(asked)
    this.types = this.#query.get("types")
    const channels = [...asked, `user:${user}`]
    const rest = { user, connection: "1", heartbeat_seconds: HEARTBEAT_SECONDS, expires_in: 100 }
    this.#resume(this.#query.get("cursor"), { type: "connection_success", channels, ...rest })
  }

  #resume(cursor: string | null, answer: Message): void {
    const now = String(this.#relay.log.length)
    if (cursor === null)
      return this.#push({ ...answer, cursor: now, recovered: false, replayed: 0, reason: "no_cursor" })
    this.#push({ ...answer, cursor, recovered: true, replayed: null, reason: null })
    for (const change of this.#relay.log.slice(Number(cursor))) this.publish(change)
    this.#push({ type: "checkpoint", cursor: now, replayed: 0 })
  }

  #handle({ type, request, channels = [], cursor = null, ...message }: Message): void {
    const now = { cursor: String(this.#relay.log.length), request }
    const names = channels as string[]
    const error = (code: string, message: string) => this.#push({ type: "error", code, message, request })
    if (type === "authenticate") return this.#renew(String(message.token), request)
    if (type === "unsubscribe") {
      for (const channel of names) this.channels.delete(channel)
      return this.#push({ type: "unsubscribed", channels, ...now })
    }
    if (message.types !== undefined && message.types !== null && !Array.isArray(message.types))
      return error("bad_message", "types: expected an array")
    const forbidden = names.filter((channel) => !this.#may(channel))
    if (forbidden.length > 0) return error("forbidden_channel", `not allowed: ${forbidden.join(", ")}`)
    const all = new Set([...this.channels, ...names])
    if (all.size > MAX_CHANNELS) return this.#refuse(4505, "too many channels")
    this.channels = all
    if (message.types !== undefined) this.types = message.types
    if (cursor !== null) return this.#resume(String(cursor), { type: "subscribed", channels, request })
    this.#push({ type: "subscribed", channels, ...now, recovered: false, replayed: 0, reason: "no_cursor" })
  }

  #renew(token: string, request: unknown): void {
    const [user] = token.split(".")
    if (user === "bad") return this.#refuse(4500, "invalid token")
    if (user !== this.#token.split(".")[0])
      return this.#push({ type: "error", code: "other_user", message: "for the same user", request })
    this.#token = token
    for (const channel of this.channels) if (!this.#may(channel)) this.channels.delete(channel)
    const channels = [...this.channels, `user:${user}`]
    this.#push({ type: "authenticated", user, channels, expires_in: 100, request })
  }
}

export function createModelRelay(): ModelRelay {
  const sockets: ModelSocket[] = []
  const relay: ModelRelay = {
    log: [],
    open: () => sockets.filter(({ ended }) => ended === undefined),
    write(channel) {
      const change = { id: String(relay.log.length), channel }
      relay.log.push(change)
      for (const socket of sockets) socket.publish(change)
    },
    WebSocket: class extends ModelSocket {
      constructor(url: string, protocols: string[]) {
        super(relay, url, protocols)
        sockets.push(this)
      }
    },
  }
  return relay
}

/** The gateway: the upgrade, the token, and the frames of clients. */

import type { IncomingMessage, Server } from "node:http"
import type { Duplex } from "node:stream"
import { type RawData, type WebSocket, WebSocketServer } from "ws"
import type { Auth, Identity } from "./auth.ts"
import { Connection } from "./connection.ts"
import {
  answerPlainly,
  answerRefusal,
  type Handshake,
  originAllowed,
  readHandshake,
  SUBPROTOCOL,
} from "./handshake.ts"
import type { Hub } from "./hub.ts"
import type { Limits } from "./limits.ts"
import type { Log } from "./log.ts"
import type { Metrics } from "./metrics.ts"
import { ClientMessage, CloseCode, type ErrorCode } from "./protocol.ts"
import { createTurns } from "./turns.ts"
import { createWire } from "./wire.ts"

export interface GatewayDeps {
  hub: Hub
  auth: Auth
  limits: Limits
  log: Log
  metrics: Metrics
  settings: {
    path: string
    allowedOrigins: readonly string[]
    queryToken: boolean
    maxChannels: number
    maxErrors: number
    heartbeatMs: number
  }
}

export interface Gateway {
  /** Takes over the upgrades of an HTTP server. */
  attach(server: Server): void
  /** Refuses new connections from now on. */
  stop(): void
}

/** Commands are small; ws closes with 1009 beyond. */
const MAX_FRAME_BYTES = 16_384
/** A frame may come in so many fragments, and in so many pieces of the network. */
const MAX_FRAGMENTS = 16
const MAX_PIECES = 1_024

export function createGateway({ hub, auth, limits, log, metrics, settings }: GatewayDeps): Gateway {
  let stopping = false
  /** What those asked for who have not shown a token yet. */
  const asking = new Map<Connection, Omit<Handshake, "tokens">>()
  const drained = createTurns()
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: MAX_FRAME_BYTES,
    maxFragments: MAX_FRAGMENTS,
    maxBufferedChunks: MAX_PIECES,
    handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
  } as ConstructorParameters<typeof WebSocketServer>[0])

  function refuse(socket: Duplex, status: number, result: string, retrySeconds?: number): void {
    metrics.connects.inc({ result })
    answerRefusal(socket, status, retrySeconds)
  }

  function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", destroy)
    if (!URL.canParse(request.url ?? "", "http://relay")) return refuse(socket, 400, "bad_request")
    const url = new URL(request.url ?? "", "http://relay")
    if (url.pathname.replace(/\/$/, "") !== settings.path) return refuse(socket, 404, "wrong_path")
    if (!originAllowed(request, settings.allowedOrigins)) return refuse(socket, 403, "origin")
    if (stopping || !hub.ready()) return refuse(socket, 503, stopping ? "stopping" : "not_ready", 1)
    const entry = limits.admit(request)
    if (!entry.admitted) return refuse(socket, entry.status, entry.limit, entry.retrySeconds)
    const asked = readHandshake(request, url, settings.queryToken)
    if (asked === undefined) return refuse(socket, 400, "bad_request")
    server.handleUpgrade(request, socket, head, (websocket) =>
      accept(websocket, socket, asked, entry.address),
    )
  }

  function accept(websocket: WebSocket, socket: Duplex, asked: Handshake, address: string): void {
    metrics.connects.inc({ result: "accepted" })
    limits.enter(address)
    const wire = createWire(socket, websocket, () => void goOn(connection))
    const connection = new Connection({ wire, onClosing })
    hub.track(connection)
    /** Whether it may say so much. Whoever says too much is not read any more. */
    const heard = () => {
      if (websocket.isPaused) return false
      connection.heardAt = performance.now()
      if (limits.hear(connection)) return connection.closingSince === 0
      close(connection, CloseCode.tooManyRequests, "too many requests")
      websocket.pause()
      return false
    }
    websocket.on("message", (data, isBinary) => {
      if (heard()) receive(connection, data, isBinary)
    })
    websocket.on("pong", heard)
    websocket.on("ping", heard)
    websocket.on("error", count)
    websocket.on("close", () => {
      hub.forget(connection)
      limits.part(connection)
      limits.leave(address)
      asking.delete(connection)
      log.debug({ event: "closed", connection: connection.id, user: connection.user }, "a connection ended")
    })
    asking.set(connection, { channels: asked.channels, cursor: asked.cursor })
    if (asked.tokens.length > 1) return close(connection, CloseCode.badMessage, "more than one token")
    if (asked.tokens.length === 1) authenticate(connection, asked.tokens[0] as string)
  }

  /** Thousands of sockets may drain in one turn of the event loop. */
  async function goOn(connection: Connection): Promise<void> {
    await drained.next()
    connection.pump()
  }

  function onClosing(connection: Connection, code: CloseCode): void {
    hub.release(connection)
    limits.part(connection)
    metrics.closes.inc({ code: String(code) })
    log.debug(
      { event: "closing", connection: connection.id, user: connection.user, code },
      "closing a connection",
    )
  }

  const count = (error: Error & { code?: string }) => metrics.errors.inc({ code: error.code ?? "socket" })

  function close(connection: Connection, code: CloseCode, reason: string): void {
    connection.close(code, reason)
  }

  function verify(connection: Connection, token: string): Identity | undefined {
    const result = auth.verify(token)
    if (result.ok) return result.identity
    metrics.authFailures.inc({ reason: result.reason })
    if (result.reason === "expired") close(connection, CloseCode.tokenExpired, "token expired")
    else close(connection, CloseCode.invalidToken, "invalid token")
    return undefined
  }

  function authenticate(connection: Connection, token: string): void {
    const identity = verify(connection, token)
    const asked = asking.get(connection)
    if (identity === undefined || asked === undefined) return
    const channels = hub.startChannels(asked.channels, identity.user)
    const forbidden = hub.forbidden(identity, channels)
    if (forbidden.length > 0)
      return close(connection, CloseCode.forbidden, `channel not allowed: ${forbidden[0]}`.slice(0, 120))
    if (channels.size > settings.maxChannels) return tooManyChannels(connection)
    connection.identity = identity
    asking.delete(connection)
    if (!limits.join(connection))
      return close(connection, CloseCode.connectionLimit, "too many connections of this user")
    hub.join(connection, channels, asked.cursor, (joined) => {
      connection.send({
        type: "connection_success",
        user: identity.user,
        connection: connection.id,
        channels: [...channels, `user:${identity.user}`],
        ...joined,
        heartbeat_seconds: settings.heartbeatMs / 1_000,
        expires_in: secondsLeft(identity),
      })
      log.debug({ event: "connected", connection: connection.id, user: identity.user }, "a client connected")
    })
  }

  function tooManyChannels(connection: Connection): void {
    limits.reach("channels")
    close(connection, CloseCode.tooManyChannels, "too many channels")
  }

  function fault(connection: Connection, code: ErrorCode, message: string, request?: string | number): void {
    metrics.errors.inc({ code })
    connection.faults++
    if (connection.faults > settings.maxErrors) {
      limits.reach("errors")
      return close(connection, CloseCode.tooManyErrors, "too many errors")
    }
    connection.send({ type: "error", code, message, request })
  }

  function receive(connection: Connection, data: RawData, isBinary: boolean): void {
    if (isBinary) {
      metrics.frames.inc({ type: "binary" })
      return close(connection, CloseCode.badMessage, "frames must be JSON text")
    }
    const json = readJson(data.toString())
    const parsed = ClientMessage.safeParse(json)
    if (!parsed.success) {
      metrics.frames.inc({ type: "invalid" })
      if (json === undefined) return fault(connection, "bad_message", "not JSON")
      const issue = parsed.error.issues[0]
      if (issue?.code === "invalid_union" && issue.path[0] === "type")
        return fault(
          connection,
          "unknown_type",
          "the type must be one of ping, pong, subscribe, unsubscribe, authenticate",
        )
      return fault(
        connection,
        "bad_message",
        `${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}`.slice(0, 300),
      )
    }
    metrics.frames.inc({ type: parsed.data.type })
    answer(connection, parsed.data)
  }

  function answer(connection: Connection, message: ClientMessage): void {
    if (message.type === "authenticate") {
      if (connection.identity === undefined) authenticate(connection, message.token)
      else refresh(connection, message.token, message.request)
      return
    }
    if (connection.identity === undefined)
      return fault(connection, "not_authenticated", "send authenticate first", message.request)
    switch (message.type) {
      case "ping":
        return connection.send({ type: "pong", at: new Date().toISOString(), request: message.request })
      case "pong":
        return
      case "subscribe":
        return subscribe(connection, message)
      case "unsubscribe":
        return unsubscribe(connection, message)
    }
  }

  function refresh(connection: Connection, token: string, request: string | number | undefined): void {
    const identity = verify(connection, token)
    if (identity === undefined) return
    if (identity.user !== connection.user)
      return fault(connection, "other_user", "a refresh must be for the same user", request)
    const done = hub.reauthorise(connection, identity, () =>
      connection.send({
        type: "authenticated",
        user: identity.user,
        expires_in: secondsLeft(identity),
        request,
      }),
    )
    if (!done) busy(connection, request)
  }

  function busy(connection: Connection, request: string | number | undefined): void {
    fault(connection, "busy", "too much waits for the end of the replay: ask again later", request)
  }

  function subscribe(connection: Connection, message: ClientMessage & { type: "subscribe" }): void {
    const { channels, cursor, request } = message
    // Judged by the token of the moment in which it happens, which may be after a replay.
    const change = (joined: ReadonlySet<string>, identity: Identity) => {
      const forbidden = hub.forbidden(identity, channels)
      if (forbidden.length > 0) {
        fault(connection, "forbidden_channel", `not allowed: ${forbidden.join(", ")}`.slice(0, 300), request)
        return undefined
      }
      const all = new Set([...joined, ...channels.filter((channel) => channel !== `user:${identity.user}`)])
      if (all.size <= settings.maxChannels) return all
      tooManyChannels(connection)
      return undefined
    }
    const done = hub.rejoin(connection, change, cursor, (joined) =>
      connection.send({ type: "subscribed", channels, ...joined, request }),
    )
    if (!done) busy(connection, request)
  }

  function unsubscribe(connection: Connection, message: ClientMessage & { type: "unsubscribe" }): void {
    const { channels, request } = message
    const change = (joined: ReadonlySet<string>, identity: Identity) => {
      const unknown = channels.filter((channel) => !joined.has(channel))
      if (unknown.length === 0) return new Set([...joined].filter((channel) => !channels.includes(channel)))
      const own = unknown.includes(`user:${identity.user}`) ? " (the own user channel stays)" : ""
      fault(
        connection,
        "not_subscribed",
        `not subscribed: ${unknown.join(", ")}${own}`.slice(0, 300),
        request,
      )
      return undefined
    }
    const done = hub.rejoin(connection, change, undefined, ({ cursor }) =>
      connection.send({ type: "unsubscribed", channels, cursor, request }),
    )
    if (!done) busy(connection, request)
  }

  return {
    attach: (http) => {
      http.on("upgrade", (request, socket, head) => {
        if (request.headers.upgrade?.toLowerCase() === "websocket") upgrade(request, socket, head)
        else answerPlainly(http, request, socket)
      })
    },
    stop: () => {
      stopping = true
    },
  }
}

function destroy(this: Duplex): void {
  this.destroy()
}

const secondsLeft = (identity: Identity): number =>
  Math.max(0, Math.floor((identity.expiresAt - Date.now()) / 1_000))

function readJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

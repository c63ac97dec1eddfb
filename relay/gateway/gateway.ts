/** The gateway: the upgrade, and the frames of clients. */

import type { IncomingMessage, Server } from "node:http"
import type { Duplex } from "node:stream"
import { type RawData, type WebSocket, WebSocketServer } from "ws"
import type { Auth } from "../access/auth.ts"
import type { Revocations } from "../access/revocations.ts"
import { Connection } from "../fanout/connection.ts"
import { createWire } from "../fanout/wire.ts"
import type { Hub } from "../hub/hub.ts"
import { readJson } from "../lib/json.ts"
import { createSliceQueue } from "../lib/time-slice.ts"
import { ClientMessage, describeFault, requestOf } from "../protocol/client-message.ts"
import { CloseCode } from "../protocol/close-code.ts"
import type { ErrorCode } from "../protocol/server-message.ts"
import type { Disconnects } from "../telemetry/disconnects.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import { createAdmission } from "./admission.ts"
import type { Audit } from "./audit.ts"
import { createCommands } from "./commands.ts"
import type { Limits } from "./limits.ts"
import {
  answering,
  answerPlainly,
  answerRefusal,
  type Handshake,
  misformed,
  originAllowed,
  readHandshake,
  readTarget,
  SUBPROTOCOL,
} from "./upgrade.ts"

export interface GatewayDeps {
  hub: Hub
  auth: Auth
  revocations: Revocations
  limits: Limits
  audit: Audit
  disconnects: Disconnects
  log: Log
  metrics: Metrics
  settings: {
    path: string
    allowedOrigins: readonly string[]
    queryToken: boolean
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
/** How long a socket may stay open after a close frame, which cannot pass a stuffed one; then ws cuts it. Milliseconds. */
const CLOSE_TIMEOUT_MS = 1_000

export function createGateway({
  hub,
  auth,
  revocations,
  limits,
  audit,
  disconnects,
  log,
  metrics,
  settings,
}: GatewayDeps): Gateway {
  let stopping = false
  const admission = createAdmission({
    hub,
    auth,
    revocations,
    limits,
    audit,
    log,
    metrics,
    settings,
    fault,
    obey: receive,
  })
  const commands = createCommands({ hub, limits, audit, fault })
  const drained = createSliceQueue()
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: MAX_FRAME_BYTES,
    maxFragments: MAX_FRAGMENTS,
    maxBufferedChunks: MAX_PIECES,
    closeTimeout: CLOSE_TIMEOUT_MS,
    handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
  } as ConstructorParameters<typeof WebSocketServer>[0])
  // What it finds wrong is answered and counted like anything else.
  server.on("wsClientError", (_error, socket, request) => refuse(request, socket, 400, "bad_request"))

  function refuse(
    request: IncomingMessage,
    socket: Duplex,
    status: number,
    result: string,
    retrySeconds?: number,
  ): void {
    metrics.connects.inc({ result })
    audit.tell({ address: limits.addressOf(request) }, { event: "refused", reason: result, status })
    disconnects.refused(status, result)
    answerRefusal(socket, status, retrySeconds)
  }

  function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", destroy)
    const url = readTarget(request)
    if (url === undefined) return refuse(request, socket, 400, "bad_request")
    const status = misformed(request)
    if (status !== undefined) return refuse(request, socket, status, "bad_request")
    if (url.pathname.replace(/\/$/, "") !== settings.path) return refuse(request, socket, 404, "wrong_path")
    if (!originAllowed(request, settings.allowedOrigins)) return refuse(request, socket, 403, "origin")
    if (stopping || !hub.ready() || !auth.ready())
      return refuse(request, socket, 503, stopping ? "stopping" : "not_ready", 1)
    const entry = limits.admit(request)
    if (!entry.admitted) return refuse(request, socket, entry.status, entry.limit, entry.retrySeconds)
    const asked = readHandshake(request, url, settings.queryToken)
    if (asked === undefined) return refuse(request, socket, 400, "bad_request")
    server.handleUpgrade(request, socket, head, (websocket) =>
      accept(websocket, socket, asked, entry.address),
    )
  }

  function accept(websocket: WebSocket, socket: Duplex, asked: Handshake, address: string): void {
    metrics.connects.inc({ result: "accepted" })
    limits.enter(address)
    const wire = createWire(socket, websocket, () => void goOn(connection))
    const connection = new Connection({ wire, address, onClosing })
    hub.track(connection)
    /** Whether it may say so much. Whoever says too much is not read any more. */
    const heard = (alone = false) => {
      if (websocket.isPaused) return false
      connection.heardAt = performance.now()
      if (limits.hear(connection, alone)) return !connection.closing
      close(connection, CloseCode.tooManyRequests, "too many requests")
      websocket.pause()
      return false
    }
    websocket.on("message", (data, isBinary) => {
      if (heard()) hear(connection, data, isBinary)
    })
    websocket.on("pong", () => {
      const now = performance.now()
      // What the relay has asked for is not held against a client. Where it comes late, two may come together; all of a user's
      // connections are asked at once, so that they are never held against the user.
      if (websocket.isPaused || now - connection.pongedAt < settings.heartbeatMs / 2) return void heard(true)
      connection.pongedAt = now
      connection.heardAt = now
    })
    websocket.on("ping", () => heard())
    const openedAt = performance.now()
    /** How the client has broken the protocol, for which ws ends it. */
    let broken = ""
    websocket.on("error", (error: Error & { code?: string }) => {
      broken = error.code ?? "socket"
      metrics.errors.inc({ code: broken })
    })
    websocket.on("close", (code, reason) => {
      hub.forget(connection)
      limits.part(connection)
      limits.leave(address)
      admission.forget(connection)
      if (connection.ending !== undefined) disconnects.closed(connection.ending.code)
      else if (broken !== "") disconnects.broken(broken)
      else disconnects.ended(code)
      log.debug({ event: "closed", connection: connection.id, user: connection.user }, "a connection ended")
      const end = connection.ending ?? { code, reason: broken || reason.toString() }
      const byRelay = connection.ending !== undefined || broken !== ""
      const by = byRelay ? "relay" : code === 1006 ? "nobody" : "client"
      audit.tell(connection, { event: "closed", ...end, by, openMs: performance.now() - openedAt })
    })
    admission.open(connection, asked)
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

  function close(connection: Connection, code: CloseCode, reason: string): void {
    connection.close(code, reason)
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

  function hear(connection: Connection, data: RawData, isBinary: boolean): void {
    if (!isBinary) return receive(connection, data.toString())
    metrics.frames.inc({ type: "binary" })
    close(connection, CloseCode.badMessage, "frames must be JSON text")
  }

  function receive(connection: Connection, text: string): void {
    if (connection.closing || admission.holds(connection, text)) return
    const json = readJson(text)
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
      return fault(connection, "bad_message", describeFault(parsed.error).slice(0, 300), requestOf(json))
    }
    metrics.frames.inc({ type: parsed.data.type })
    answer(connection, parsed.data)
  }

  function answer(connection: Connection, message: ClientMessage): void {
    if (message.type === "authenticate")
      return void admission.present(connection, message.token, message.request)
    if (connection.identity === undefined)
      return fault(connection, "not_authenticated", "send authenticate first", message.request)
    commands.obey(connection, message)
  }

  return {
    attach: (http) => {
      http.on("upgrade", (request, socket, head) => {
        if (answering(socket)) socket.destroy()
        else if (request.headers.upgrade?.toLowerCase() === "websocket") upgrade(request, socket, head)
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

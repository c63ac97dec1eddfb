/** A client's socket, from the upgrade to its end. */

import type { Duplex } from "node:stream"
import type { RawData, WebSocket } from "ws"
import { Connection } from "../fanout/connection.ts"
import { createWire } from "../fanout/wire.ts"
import type { Membership } from "../hub/membership.ts"
import type { SliceQueue } from "../lib/time-slice.ts"
import { CloseCode } from "../protocol/close-code.ts"
import type { Disconnects } from "../telemetry/disconnects.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Audit } from "./audit.ts"
import type { Inbox } from "./inbox.ts"
import type { Limits } from "./limits.ts"
import type { UpgradeParameters } from "./upgrade.ts"

export interface ClientSocketDeps {
  hub: Pick<Membership, "track" | "release" | "forget">
  inbox: Inbox
  limits: Pick<Limits, "addSocket" | "removeSocket" | "removeConnection" | "takeFrame">
  audit: Pick<Audit, "record">
  disconnects: Pick<Disconnects, "closed" | "broken" | "ended">
  /** Thousands of sockets may drain in one turn of the event loop: they take turns. */
  drained: SliceQueue
  log: Log
  metrics: Metrics
  settings: { heartbeatMs: number }
  /** Monotonic milliseconds. */
  clock(): number
}

export class ClientSocket {
  readonly #websocket: WebSocket
  readonly #deps: ClientSocketDeps
  readonly #connection: Connection
  readonly #openedAt: number
  /** When a pong last came that was not counted as a frame. */
  #pongedAt: number
  /** How the client broke the protocol, for which ws closes it. */
  #violation = ""

  /** @param socket that of the upgrade, with which the websocket was made. */
  constructor(websocket: WebSocket, socket: Duplex, address: string, deps: ClientSocketDeps) {
    this.#websocket = websocket
    this.#deps = deps
    this.#openedAt = deps.clock()
    this.#pongedAt = this.#openedAt
    const wire = createWire(socket, websocket, () => void this.#drain())
    this.#connection = new Connection({ wire, address, onClosing: (_, code) => this.#onClosing(code) })
  }

  /** Takes what the client sends, until the socket is closed. */
  open(parameters: UpgradeParameters): void {
    const { hub, inbox, limits, metrics } = this.#deps
    metrics.connects.inc({ result: "accepted" })
    limits.addSocket(this.#connection.address)
    hub.track(this.#connection)
    this.#websocket
      .on("message", (data, isBinary) => this.#onMessage(data, isBinary))
      .on("ping", () => this.#take("user"))
      .on("pong", () => this.#onPong())
      .on("error", (error) => this.#onError(error))
      .on("close", (code, reason) => this.#onClose(code, reason.toString()))
    inbox.open(this.#connection, parameters)
  }

  /** Counts a frame. A client that sends too many is no longer read. @returns whether to handle it. */
  #take(per: "user" | "connection"): boolean {
    if (this.#websocket.isPaused) return false
    this.#connection.lastHeardAt = this.#deps.clock()
    if (this.#deps.limits.takeFrame(this.#connection, per)) return !this.#connection.closing
    this.#connection.close(CloseCode.tooManyRequests, "too many requests")
    this.#websocket.pause()
    return false
  }

  #onMessage(data: RawData, isBinary: boolean): void {
    if (!this.#take("user")) return
    if (!isBinary) return this.#deps.inbox.receive(this.#connection, data.toString())
    this.#deps.metrics.frames.inc({ type: "binary" })
    this.#connection.close(CloseCode.badMessage, "frames must be JSON text")
  }

  /**
   * The answer to a ping of the relay does not count. After the relay was late two may come together: the second counts,
   * but for the connection alone, since all connections of a user are pinged at once.
   */
  #onPong(): void {
    const now = this.#deps.clock()
    if (now - this.#pongedAt < this.#deps.settings.heartbeatMs / 2) return void this.#take("connection")
    if (this.#websocket.isPaused) return
    this.#pongedAt = now
    this.#connection.lastHeardAt = now
  }

  async #drain(): Promise<void> {
    await this.#deps.drained.next(this.#connection.user)
    this.#connection.pump()
  }

  #onError(error: Error & { code?: string }): void {
    this.#violation = error.code ?? "socket"
    this.#deps.metrics.errors.inc({ code: this.#violation })
  }

  /** The relay closes it: it takes no further part, though the socket may stay open for a moment. */
  #onClosing(code: CloseCode): void {
    const { hub, limits, metrics, log } = this.#deps
    const { id, user } = this.#connection
    hub.release(this.#connection)
    limits.removeConnection(this.#connection)
    metrics.closes.inc({ code: String(code) })
    log.debug({ event: "closing", connection: id, user, code }, "closing a connection")
  }

  #onClose(code: number, reason: string): void {
    const { hub, inbox, limits, log } = this.#deps
    const { id, user, address } = this.#connection
    hub.forget(this.#connection)
    limits.removeConnection(this.#connection)
    limits.removeSocket(address)
    inbox.forget(this.#connection)
    this.#recordEnd(code, reason)
    log.debug({ event: "closed", connection: id, user }, "a connection ended")
  }

  #recordEnd(code: number, reason: string): void {
    const { disconnects, audit, clock } = this.#deps
    const { ending } = this.#connection
    const violation = this.#violation
    if (ending !== undefined) disconnects.closed(ending.code)
    else if (violation !== "") disconnects.broken(violation)
    else disconnects.ended(code)
    const byRelay = ending !== undefined || violation !== ""
    audit.record(this.#connection, {
      event: "closed",
      ...(ending ?? { code, reason: violation || reason }),
      by: byRelay ? "relay" : code === 1006 ? "nobody" : "client",
      openMs: clock() - this.#openedAt,
    })
  }
}

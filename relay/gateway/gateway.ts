/** The gateway: clients connect here, by an upgrade of an HTTP server, and send their frames. */

import type { IncomingMessage, Server, ServerResponse } from "node:http"
import type { Duplex } from "node:stream"
import { WebSocketServer } from "ws"
import type { Auth } from "../access/auth.ts"
import type { Revocations } from "../access/revocations.ts"
import { createSliceQueue } from "../lib/time-slice.ts"
import type { Disconnects } from "../telemetry/disconnects.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import { type AdmissionDeps, createAdmission } from "./admission.ts"
import { type Attachment, attachTo } from "./attachments.ts"
import type { Audit } from "./audit.ts"
import { ClientSocket, type ClientSocketDeps } from "./client-socket.ts"
import { type CommandsDeps, createCommands } from "./commands.ts"
import { createFaults } from "./faults.ts"
import { createInbox } from "./inbox.ts"
import type { Limits } from "./limits.ts"
import { createQuestions } from "./question.ts"
import { badRequest, type Refusal } from "./refusal.ts"
import { createRefusedOrigins } from "./refused-origins.ts"
import { createUpgrades, type UpgradesDeps } from "./upgrade.ts"
import { answerPlainly, answerRefusal, isAnswering } from "./upgrade-answer.ts"

export interface GatewayDeps {
  hub: AdmissionDeps["hub"] & CommandsDeps["hub"] & ClientSocketDeps["hub"] & UpgradesDeps["hub"]
  auth: Auth
  revocations: Pick<Revocations, "judge">
  limits: Limits
  audit: Pick<Audit, "record">
  disconnects: Omit<Disconnects, "report">
  log: Log
  metrics: Metrics
  settings: {
    path: string
    allowedOrigins: readonly string[]
    allowedHosts: readonly string[]
    queryToken: boolean
    maxErrors: number
    heartbeatMs: number
  }
  /** Monotonic milliseconds. */
  clock?: () => number
}

export interface Gateway {
  /** Takes over the upgrades of an HTTP server. */
  attach(server: Server): void
  /**
   * Answers a plain request for the socket's path: with what an upgrade would come to.
   * @returns false if it is for another path, which is then not answered.
   */
  answer(request: IncomingMessage, response: ServerResponse): boolean
  /** Refuses new connections from now on. */
  stop(): void
  /** Leaves the upgrades of its servers to others. */
  detach(): void
}

/** The one subprotocol that is answered: the token beside it must not come back. */
const SUBPROTOCOL = "commitcast.v1"
/** Commands are small; ws closes with 1009 beyond. */
const MAX_FRAME_BYTES = 16_384
/** A frame may come in so many fragments, and in so many pieces of the network. */
const MAX_FRAGMENTS = 16
const MAX_PIECES = 1_024
/** A close frame cannot pass a stuffed socket: after this time ws cuts it. Milliseconds. */
const CLOSE_TIMEOUT_MS = 1_000

export function createGateway({ clock = () => performance.now(), ...deps }: GatewayDeps): Gateway {
  const { limits, audit, disconnects, metrics } = deps
  const faults = createFaults(deps)
  const admission = createAdmission({ ...deps, faults })
  const commands = createCommands({ ...deps, faults })
  const inbox = createInbox({ admission, commands, faults, metrics })
  const upgrades = createUpgrades(deps)
  const refusedOrigins = createRefusedOrigins(deps.log, clock)
  const questions = createQuestions({ upgrades, admission, refusedOrigins, metrics })
  const socketDeps = { ...deps, inbox, drained: createSliceQueue(), clock }
  const server = createWebSocketServer()
  /** What detaches it from each server. */
  const detach = new Map<Server, () => void>()
  // What ws finds wrong is answered and counted like anything else.
  server.on("wsClientError", (error, socket, request) =>
    refuse(request, socket, badRequest(`The handshake is wrong: ${error.message}.`)),
  )

  function refuse(request: IncomingMessage, socket: Duplex, refusal: Refusal): void {
    const { status, result } = refusal
    metrics.connects.inc({ result })
    audit.record({ address: limits.addressOf(request) }, { event: "refused", reason: result, status })
    disconnects.refused(status, result)
    if (result === "origin") refusedOrigins.record(request)
    answerRefusal(request, socket, refusal)
  }

  function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", destroy)
    const verdict = upgrades.judge(request, "upgrade")
    if (!verdict.accepted) return refuse(request, socket, verdict.refusal)
    server.handleUpgrade(request, socket, head, (websocket) =>
      new ClientSocket(websocket, socket, verdict.address, socketDeps).open(verdict.parameters),
    )
  }

  return {
    attach(http) {
      if (detach.has(http)) return
      const attachment: Attachment = {
        isForRelay: upgrades.isForRelay,
        take(request, socket, head) {
          if (isAnswering(socket)) socket.destroy()
          else if (request.headers.upgrade?.toLowerCase() === "websocket") upgrade(request, socket, head)
          else answerPlainly(http, request, socket)
        },
      }
      detach.set(http, attachTo(http, attachment))
    },
    answer(request, response) {
      if (!upgrades.isForRelay(request)) return false
      void questions.answer(request, response)
      return true
    },
    stop: upgrades.stop,
    detach() {
      for (const end of detach.values()) end()
      detach.clear()
    },
  }
}

function createWebSocketServer(): WebSocketServer {
  return new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: MAX_FRAME_BYTES,
    maxFragments: MAX_FRAGMENTS,
    maxBufferedChunks: MAX_PIECES,
    closeTimeout: CLOSE_TIMEOUT_MS,
    handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
  } as ConstructorParameters<typeof WebSocketServer>[0])
}

/** One for all sockets: a closure would keep what its upgrade brought. */
function destroy(this: Duplex): void {
  this.destroy()
}

/** Questions: plain requests for the socket's path. They are told what an upgrade would come to, which browsers hide. */

import type { IncomingMessage, ServerResponse } from "node:http"
import { CloseCode } from "../protocol/close-code.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Admission } from "./admission.ts"
import { answerOf, type Refusal } from "./refusal.ts"
import type { RefusedOrigins } from "./refused-origins.ts"
import type { Rejection } from "./rejection.ts"
import type { Upgrades } from "./upgrade.ts"

export interface QuestionsDeps {
  upgrades: Upgrades
  admission: Pick<Admission, "foresee">
  refusedOrigins: RefusedOrigins
  metrics: Metrics
}

export interface Questions {
  answer(request: IncomingMessage, response: ServerResponse): Promise<void>
}

/** Nothing would refuse an upgrade: what is missing is the upgrade. */
const WELCOME: Refusal = {
  status: 426,
  result: "upgrade_required",
  message:
    "This is a WebSocket endpoint, and an upgrade would be let in: connect with a WebSocket client and the subprotocol commitcast.v1.",
}
/** A proxy that speaks HTTP/1.0 to the relay, or does not pass these two headers on, leaves the rest of an upgrade. */
const STRIPPED: Refusal = {
  status: 426,
  result: "upgrade_stripped",
  message:
    "An upgrade arrived without its headers Upgrade and Connection: have the proxy in front pass them on, with HTTP/1.1.",
}

/** The close codes as HTTP has them. */
const STATUSES: Partial<Record<CloseCode, number>> = {
  [CloseCode.tokenExpired]: 401,
  [CloseCode.invalidToken]: 401,
  [CloseCode.tryAgain]: 503,
  [CloseCode.badMessage]: 400,
  [CloseCode.tooManyChannels]: 400,
  [CloseCode.forbidden]: 403,
}

const refusalOf = ({ code, reason }: Rejection): Refusal => ({
  status: STATUSES[code] ?? 403,
  result: "would_be_closed",
  message: `The connection would be closed with ${code}: ${reason}.`,
  closeCode: code,
  retrySeconds: code === CloseCode.tryAgain ? 10 : undefined,
})

export function createQuestions({ upgrades, admission, refusedOrigins, metrics }: QuestionsDeps): Questions {
  async function judge(request: IncomingMessage): Promise<Refusal> {
    const verdict = upgrades.judge(request, "question")
    if (!verdict.accepted) return verdict.refusal
    const rejection = await admission.foresee(verdict.parameters, verdict.address)
    if (rejection !== undefined) return refusalOf(rejection)
    return request.headers["sec-websocket-key"] === undefined ? WELCOME : STRIPPED
  }

  /** Whether a browser asks if it may send its token along. */
  function answerPreflight(request: IncomingMessage, response: ServerResponse): boolean {
    const { origin, "access-control-request-method": method } = request.headers
    if (request.method !== "OPTIONS" || origin === undefined || method === undefined) return false
    if (!upgrades.allowsOrigin(request)) return false
    response.writeHead(204, {
      ...accessOf(request, true, undefined),
      "Access-Control-Allow-Methods": "GET",
      "Access-Control-Allow-Headers": "Authorization",
      "Access-Control-Max-Age": "600",
    })
    response.end()
    return true
  }

  return {
    async answer(request, response) {
      if (answerPreflight(request, response)) return
      const refusal = await judge(request)
      // A token may take its time, and a program's own server may have given up on the request meanwhile.
      if (response.headersSent) return
      metrics.questions.inc({ result: refusal.result })
      const allowed = upgrades.allowsOrigin(request)
      // An origin in the query is somebody's word: no page was refused.
      if (!allowed) refusedOrigins.record(request)
      const { headers, body } = answerOf(refusal)
      const access = accessOf(request, allowed, refusal)
      response.writeHead(refusal.status, { ...headers, ...access })
      response.end(request.method === "HEAD" ? undefined : body)
    },
  }
}

/** That its own origin was refused even a refused page may read: it is told nothing else. */
function accessOf(
  { headers: { origin } }: IncomingMessage,
  allowed: boolean,
  refusal: Refusal | undefined,
): Record<string, string> {
  if (origin === undefined || !(allowed || refusal?.result === "origin")) return { Vary: "Origin" }
  return {
    Vary: "Origin",
    "Access-Control-Allow-Origin": allowed ? origin : "*",
    "Access-Control-Expose-Headers": "Retry-After",
  }
}

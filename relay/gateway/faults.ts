/** Faults: what clients do wrong. Each is answered with an error message; a client that makes too many is closed. */

import type { Connection } from "../fanout/connection.ts"
import { CloseCode } from "../protocol/close-code.ts"
import type { ErrorCode } from "../protocol/server-message.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Audit } from "./audit.ts"
import type { AuditSubject } from "./audit-event.ts"
import type { Limits } from "./limits.ts"

/** What a client wrote on its message, to tell the answers apart. */
export type RequestId = string | number | undefined

export const TOO_MANY_FILTERS =
  "too many different filters at this moment: take one that others have, or try again"

export interface FaultsDeps {
  limits: Pick<Limits, "record">
  metrics: Metrics
  settings: { maxErrors: number }
}

export interface Faults {
  /** Sends the error, or closes the connection if it is one too many. */
  answer(connection: Connection, code: ErrorCode, message: string, request?: RequestId): void
}

export function createFaults({ limits, metrics, settings }: FaultsDeps): Faults {
  return {
    answer(connection, code, message, request) {
      metrics.errors.inc({ code })
      connection.faults++
      if (connection.faults > settings.maxErrors) {
        limits.record("errors")
        return connection.close(CloseCode.tooManyErrors, "too many errors")
      }
      connection.send({ type: "error", code, message, request })
    },
  }
}

/** Tells a client of channels that it may not join. */
export function answerForbidden(
  { audit, faults }: { audit: Pick<Audit, "record">; faults: Faults },
  subject: AuditSubject,
  connection: Connection,
  forbidden: readonly string[],
  request: RequestId,
): void {
  audit.record(subject, { event: "channels_refused", channels: forbidden })
  faults.answer(
    connection,
    "forbidden_channel",
    `not allowed: ${forbidden.join(", ")}`.slice(0, 300),
    request,
  )
}

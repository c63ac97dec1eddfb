/** Admission: with its first token a client gets a place in the hub, with each later one another identity. */

import type { Auth, AuthResult, Identity } from "../access/auth.ts"
import type { Revocations } from "../access/revocations.ts"
import { forbiddenOf, startChannels } from "../access/rights.ts"
import type { Connection } from "../fanout/connection.ts"
import type { Membership } from "../hub/membership.ts"
import { CloseCode } from "../protocol/close-code.ts"
import { amendFilter } from "../protocol/filter.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Audit } from "./audit.ts"
import { type Faults, type RequestId, TOO_MANY_FILTERS } from "./faults.ts"
import type { Limits } from "./limits.ts"
import type { UpgradeParameters } from "./upgrade.ts"

export interface AdmissionDeps {
  hub: Pick<Membership, "crowded" | "join" | "reauthorise">
  auth: Pick<Auth, "verify">
  revocations: Pick<Revocations, "judge">
  limits: Pick<Limits, "allowsChannels" | "addConnection">
  audit: Pick<Audit, "record">
  faults: Faults
  log: Log
  metrics: Metrics
  settings: { heartbeatMs: number }
}

type Refusal = Extract<AuthResult, { ok: false }>["reason"]

export interface Admission {
  /** Notes what a new connection asked for. One that asked for what cannot be is closed. */
  open(connection: Connection, parameters: UpgradeParameters): void
  /** Checks a token: the first admits the client, each later one renews its identity. Resolves once it is answered. */
  authenticate(connection: Connection, token: string, request: RequestId): Promise<void>
  /** The client is gone: nothing of it joins any more. */
  forget(connection: Connection): void
}

export function createAdmission(deps: AdmissionDeps): Admission {
  const { hub, auth, revocations, limits, audit, log, settings } = deps
  /** What clients asked for that have not been admitted yet. */
  const requested = new Map<Connection, Pick<UpgradeParameters, "channels" | "cursor">>()
  /** The clients whose token is being checked. */
  const checking = new Set<Connection>()

  function admit(connection: Connection, identity: Identity): void {
    const asked = requested.get(connection)
    if (asked === undefined) return
    const channels = startChannels(asked.channels, identity.user)
    const forbidden = forbiddenOf(channels, identity.user, identity.rights)
    if (forbidden.length > 0) {
      const { id, address } = connection
      audit.record({ id, address, user: identity.user }, { event: "channels_refused", channels: forbidden })
      return connection.close(CloseCode.forbidden, `channel not allowed: ${forbidden[0]}`)
    }
    if (!limits.allowsChannels(connection, channels.size)) return
    if (hub.crowded(identity, channels, connection.filter))
      return connection.close(CloseCode.tryAgain, TOO_MANY_FILTERS)
    connection.identity = identity
    requested.delete(connection)
    if (!limits.addConnection(connection))
      return connection.close(CloseCode.connectionLimit, "too many connections of this user")
    audit.record(connection, { event: "connected", channels, expiresAt: identity.expiresAt })
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

  return {
    open(connection, { tokens, channels, cursor, filter }) {
      requested.set(connection, { channels, cursor })
      if (tokens.length > 1) return connection.close(CloseCode.badMessage, "more than one token")
      if (typeof filter === "string") return connection.close(CloseCode.badMessage, filter)
      connection.filter = amendFilter(undefined, filter)
    },
    async authenticate(connection, token, request) {
      checking.add(connection)
      const result = revocations.judge(await auth.verify(token))
      // Meanwhile the client may have left, or been closed.
      if (!checking.delete(connection) || connection.closing) return
      if (!result.ok) refuse(deps, connection, result.reason, request)
      else if (connection.identity === undefined) admit(connection, result.identity)
      else renew(deps, connection, result.identity, request)
    },
    forget(connection) {
      requested.delete(connection)
      checking.delete(connection)
    },
  }
}

function refuse(
  { metrics, audit, faults }: AdmissionDeps,
  connection: Connection,
  reason: Refusal,
  request: RequestId,
): void {
  metrics.authFailures.inc({ reason })
  audit.record(connection, { event: "token_refused", reason })
  switch (reason) {
    case "expired":
      return connection.close(CloseCode.tokenExpired, "token expired")
    case "unavailable":
      // The token that admitted it is still good.
      if (connection.identity !== undefined)
        return faults.answer(connection, "busy", "the token cannot be checked now: try again later", request)
      return connection.close(CloseCode.tryAgain, "the token cannot be checked now")
    case "missing":
    case "invalid":
      return connection.close(CloseCode.invalidToken, "invalid token")
    case "revoked":
      return connection.close(CloseCode.forbidden, "revoked")
  }
}

function renew(
  { hub, audit, faults }: AdmissionDeps,
  connection: Connection,
  identity: Identity,
  request: RequestId,
): void {
  if (identity.user !== connection.user) {
    audit.record(connection, { event: "token_refused", reason: "other_user" })
    return faults.answer(connection, "other_user", "a refresh must be for the same user", request)
  }
  const done = hub.reauthorise(connection, identity, (channels) => {
    connection.send({
      type: "authenticated",
      user: identity.user,
      channels: [...channels, `user:${identity.user}`],
      expires_in: secondsLeft(identity),
      request,
    })
    audit.record(connection, { event: "renewed", channels, expiresAt: identity.expiresAt })
  })
  if (!done) faults.answer(connection, "busy", "too much waits already: ask again later", request)
}

const secondsLeft = (identity: Identity): number =>
  Math.max(0, Math.floor((identity.expiresAt - Date.now()) / 1_000))

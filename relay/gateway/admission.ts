/** Admission: with its first token a client gets a place in the hub, with each later one another identity. */

import type { Auth, Identity } from "../access/auth.ts"
import type { Revocations } from "../access/revocations.ts"
import { startChannels } from "../access/rights.ts"
import type { Connection } from "../fanout/connection.ts"
import type { Membership } from "../hub/membership.ts"
import { CloseCode } from "../protocol/close-code.ts"
import { amendFilter } from "../protocol/filter.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Audit } from "./audit.ts"
import type { Faults, RequestId } from "./faults.ts"
import type { Limits } from "./limits.ts"
import {
  isRejection,
  type Rejection,
  readRequest,
  rejectionByChannels,
  rejectionByToken,
  type TokenFault,
} from "./rejection.ts"
import type { UpgradeParameters } from "./upgrade.ts"

export interface AdmissionDeps {
  hub: Pick<Membership, "crowded" | "join" | "reauthorise">
  auth: Pick<Auth, "verify">
  revocations: Pick<Revocations, "judge">
  limits: Pick<Limits, "fitsChannels" | "addConnection" | "record">
  audit: Pick<Audit, "record">
  faults: Faults
  log: Log
  metrics: Metrics
  settings: { heartbeatMs: number }
}

export interface Admission {
  /** Notes what a new connection asked for. One that asked for what cannot be is closed. */
  open(connection: Connection, parameters: UpgradeParameters): void
  /** Checks a token: the first admits the client, each later one renews its identity. Resolves once it is answered. */
  authenticate(connection: Connection, token: string, request: RequestId): Promise<void>
  /** What such a request would be closed with before it is admitted. Without a token it is looked at as far as it goes. */
  foresee(parameters: UpgradeParameters): Promise<Rejection | undefined>
  /** The client is gone: nothing of it joins any more. */
  forget(connection: Connection): void
}

export function createAdmission(deps: AdmissionDeps): Admission {
  const { hub, auth, revocations, limits, audit, log, metrics, settings } = deps
  /** What clients asked for that have not been admitted yet. */
  const requested = new Map<Connection, Pick<UpgradeParameters, "channels" | "cursor">>()
  /** The clients whose token is being checked. */
  const checking = new Set<Connection>()

  function reject(connection: Connection, { user }: Identity, rejection: Rejection): void {
    const { id, address } = connection
    if (rejection.forbidden !== undefined)
      audit.record({ id, address, user }, { event: "channels_refused", channels: rejection.forbidden })
    if (rejection.code === CloseCode.tooManyChannels) limits.record("channels")
    connection.close(rejection.code, rejection.reason)
  }

  function admit(connection: Connection, identity: Identity): void {
    const asked = requested.get(connection)
    if (asked === undefined) return
    const channels = startChannels(asked.channels, identity.user)
    const rejection = rejectionByChannels(deps, identity, channels, connection.filter)
    if (rejection !== undefined) return reject(connection, identity, rejection)
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
    open(connection, parameters) {
      const { channels, cursor } = parameters
      requested.set(connection, { channels, cursor })
      const read = readRequest(parameters)
      if (isRejection(read)) return connection.close(read.code, read.reason)
      connection.filter = amendFilter(undefined, read)
    },
    async foresee(parameters) {
      const read = readRequest(parameters)
      if (isRejection(read)) return read
      const [token] = parameters.tokens
      if (token === undefined) return undefined
      const result = revocations.judge(await auth.verify(token))
      if (result.ok) {
        const channels = startChannels(parameters.channels, result.identity.user)
        return rejectionByChannels(deps, result.identity, channels, amendFilter(undefined, read))
      }
      metrics.authFailures.inc({ reason: result.reason })
      return rejectionByToken(result.reason)
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
  reason: TokenFault,
  request: RequestId,
): void {
  metrics.authFailures.inc({ reason })
  audit.record(connection, { event: "token_refused", reason })
  // The token that admitted it is still good.
  if (reason === "unavailable" && connection.identity !== undefined)
    return faults.answer(connection, "busy", "the token cannot be checked now: try again later", request)
  const rejection = rejectionByToken(reason)
  connection.close(rejection.code, rejection.reason)
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

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
import type { Command } from "./commands.ts"
import type { Faults, RequestId } from "./faults.ts"
import type { Limits } from "./limits.ts"
import { type Preparation, preparationOf, prepare } from "./preparation.ts"
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
  limits: Pick<Limits, "allowsChannels" | "fitsChannels" | "addConnection" | "record">
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
  /** Takes a command of a client that has not been admitted: by `?start=message` it asks for more, and starts. */
  prepare(connection: Connection, command: Command): void
  /**
   * What such a request would be closed with before it is admitted. Without a token it is looked at as far as it goes.
   * @param address of who asks.
   */
  foresee(parameters: UpgradeParameters, address: string): Promise<Rejection | undefined>
  /** The client is gone: nothing of it joins any more. */
  forget(connection: Connection): void
}

export function createAdmission(deps: AdmissionDeps): Admission {
  const { hub, auth, revocations, limits, audit, faults, log, metrics, settings } = deps
  /** What clients asked for that have not been admitted yet. */
  const preparations = new Map<Connection, Preparation>()
  /** The clients whose token is being checked. */
  const checking = new Set<Connection>()

  function reject(connection: Connection, { user }: Identity, rejection: Rejection): void {
    const { id, address } = connection
    if (rejection.forbidden !== undefined)
      audit.record({ id, address, user }, { event: "channels_refused", channels: rejection.forbidden })
    if (rejection.code === CloseCode.tooManyChannels) limits.record("channels")
    connection.close(rejection.code, rejection.reason)
  }

  function admit(connection: Connection, identity: Identity, prepared: Preparation): void {
    const channels = startChannels([...prepared.channels], identity.user)
    const rejection = rejectionByChannels(deps, identity, channels, connection.filter)
    if (rejection !== undefined) return reject(connection, identity, rejection)
    connection.identity = identity
    preparations.delete(connection)
    if (!limits.addConnection(connection))
      return connection.close(CloseCode.connectionLimit, "too many connections of this user")
    audit.record(connection, { event: "connected", channels, expiresAt: identity.expiresAt })
    hub.join(connection, channels, prepared.cursor, (joined) => {
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

  /** Admits a client, or lets it ask for the rest first. */
  function receive(connection: Connection, identity: Identity, request: RequestId): void {
    const prepared = preparations.get(connection)
    if (prepared === undefined) return
    if (!prepared.byMessage) return admit(connection, identity, prepared)
    if (prepared.identity !== undefined && prepared.identity.user !== identity.user)
      return refuseOther(deps, connection, request)
    preparations.set(connection, { ...prepared, identity })
    const { user } = identity
    connection.claimant = user
    const channels = [`user:${user}`]
    connection.send({ type: "authenticated", user, channels, expires_in: secondsLeft(identity), request })
  }

  /** It may have been revoked since its token was checked, or have expired. */
  function start(connection: Connection, prepared: Preparation & { identity: Identity }): void {
    const { identity } = prepared
    const result = revocations.judge({ ok: true, identity })
    if (!result.ok) refuse(deps, connection, result.reason, undefined)
    else if (Date.now() > identity.expiresAt) refuse(deps, connection, "expired", undefined)
    else admit(connection, identity, prepared)
  }

  return {
    prepare(connection, command) {
      const prepared = preparations.get(connection)
      const { type, request } = command
      if (prepared?.identity === undefined)
        return faults.answer(connection, "not_authenticated", "send authenticate first", request)
      const { identity } = prepared
      switch (type) {
        case "subscribe": {
          const more = prepare(deps, connection, { ...prepared, identity }, command)
          if (more !== undefined) preparations.set(connection, more)
          return
        }
        case "start":
          return start(connection, { ...prepared, identity, cursor: command.cursor ?? prepared.cursor })
        default:
          return faults.answer(connection, "not_started", "send start first", request)
      }
    },
    open(connection, parameters) {
      preparations.set(connection, preparationOf(parameters))
      const read = readRequest(parameters)
      if (isRejection(read)) return connection.close(read.code, read.reason)
      connection.filter = amendFilter(undefined, read)
    },
    async foresee(parameters, address) {
      const read = readRequest(parameters)
      if (isRejection(read)) return read
      const [token] = parameters.tokens
      if (token === undefined) return undefined
      const result = revocations.judge(await auth.verify(token))
      if (result.ok) {
        const { user } = result.identity
        const channels = startChannels(parameters.channels, user)
        const rejection = rejectionByChannels(deps, result.identity, channels, amendFilter(undefined, read))
        if (rejection?.forbidden !== undefined)
          audit.record({ address, user }, { event: "channels_refused", channels: rejection.forbidden })
        return rejection
      }
      metrics.authFailures.inc({ reason: result.reason })
      audit.record({ address }, { event: "token_refused", reason: result.reason })
      return rejectionByToken(result.reason)
    },
    async authenticate(connection, token, request) {
      checking.add(connection)
      const result = revocations.judge(await auth.verify(token))
      // Meanwhile the client may have left, or been closed.
      if (!checking.delete(connection) || connection.closing) return
      if (!result.ok) refuse(deps, connection, result.reason, request)
      else if (connection.identity === undefined) receive(connection, result.identity, request)
      else renew(deps, connection, result.identity, request)
    },
    forget(connection) {
      preparations.delete(connection)
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

function refuseOther({ audit, faults }: AdmissionDeps, connection: Connection, request: RequestId): void {
  audit.record(connection, { event: "token_refused", reason: "other_user" })
  faults.answer(connection, "other_user", "a refresh must be for the same user", request)
}

function renew(deps: AdmissionDeps, connection: Connection, identity: Identity, request: RequestId): void {
  const { hub, audit, faults } = deps
  if (identity.user !== connection.user) return refuseOther(deps, connection, request)
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

/** Admission: from a token to a place in the hub, and from a later one to another. The client's frames wait meanwhile. */

import type { Auth, AuthResult, Identity } from "../access/auth.ts"
import type { Revocations } from "../access/revocations.ts"
import { forbiddenOf, startChannels } from "../access/rights.ts"
import type { Connection } from "../fanout/connection.ts"
import type { Hub } from "../hub/hub.ts"
import { CloseCode } from "../protocol/close-code.ts"
import { amendFilter } from "../protocol/filter.ts"
import type { ErrorCode } from "../protocol/server-message.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Audit } from "./audit.ts"
import type { Limits } from "./limits.ts"
import type { Handshake } from "./upgrade.ts"

export interface AdmissionDeps {
  hub: Hub
  auth: Auth
  revocations: Revocations
  limits: Limits
  audit: Audit
  log: Log
  metrics: Metrics
  settings: { heartbeatMs: number }
  fault(connection: Connection, code: ErrorCode, message: string, request?: Request): void
  /** Obeys a frame that has waited. */
  obey(connection: Connection, text: string): void
}

type Request = string | number | undefined
type Refusal = Extract<AuthResult, { ok: false }>["reason"]

export interface Admission {
  /** Takes in who has connected, with the token of its request if there is one. */
  open(connection: Connection, asked: Handshake): void
  /** Checks a token: the first lets in, each later one renews. */
  present(connection: Connection, token: string, request: Request): Promise<void>
  /** Keeps a frame that came while a token is checked. @returns false if none is. */
  holds(connection: Connection, text: string): boolean
  forget(connection: Connection): void
}

/** The check of a token may have to wait for its issuer: what is kept meanwhile of who may be nobody. */
const MAX_HELD_FRAMES = 32
const MAX_HELD_LENGTH = 16_384
export const TOO_MANY_FILTERS =
  "too many different filters at this moment: take one that others have, or try again"

interface Held {
  frames: string[]
  length: number
}

export function createAdmission({
  hub,
  auth,
  revocations,
  limits,
  audit,
  log,
  metrics,
  settings,
  fault,
  obey,
}: AdmissionDeps): Admission {
  /** What those asked for who have not shown a token yet. */
  const asking = new Map<Connection, Pick<Handshake, "channels" | "cursor">>()
  /** Those whose token is being checked. */
  const checking = new Map<Connection, Held>()

  async function present(connection: Connection, token: string, request: Request): Promise<void> {
    checking.set(connection, { frames: [], length: 0 })
    const result = revocations.judge(await auth.verify(token))
    const held = checking.get(connection)
    checking.delete(connection)
    // It may be gone by now, or have been sent away.
    if (held === undefined || connection.closing) return
    if (!result.ok) refuse(connection, result.reason, request)
    else if (connection.identity === undefined) admit(connection, result.identity)
    else renew(connection, result.identity, request)
    for (const text of held.frames) obey(connection, text)
  }

  function refuse(connection: Connection, reason: Refusal, request: Request): void {
    metrics.authFailures.inc({ reason })
    audit.tell(connection, { event: "token_refused", reason })
    switch (reason) {
      case "expired":
        return connection.close(CloseCode.tokenExpired, "token expired")
      case "unavailable":
        // The token that it came in with is still good.
        if (connection.identity !== undefined)
          return fault(connection, "busy", "the token cannot be checked now: try again later", request)
        return connection.close(CloseCode.tryAgain, "the token cannot be checked now")
      case "missing":
      case "invalid":
        return connection.close(CloseCode.invalidToken, "invalid token")
      case "revoked":
        return connection.close(CloseCode.forbidden, "revoked")
    }
  }

  function admit(connection: Connection, identity: Identity): void {
    const asked = asking.get(connection)
    if (asked === undefined) return
    const channels = startChannels(asked.channels, identity.user)
    const forbidden = forbiddenOf(channels, identity.user, identity.rights)
    if (forbidden.length > 0) {
      const { id, address } = connection
      audit.tell({ id, address, user: identity.user }, { event: "channels_refused", channels: forbidden })
      return connection.close(CloseCode.forbidden, `channel not allowed: ${forbidden[0]}`)
    }
    if (!limits.allowsChannels(connection, channels.size)) return
    if (hub.crowded(identity, channels, connection.filter))
      return connection.close(CloseCode.tryAgain, TOO_MANY_FILTERS)
    connection.identity = identity
    asking.delete(connection)
    if (!limits.join(connection))
      return connection.close(CloseCode.connectionLimit, "too many connections of this user")
    audit.tell(connection, { event: "connected", channels, expiresAt: identity.expiresAt })
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

  function renew(connection: Connection, identity: Identity, request: Request): void {
    if (identity.user !== connection.user) {
      audit.tell(connection, { event: "token_refused", reason: "other_user" })
      return fault(connection, "other_user", "a refresh must be for the same user", request)
    }
    const done = hub.reauthorise(connection, identity, (channels) => {
      connection.send({
        type: "authenticated",
        user: identity.user,
        channels: [...channels, `user:${identity.user}`],
        expires_in: secondsLeft(identity),
        request,
      })
      audit.tell(connection, { event: "renewed", channels, expiresAt: identity.expiresAt })
    })
    if (!done) fault(connection, "busy", "too much waits already: ask again later", request)
  }

  return {
    open(connection, { tokens, channels, cursor, filter }) {
      asking.set(connection, { channels, cursor })
      if (tokens.length > 1) return connection.close(CloseCode.badMessage, "more than one token")
      if (typeof filter === "string") return connection.close(CloseCode.badMessage, filter)
      connection.filter = amendFilter(undefined, filter)
      if (tokens[0] !== undefined) void present(connection, tokens[0], undefined)
    },
    present,
    holds(connection, text) {
      const held = checking.get(connection)
      if (held === undefined) return false
      if (held.frames.length === MAX_HELD_FRAMES || held.length >= MAX_HELD_LENGTH) {
        fault(connection, "busy", "a token is being checked: ask again later")
      } else {
        held.frames.push(text)
        held.length += text.length
      }
      return true
    },
    forget(connection) {
      asking.delete(connection)
      checking.delete(connection)
    },
  }
}

const secondsLeft = (identity: Identity): number =>
  Math.max(0, Math.floor((identity.expiresAt - Date.now()) / 1_000))

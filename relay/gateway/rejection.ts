/** Rejections: with what a connection is closed instead of being admitted. Questions are answered from the same decision. */

import type { AuthResult, Identity } from "../access/auth.ts"
import { forbiddenOf } from "../access/rights.ts"
import type { Membership } from "../hub/membership.ts"
import { CloseCode } from "../protocol/close-code.ts"
import type { Filter, FilterFields } from "../protocol/filter.ts"
import { TOO_MANY_FILTERS } from "./faults.ts"
import type { Limits } from "./limits.ts"
import type { UpgradeParameters } from "./upgrade.ts"

export interface Rejection {
  readonly code: CloseCode
  readonly reason: string
  /** The channels for which it is. */
  readonly forbidden?: readonly string[]
}

export type TokenFault = Extract<AuthResult, { ok: false }>["reason"]

/** By the request alone. @returns the fields of its filter if nothing is wrong. */
export function readRequest({ tokens, filter }: UpgradeParameters): Rejection | FilterFields {
  if (tokens.length > 1) return { code: CloseCode.badMessage, reason: "more than one token" }
  if (typeof filter === "string") return { code: CloseCode.badMessage, reason: filter }
  return filter
}

export const isRejection = (read: Rejection | FilterFields): read is Rejection => "code" in read

/** By its token. */
export function rejectionByToken(fault: TokenFault): Rejection {
  switch (fault) {
    case "expired":
      return { code: CloseCode.tokenExpired, reason: "token expired" }
    case "unavailable":
      return { code: CloseCode.tryAgain, reason: "the token cannot be checked now" }
    case "missing":
    case "invalid":
      return { code: CloseCode.invalidToken, reason: "invalid token" }
    case "revoked":
      return { code: CloseCode.forbidden, reason: "revoked" }
  }
}

export interface RejectionDeps {
  hub: Pick<Membership, "crowded">
  limits: Pick<Limits, "fitsChannels">
}

/** By what it would join. */
export function rejectionByChannels(
  { hub, limits }: RejectionDeps,
  identity: Identity,
  channels: ReadonlySet<string>,
  filter: Filter | undefined,
): Rejection | undefined {
  const forbidden = forbiddenOf(channels, identity.user, identity.rights)
  if (forbidden.length > 0)
    return { code: CloseCode.forbidden, reason: `channel not allowed: ${forbidden[0]}`, forbidden }
  if (!limits.fitsChannels(channels.size))
    return { code: CloseCode.tooManyChannels, reason: "too many channels" }
  if (hub.crowded(identity, channels, filter)) return { code: CloseCode.tryAgain, reason: TOO_MANY_FILTERS }
  return undefined
}

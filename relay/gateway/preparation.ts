/** Preparation: what a client asks for before it is admitted, by its URL, and with `?start=message` by messages too. */

import type { Identity } from "../access/auth.ts"
import { forbiddenOf, laneChannels } from "../access/rights.ts"
import type { Connection } from "../fanout/connection.ts"
import { amendFilter } from "../protocol/filter.ts"
import type { Audit } from "./audit.ts"
import type { Command } from "./commands.ts"
import type { Faults } from "./faults.ts"
import { answerForbidden } from "./faults.ts"
import type { Limits } from "./limits.ts"
import type { UpgradeParameters } from "./upgrade.ts"

/** What a client has asked for so far; the connection has its filter. */
export interface Preparation {
  readonly channels: ReadonlySet<string>
  readonly cursor: string | undefined
  /** Whose token was good, where the client has yet to start. */
  readonly identity: Identity | undefined
  /** Whether it waits for the client to start. */
  readonly byMessage: boolean
}

export const preparationOf = ({ channels, cursor, byMessage }: UpgradeParameters): Preparation => ({
  channels: new Set(channels),
  cursor,
  identity: undefined,
  byMessage,
})

export interface PreparationDeps {
  limits: Pick<Limits, "allowsChannels">
  audit: Pick<Audit, "record">
  faults: Faults
}

/** Adds what a client asks for to what it has asked for. @returns undefined if it may not, and was told so. */
export function prepare(
  { limits, audit, faults }: PreparationDeps,
  connection: Connection,
  prepared: Preparation & { identity: Identity },
  command: Extract<Command, { type: "subscribe" }>,
): Preparation | undefined {
  const { user, rights } = prepared.identity
  const { channels = [], cursor, request } = command
  if (cursor !== undefined) {
    faults.answer(connection, "bad_message", "cursor: give it to start", request)
    return undefined
  }
  const forbidden = forbiddenOf(channels, user, rights)
  if (forbidden.length > 0) {
    const { id, address } = connection
    answerForbidden({ audit, faults }, { id, address, user }, connection, forbidden, request)
    return undefined
  }
  const all = new Set([...prepared.channels, ...channels])
  if (!limits.allowsChannels(connection, laneChannels([...all], user).length)) return undefined
  connection.filter = amendFilter(connection.filter, command)
  return { ...prepared, channels: all }
}

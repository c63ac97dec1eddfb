/** Commands: what an authenticated client may ask for. */

import type { Identity } from "../access/auth.ts"
import { forbiddenOf, laneChannels } from "../access/rights.ts"
import type { Connection } from "../fanout/connection.ts"
import type { Membership } from "../hub/membership.ts"
import type { ClientMessage } from "../protocol/client-message.ts"
import { amendFilter } from "../protocol/filter.ts"
import type { Audit } from "./audit.ts"
import { answerForbidden, type Faults, type RequestId, TOO_MANY_FILTERS } from "./faults.ts"
import type { Limits } from "./limits.ts"

type Of<Type extends ClientMessage["type"]> = Extract<ClientMessage, { type: Type }>
export type Command = Exclude<ClientMessage, { type: "authenticate" }>

export interface CommandsDeps {
  hub: Pick<Membership, "crowded" | "rejoin">
  limits: Pick<Limits, "allowsChannels">
  audit: Pick<Audit, "record">
  faults: Faults
}

export interface Commands {
  /** A command that has an answer gets it at once, or after a batch or a replay. */
  handle(connection: Connection, command: Command): void
}

export function createCommands({ hub, limits, audit, faults }: CommandsDeps): Commands {
  function busy(connection: Connection, request: RequestId): void {
    faults.answer(connection, "busy", "too much waits for the end of the replay: ask again later", request)
  }

  function subscribe(connection: Connection, command: Of<"subscribe">): void {
    const { channels = [], cursor, request } = command
    // A replay may come first: what counts is the token of the moment in which the channels change.
    const change = (joined: ReadonlySet<string>, identity: Identity) => {
      const forbidden = forbiddenOf(channels, identity.user, identity.rights)
      if (forbidden.length > 0) {
        answerForbidden({ audit, faults }, connection, connection, forbidden, request)
        return undefined
      }
      const all = new Set([...joined, ...laneChannels(channels, identity.user)])
      if (!limits.allowsChannels(connection, all.size)) return undefined
      const filter = amendFilter(connection.filter, command)
      if (hub.crowded(identity, all, filter)) {
        faults.answer(connection, "too_many_filters", TOO_MANY_FILTERS, request)
        return undefined
      }
      connection.filter = filter
      return all
    }
    const done = hub.rejoin(connection, change, cursor, (joined) => {
      connection.send({ type: "subscribed", channels, ...joined, request })
      audit.record(connection, { event: "subscribed", channels })
    })
    if (!done) busy(connection, request)
  }

  function unsubscribe(connection: Connection, command: Of<"unsubscribe">): void {
    const { channels, request } = command
    const change = (joined: ReadonlySet<string>, identity: Identity) => {
      const unknown = channels.filter((channel) => !joined.has(channel))
      if (unknown.length === 0) return new Set([...joined].filter((channel) => !channels.includes(channel)))
      const own = unknown.includes(`user:${identity.user}`) ? " (the own user channel stays)" : ""
      const message = `not subscribed: ${unknown.join(", ")}${own}`.slice(0, 300)
      faults.answer(connection, "not_subscribed", message, request)
      return undefined
    }
    const done = hub.rejoin(connection, change, undefined, ({ cursor }) => {
      connection.send({ type: "unsubscribed", channels, cursor, request })
      audit.record(connection, { event: "unsubscribed", channels })
    })
    if (!done) busy(connection, request)
  }

  return {
    handle(connection, command) {
      switch (command.type) {
        case "ping":
          return connection.send({ type: "pong", at: new Date().toISOString(), request: command.request })
        case "pong":
          return
        case "subscribe":
          return subscribe(connection, command)
        case "unsubscribe":
          return unsubscribe(connection, command)
        case "start":
          return faults.answer(
            connection,
            "bad_message",
            "it has started already: use subscribe",
            command.request,
          )
      }
    },
  }
}

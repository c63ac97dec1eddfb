/** What a client may ask for once it is authenticated. */

import type { Identity } from "../access/auth.ts"
import { forbiddenOf, laneChannels } from "../access/rights.ts"
import type { Connection } from "../fanout/connection.ts"
import type { Hub } from "../hub/hub.ts"
import type { ClientMessage } from "../protocol/client-message.ts"
import { amendFilter } from "../protocol/filter.ts"
import type { ErrorCode } from "../protocol/server-message.ts"
import { TOO_MANY_FILTERS } from "./admission.ts"
import type { Audit } from "./audit.ts"
import type { Limits } from "./limits.ts"

type Of<Type extends ClientMessage["type"]> = Extract<ClientMessage, { type: Type }>
type Command = Exclude<ClientMessage, { type: "authenticate" }>

export interface CommandsDeps {
  hub: Hub
  limits: Limits
  audit: Audit
  fault(connection: Connection, code: ErrorCode, message: string, request?: string | number): void
}

export function createCommands({ hub, limits, audit, fault }: CommandsDeps): {
  /** What has an answer has it now, or after a replay. */
  obey(connection: Connection, command: Command): void
} {
  function busy(connection: Connection, request: string | number | undefined): void {
    fault(connection, "busy", "too much waits for the end of the replay: ask again later", request)
  }

  function subscribe(connection: Connection, command: Of<"subscribe">): void {
    const { channels = [], cursor, request } = command
    // Judged by the token of the moment in which it happens, which may be after a replay.
    const change = (joined: ReadonlySet<string>, identity: Identity) => {
      const forbidden = forbiddenOf(channels, identity.user, identity.rights)
      if (forbidden.length > 0) {
        audit.tell(connection, { event: "channels_refused", channels: forbidden })
        fault(connection, "forbidden_channel", `not allowed: ${forbidden.join(", ")}`.slice(0, 300), request)
        return undefined
      }
      const all = new Set([...joined, ...laneChannels(channels, identity.user)])
      if (!limits.allowsChannels(connection, all.size)) return undefined
      const filter = amendFilter(connection.filter, command)
      if (hub.crowded(identity, all, filter)) {
        fault(connection, "too_many_filters", TOO_MANY_FILTERS, request)
        return undefined
      }
      connection.filter = filter
      return all
    }
    const done = hub.rejoin(connection, change, cursor, (joined) => {
      connection.send({ type: "subscribed", channels, ...joined, request })
      audit.tell(connection, { event: "subscribed", channels })
    })
    if (!done) busy(connection, request)
  }

  function unsubscribe(connection: Connection, command: Of<"unsubscribe">): void {
    const { channels, request } = command
    const change = (joined: ReadonlySet<string>, identity: Identity) => {
      const unknown = channels.filter((channel) => !joined.has(channel))
      if (unknown.length === 0) return new Set([...joined].filter((channel) => !channels.includes(channel)))
      const own = unknown.includes(`user:${identity.user}`) ? " (the own user channel stays)" : ""
      fault(
        connection,
        "not_subscribed",
        `not subscribed: ${unknown.join(", ")}${own}`.slice(0, 300),
        request,
      )
      return undefined
    }
    const done = hub.rejoin(connection, change, undefined, ({ cursor }) => {
      connection.send({ type: "unsubscribed", channels, cursor, request })
      audit.tell(connection, { event: "unsubscribed", channels })
    })
    if (!done) busy(connection, request)
  }

  return {
    obey(connection, command) {
      switch (command.type) {
        case "ping":
          return connection.send({ type: "pong", at: new Date().toISOString(), request: command.request })
        case "pong":
          return
        case "subscribe":
          return subscribe(connection, command)
        case "unsubscribe":
          return unsubscribe(connection, command)
      }
    },
  }
}

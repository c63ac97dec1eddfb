/** What the compiler knows of a feed's events. It is checked by tsc; that it runs shows only that it is there. */

import t from "tap"
import type { Feed } from "../../client/client.ts"
import type * as client from "../../client/messages.ts"
import type { Change } from "../../client/types.ts"
import type * as relay from "../../relay/protocol/server-message.ts"

interface Vote {
  id: number
  votes: number
}
interface Ballot {
  id: string
}

/** Compiles if both are the same type. */
const same = <A, B>(
  equal: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false,
) => equal

function typed(feed: Feed<{ voting_update: Vote; ballot_update: Ballot }>): void {
  feed.on("voting_update", (change) => {
    same<typeof change.type, "voting_update">(true)
    if (change.oversize) {
      same<typeof change.data, null>(true)
      same<typeof change.action, "create" | "update" | "delete">(true)
    } else if (change.action === "update") {
      same<typeof change.data, Vote>(true)
      same<typeof change.before, Partial<Vote>>(true)
      same<typeof change.changed, string[]>(true)
    }
    // @ts-expect-error only an update has what was before
    change.before
    // @ts-expect-error of a row that left, only the key is told
    if (change.action === "leave") change.data
    if (change.action === "bulk_load") same<typeof change.rows, number | undefined>(true)
  })
  feed.on("change", (change) => {
    if (change.type === "ballot_update" && change.action === "delete")
      same<typeof change.data, Ballot | null>(true)
  })
  feed.on("message", ({ payload, channel }) => {
    same<typeof payload, unknown>(true)
    same<typeof channel, string>(true)
  })
  feed.on("resync", ({ reason }) => same<"lineage" extends typeof reason ? true : false, true>(true))
  feed.on("state", (state) => {
    if (state.kind === "waiting") same<typeof state.delayMs, number>(true)
    // @ts-expect-error nobody waits while it is live
    if (state.kind === "live") state.delayMs
  })
  feed.on("error", ({ code }) => same<"token" extends typeof code ? true : false, true>(true))
  // @ts-expect-error there is no such type among the rows
  feed.on("guarantee_update", () => {})
}

function untyped(feed: Feed): void {
  feed.on("guarantee_update", (change) => {
    if (change.action === "create" && !change.oversize)
      same<typeof change.data, Record<string, unknown>>(true)
  })
  feed.on("anything", (change) => same<typeof change.id, string>(true))
}

/** Compiles if what is of the one type is of the other as well. */
const alike = <A, B>(
  equal: [A] extends [B]
    ? [B] extends [A]
      ? true
      : "not every second is a first"
    : "not every first is a second",
) => equal

t.test("the client's messages are those of the relay's schemas", async (t) => {
  alike<client.ChangeMessage, relay.ChangeMessage>(true)
  alike<client.ApplicationMessage, relay.ApplicationMessage>(true)
  alike<client.DerivedMessage, relay.DerivedMessage>(true)
  alike<client.ServerMessage, relay.ServerMessage>(true)
  alike<client.Reason, relay.Reason>(true)
  t.pass("the compiler has compared them")
})

t.test("events have the types of the caller's rows", async (t) => {
  t.type(typed, "function")
  t.type(untyped, "function")
  same<Extract<Change, { action: "leave" }>["key"], Record<string, unknown>>(true)
})

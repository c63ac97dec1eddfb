/** The client library on real sockets, with everything that it told kept in order. */

import type { Test } from "tap"
import { WebSocket } from "ws"
import { LONGEST_MS } from "../../client/backoff.ts"
import { connect, type Feed, type Options } from "../../client/client.ts"
import type { FeedError } from "../../client/error.ts"
import type { Kind, State } from "../../client/state.ts"
import type { AnyRows, ChangeOf, FeedEvents } from "../../client/types.ts"
import type { ApplicationMessage } from "../../relay/protocol/server-message.ts"
import { type TestRelay, token } from "./relay.ts"
import { DEADLINE_MS, until } from "./wait.ts"

export interface TestFeed {
  feed: Feed
  changes: Array<ChangeOf<AnyRows>>
  messages: ApplicationMessage[]
  /** Every state that it came to. */
  states: State[]
  resyncs: FeedEvents<AnyRows>["resync"]["reason"][]
  errors: FeedError[]
  /** The ids of the rows of the changes, in order. */
  rows(): number[]
  /** Waits as long as changes come; without one so long that it has tried again meanwhile. */
  wait(what: string, condition: () => boolean): Promise<void>
  /** Waits for a state. */
  reaches(kind: Kind): Promise<void>
  /** Waits until it came to a state so often. */
  came(kind: Kind, times: number): Promise<void>
  /** Waits for so many changes. */
  count(changes: number): Promise<void>
}

/** Opens a feed with ws, closed with the test. */
export function openFeed(t: Test, options: Partial<Options> & Pick<Options, "url">): TestFeed {
  const held = options.getToken === undefined ? { token: token() } : {}
  const feed = connect({ WebSocket, page: {}, ...held, ...options })
  t.teardown(() => feed.close())
  const changes: TestFeed["changes"] = []
  const messages: TestFeed["messages"] = []
  const states: TestFeed["states"] = []
  const resyncs: TestFeed["resyncs"] = []
  const errors: TestFeed["errors"] = []
  feed.on("change", (change) => changes.push(change))
  feed.on("message", (message) => messages.push(message))
  feed.on("state", (state) => states.push(state))
  feed.on("resync", ({ reason }) => resyncs.push(reason))
  feed.on("error", (error) => errors.push(error))
  const seen = () =>
    `${states.map(({ kind }) => kind).join(" ")}; ${changes.length} changes; ${errors.map(String).join("; ")}`.slice(
      -600,
    )
  async function wait(what: string, condition: () => boolean): Promise<void> {
    while (!condition()) {
      const known = changes.length
      const goesOn = () => condition() || changes.length > known
      await until(what, goesOn, LONGEST_MS + DEADLINE_MS).catch((error: Error) => {
        throw new Error(`${error.message}; ${seen()}`)
      })
    }
  }
  return {
    feed,
    changes,
    messages,
    states,
    resyncs,
    errors,
    rows: () => changes.map((change) => Number("data" in change ? change.data?.id : 0)),
    wait,
    reaches: (kind) => wait(`the state ${kind}`, () => feed.state.kind === kind),
    came: (kind, times) =>
      wait(`${kind} ${times} times`, () => states.filter((state) => state.kind === kind).length >= times),
    count: (wanted) => wait(`${wanted} changes`, () => changes.length >= wanted),
  }
}

/** A feed of this relay, live. */
export async function followRelay(
  t: Test,
  relay: TestRelay,
  options: Partial<Options> = {},
): Promise<TestFeed> {
  const follower = openFeed(t, { url: relay.url, ...options })
  await follower.reaches("live")
  return follower
}

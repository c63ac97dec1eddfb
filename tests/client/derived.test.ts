/** What is derived, in the client library; and the few lines by which an application clears a cache of its own. */

import t from "tap"
import type { DerivedMessage } from "../../relay/protocol/server-message.ts"
import { database } from "../helpers/database.ts"
import { openFeed } from "../helpers/feed.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.test(
  "what is derived is told apart from changes, again after each reconnect, and moves no place",
  async (t) => {
    const db = await database(t)
    await db.query(
      "select relay.define_derived('voting_update', 'election_results', '{vote}', 'election', action => 'results')",
    )
    const relay = await startRelay(t, db)
    const proxy = await startProxy(t, Number(new URL(relay.url).port))
    const { feed, changes, errors, reaches, came, count } = openFeed(t, {
      url: `http://127.0.0.1:${proxy.port}`,
    })
    const derived: DerivedMessage[] = []
    feed.on("derived", (message) => derived.push(message))
    await reaches("live")
    await until("the first value", () => derived.length > 0)
    t.match(derived[0], {
      type: "voting_update",
      action: "results",
      channel: "election:1",
      data: { votes: 0 },
    })
    await db.query("insert into vote (election_id, candidate_id, votes) values (1, 2, 42)")
    await count(1)
    const votes = () => (derived.at(-1) as { data: { votes: number } } | undefined)?.data.votes
    await until("the value that differs", () => votes() === 42)
    const told = derived.length
    proxy.cut()
    await came("live", 2)
    await until("the value that stands", () => derived.length > told)
    t.equal(votes(), 42)
    t.equal(changes.length, 1)
    t.same(errors, [])
  },
)

t.test("a cache that the changes clear never serves what is out of date for long", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const { feed, reaches } = openFeed(t, { url: relay.url })
  const cache = new Map<string, unknown>()
  // As in docs/CLIENT.md.
  feed.on("change", ({ table }) => cache.delete(table))
  feed.on("resync", () => cache.clear())
  const total = async () => {
    if (!cache.has("public.vote")) {
      const [row] = await db.query<{ sum: string }>("select coalesce(sum(votes), 0) as sum from vote")
      cache.set("public.vote", Number(row?.sum))
    }
    return cache.get("public.vote")
  }
  await reaches("live")
  t.equal(await total(), 0)
  t.equal(await total(), 0)
  t.equal(cache.size, 1, "it is a cache")
  await db.query("insert into vote (votes) values (5)")
  await until("it is cleared by an insert", async () => (await total()) === 5)
  await db.query("update vote set votes = 6")
  await until("by an update", async () => (await total()) === 6)
  await db.query(
    "insert into guarantee default values; begin; set local relay.bulk_load = 'summary'; insert into vote (votes) values (1); commit",
  )
  await until("by a bulk load that is told", async () => (await total()) === 7)
  await db.query("truncate vote")
  await until("by truncate", async () => (await total()) === 0)
  await db.query("begin; set local relay.bulk_load = 'on'; insert into vote (votes) values (9); commit")
  await db.query("select relay.begin_lineage()")
  await until("by word that changes may have been missed", async () => (await total()) === 9)
  t.pass()
})

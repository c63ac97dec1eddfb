/** Whatever a connection was granted, another can begin with. */

import t, { type Test } from "tap"
import { database } from "../helpers/database.ts"
import { startRelay, token } from "../helpers/relay.ts"

const start = async (t: Test, settings: Record<string, string> = {}) => {
  const db = await database(t)
  return { db, relay: await startRelay(t, db, settings) }
}

t.test("a channel with a comma is one in a frame and in a URL", async (t) => {
  const { db, relay } = await start(t)
  await db.query(`
    create table note (id int primary key, room text);
    select relay.track('note', channels => '{"room": "room"}')`)
  const live = await relay.connect({}, "?channels=committee:1")
  live.send({ type: "subscribe", channels: ["room:a,b"], request: 1 })
  t.match(await live.first("the answer", ({ request }) => request === 1), { type: "subscribed" })
  const back = await relay.connect({}, "?channel=room:a%2Cb&channels=room:c,room:d")
  t.match(back.messages[0], { channels: ["room:a,b", "room:c", "room:d", "user:7"] })
  await db.query("insert into note values (1, 'a,b'), (2, 'b'), (3, 'd')")
  const ids = (changes: Array<{ key?: { id?: unknown } }>) => changes.map(({ key }) => key?.id)
  await live.count(1)
  await back.count(2)
  t.same([ids(live.changes()), ids(back.changes())], [["1"], ["1", "3"]])
  live.send({ type: "subscribe", types: ["note,vote"], request: 2 })
  t.match(await live.first("the answer", ({ request }) => request === 2), {
    code: "bad_message",
    message: "types.0: a type is a name without a comma",
  })
})

t.test("a user's own channel has whatever name the user has", async (t) => {
  const { db, relay } = await start(t)
  await db.query("create table note (id int primary key, user_id text); select relay.track('note')")
  const names = ["Doe, Jane", "urn:user:7", "auth0|7", "ü\n😀", "x".repeat(128)]
  for (const [id, sub] of names.entries()) {
    const name = `user:${sub}`
    const client = await relay.connect({ sub }, `?${new URLSearchParams({ channel: name })}`)
    t.same(client.messages[0]?.channels, [name])
    client.send({ type: "subscribe", channels: [name], request: 1 })
    t.match(await client.first("the answer", ({ request }) => request === 1), { type: "subscribed" }, sub)
    await db.query("insert into note values ($1, $2)", [id, sub])
    t.match(await client.count(1), [{ data: { id, user_id: sub } }])
    client.send({ type: "subscribe", channels: ["user:else"], request: 2 })
    t.match(await client.first("the answer", ({ request }) => request === 2), { code: "forbidden_channel" })
  }
  for (const none of ["room:a b", "room:a:b", "room:", ":a", "Room:a", "user:", `user:${"x".repeat(129)}`]) {
    const path = `/ws?${new URLSearchParams({ channel: none, token: token() })}`
    await t.rejects(relay.open(path), { message: /400/ }, none)
  }
})

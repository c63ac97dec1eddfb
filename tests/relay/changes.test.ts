/** What a client sees of the three tables: the journeys that the first users named. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { startRelay } from "../helpers/relay.ts"

t.test("a guarantee created, updated and deleted is seen with its whole row each time", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  await db.query("insert into guarantee (committee_id, voter_name) values (3, 'Ada')")
  await db.query("update guarantee set status = 'confirmed'")
  await db.query("delete from guarantee")
  const [created, updated, deleted] = await client.count(3)
  t.match(created, {
    type: "guarantee_update",
    action: "create",
    table: "public.guarantee",
    key: { id: "1" },
    data: { id: 1, committee_id: 3, voter_name: "Ada", status: "pledged" },
    channels: ["election_updates", "committee:3"],
  })
  t.match(updated, {
    action: "update",
    key: { id: "1" },
    data: { voter_name: "Ada", status: "confirmed" },
    changed: ["status"],
    before: { status: "pledged" },
  })
  t.match(deleted, { action: "delete", key: { id: "1" }, data: { voter_name: "Ada", status: "confirmed" } })
  t.notOk("changed" in (deleted ?? {}), "a delete has no list of changes")
})

t.test("attendance marked and changed is seen", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  await db.query("insert into attendance (committee_id, voter_name) values (2, 'Bo')")
  await db.query("update attendance set present = false")
  const [marked, changed] = await client.count(2)
  t.match(marked, { type: "attendance_update", action: "create", data: { present: true } })
  t.match(changed, {
    type: "attendance_update",
    action: "update",
    data: { present: false },
    before: { present: true },
  })
})

t.test("a vote entered is seen on its election's and committee's channels and on no other", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const own = await relay.connect({}, "?channels=committee:7")
  const election = await relay.connect({}, "?channels=election:1")
  const other = await relay.connect({}, "?channels=committee:8")
  await db.query("insert into vote (election_id, committee_id, candidate_id, votes) values (1, 7, 2, 42)")
  await db.query("insert into vote (election_id, committee_id, candidate_id, votes) values (1, 8, 2, 1)")
  const vote = {
    type: "voting_update",
    action: "create",
    data: { election_id: 1, committee_id: 7, votes: 42 },
  }
  t.match((await own.count(1))[0], vote)
  t.match((await election.count(2))[0], vote)
  t.match((await other.count(1))[0], { data: { committee_id: 8 } })
  t.equal(own.changes().length, 1)
})

t.test("a bulk load under the flag is not seen, with summary one message a statement", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  await db.query(
    "begin; set local relay.bulk_load = 'on'; insert into vote (votes) select generate_series(1, 50); update vote set votes = 0; commit",
  )
  await db.query(
    "begin; set local relay.bulk_load = 'summary'; insert into vote (votes) select generate_series(1, 50); commit",
  )
  await db.query("insert into vote (votes) values (9)")
  const changes = await client.count(2)
  t.match(changes[0], { type: "voting_update", action: "bulk_load", operation: "insert" })
  t.match(changes[1], { action: "create", data: { votes: 9 } })
  t.equal(changes.length, 2)
})

t.test("changes of one transaction arrive together, the last one marked", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  const narrow = await relay.connect({}, "?channels=committee:1")
  await db.query(
    "begin; insert into vote (committee_id) values (1); insert into attendance (committee_id) values (2); insert into guarantee (committee_id) values (3); commit",
  )
  const all = await client.count(3)
  t.same(
    all.map((change) => change.tx?.last),
    [false, false, true],
  )
  t.equal(new Set(all.map((change) => change.tx?.id)).size, 1)
  t.same(
    (await narrow.count(1)).map((change) => change.tx?.last),
    [true],
    "the last that this connection sees",
  )
})

t.test(
  "a row that leaves a subscription is told by its key alone, one that enters as a create",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const from = await relay.connect({}, "?channels=committee:1")
    const to = await relay.connect({ committees: [2] })
    await db.query("insert into guarantee (committee_id, voter_name) values (1, 'Cy')")
    await db.query("update guarantee set committee_id = 2, voter_name = 'secret to 1'")
    const left = (await from.count(2))[1]
    t.match(left, { action: "leave", key: { id: "1" } })
    t.notOk("data" in (left ?? {}) || "before" in (left ?? {}) || "channels" in (left ?? {}))
    t.match((await to.count(1))[0], { action: "create", data: { committee_id: 2 } })
  },
)

t.test("values that a double cannot hold arrive as they were written", async (t) => {
  const db = await database(t)
  await db.query(
    "create table big (id bigint primary key, n numeric, committee_id bigint); select relay.track('big')",
  )
  const relay = await startRelay(t, db)
  const client = await relay.connect({ committees: ["9007199254740993"] })
  await db.query(
    "insert into big values (9223372036854775807, 12345678901234567890.123456789, 9007199254740993)",
  )
  await db.query("insert into big values (1, 1, 9007199254740992)")
  await db.query("update big set n = 0.1000000000000000055511151231257827 where id > 1")
  await client.count(2)
  const [created, updated] = client.texts.filter((text) => text.includes("big_update"))
  t.match(created, '"key":{"id":"9223372036854775807"}')
  t.match(created, '"n":12345678901234567890.123456789')
  t.match(updated, '"n":0.1000000000000000055511151231257827')
  t.match(updated, '"before":{"n":12345678901234567890.123456789}')
  t.equal(client.changes().length, 2, "the neighbour that rounds to the same double is another committee")
})

t.test(
  "a user's own channel brings rows and messages for that user alone, in order, whatever else is joined",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const seven = await relay.connect({ sub: "7" }, "?channels=committee:1")
    const eight = await relay.connect({ sub: "8" }, "?channels=committee:1")
    await db.query(`begin;
    insert into guarantee (committee_id, user_id) values (1, 7);
    update guarantee set committee_id = 2;
    select relay.send_to_user('7', '{"text": "hello"}');
    insert into vote (committee_id) values (1); commit`)
    const own = await seven.count(4)
    t.same(
      own.map((change) => change.action ?? change.type),
      ["create", "update", "message", "create"],
    )
    t.match(own[2], { channel: "user:7", payload: { text: "hello" } })
    t.same(
      (await eight.count(3)).map((change) => change.action),
      ["create", "leave", "create"],
    )
  },
)

/** Columns that only certain roles may see, over real sockets: live, by replay, and when the rule changes. */

import t, { type Test } from "tap"
import { ChangeMessage } from "../../relay/protocol/server-message.ts"
import type { Client, Received } from "../helpers/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { cursorNow } from "../helpers/log.ts"
import { metricOf, startRelay, type TestRelay, token } from "../helpers/relay.ts"

t.jobs = 3

/** What no client without the role may see anywhere in what it receives. */
const SECRET = "Ada Lovelace"
const TRACK = `select relay.track('guarantee', restricted => '{"admin": ["voter_name"], "clerk": ["voter_name", "note"]}')`

const start = async (t: Test, track = TRACK) => {
  const db = await database(t)
  await db.query("select relay.meet_lineage()")
  await db.query(track)
  return { db, relay: await startRelay(t, db) }
}

const query = (where: object, more = "") => `?where=${encodeURIComponent(JSON.stringify(where))}${more}`

/** Waits until everything that was committed so far has reached these clients, or passed them by. */
async function settle(db: Database, relay: TestRelay, ...clients: Client[]): Promise<void> {
  const witness = await relay.connect({}, "?channels=nobody:else")
  await db.query("select relay.broadcast('nobody:else', '1')")
  await witness.count(1)
  witness.socket.close()
  for (const client of clients) {
    const request = `${client.messages.length} settle`
    client.send({ type: "ping", request })
    await client.first("pong", (message) => message.request === request)
  }
}

const ended = (client: Client) =>
  client.first("the end", ({ type, replayed }) => type === "checkpoint" && replayed !== undefined)

const told = (client: Client) =>
  client.changes().map(({ action, key, changed, before }) => {
    const what = `${action} ${key?.id}`
    return changed === undefined ? what : `${what}: ${changed.join()} was ${JSON.stringify(before)}`
  })

const HAPPENING = `
  insert into guarantee (id, committee_id, user_id, voter_name, note) values (1, 7, 9, '${SECRET}', 'n');
  update guarantee set voter_name = '${SECRET}!';
  update guarantee set note = '${SECRET}', status = 'confirmed';
  update guarantee set note = 'm';
  update guarantee set id = 2, committee_id = 8, voter_name = '${SECRET}';
  delete from guarantee`
const MOVED = `id,committee_id,voter_name was {"id":1,"committee_id":7,"voter_name":"${SECRET}!"}`

/** Each statement a change, as a client sees it: those in committee 7 lose the row before it is deleted. */
const SIGHTS: Array<[who: string, claims: object, query: string, sight: string[]]> = [
  [
    "nobody in particular",
    {},
    "",
    [
      "create 1",
      'update 1: status was {"status":"pledged"}',
      'update 2: id,committee_id was {"id":1,"committee_id":7}',
      "delete 2",
    ],
  ],
  [
    "with another role",
    { roles: ["Admin", "admin "], role: "" },
    "?channels=committee:7",
    ["create 1", 'update 1: status was {"status":"pledged"}', "leave 1"],
  ],
  [
    "the row's own user, who may see no committee's",
    { sub: "9", committees: [7] },
    "?channels=hall:1",
    ["create 1", 'update 1: status was {"status":"pledged"}', "leave 1"],
  ],
  [
    "an admin, who may not see the note",
    { role: "admin" },
    "",
    [
      "create 1",
      `update 1: voter_name was {"voter_name":"${SECRET}"}`,
      'update 1: status was {"status":"pledged"}',
      `update 2: ${MOVED}`,
      "delete 2",
    ],
  ],
  [
    "staff",
    { is_staff: true },
    "?channels=committee:7",
    [
      "create 1",
      `update 1: voter_name was {"voter_name":"${SECRET}"}`,
      'update 1: status was {"status":"pledged"}',
      "leave 1",
    ],
  ],
  [
    "a clerk, who may see both",
    { roles: ["x", "clerk"] },
    "",
    [
      "create 1",
      `update 1: voter_name was {"voter_name":"${SECRET}"}`,
      'update 1: status,note was {"status":"pledged","note":"n"}',
      `update 1: note was {"note":"${SECRET}"}`,
      `update 2: ${MOVED}`,
      "delete 2",
    ],
  ],
]

function checkSights(t: Test, clients: Client[]): void {
  for (const [index, [who, claims, , sight]] of SIGHTS.entries()) {
    const client = clients[index] as Client
    t.same(told(client), sight, who)
    for (const frame of client.changes())
      t.ok(ChangeMessage.safeParse(frame).success, `${who}: ${JSON.stringify(frame)}`)
    const has = (column: string) => client.changes().some(({ data }) => data !== undefined && column in data)
    const may = { ...{ role: "", roles: [] as string[], is_staff: false }, ...claims }
    const clerk = may.roles.includes("clerk")
    t.equal(has("note"), clerk, who)
    t.equal(has("voter_name"), clerk || may.role === "admin" || may.is_staff, who)
    if (!has("voter_name")) t.notMatch(client.texts.join("\n"), SECRET, who)
  }
}

t.test("live, nobody without the role receives the column, in whatever is told", async (t) => {
  const { db, relay } = await start(t)
  const clients = await Promise.all(SIGHTS.map(([, claims, query]) => relay.connect({ ...claims }, query)))
  await db.query(HAPPENING.replaceAll(";", "; commit; begin;").replace("insert", "begin; insert"))
  await db.query("commit")
  await settle(db, relay, ...clients)
  checkSights(t, clients)
})

for (const source of ["memory", "log"]) {
  t.test(`nor by replay from the ${source}, whoever returned before`, async (t) => {
    const { db, relay: first } = await start(t)
    const cursor = await cursorNow(db)
    const witness = await first.connect({ role: "clerk" })
    await db.query(HAPPENING)
    await witness.count(6)
    const relay = source === "memory" ? first : await startRelay(t, db, { REPLAY_BUFFER_MB: "0.000001" })
    const clients: Client[] = []
    for (const [, claims, query] of [...SIGHTS, ...SIGHTS]) {
      const client = await relay.connect({ ...claims }, `${query || "?"}&cursor=${cursor}`)
      await ended(client)
      clients.push(client)
    }
    checkSights(t, clients.slice(0, SIGHTS.length))
    checkSights(t, clients.slice(SIGHTS.length))
    t.equal(await metricOf(relay, "relay_resume_total", `result="${source}"`), 2 * SIGHTS.length)
  })
}

t.test("a filter on a hidden column is one on a column that is not there", async (t) => {
  const { db, relay } = await start(t)
  const conditions: object[] = [
    ...[{ eq: SECRET }, { eq: null }, { neq: SECRET }, { neq: null }, { in: [SECRET, "b"] }],
    ...[{ gt: "" }, { gte: "A" }, { lt: "z" }, { lte: SECRET }],
  ]
  const connect = (claims: object, column: string) =>
    Promise.all(conditions.map((condition) => relay.connect({ ...claims }, query({ [column]: condition }))))
  const [hidden, missing, seen] = [
    await connect({}, "voter_name"),
    await connect({}, "no_such_column"),
    await connect({ role: "admin" }, "voter_name"),
  ]
  await db.query(`
    insert into guarantee (id, voter_name) values (1, '${SECRET}'), (2, null), (3, 'b');
    insert into vote (id) values (4)`)
  await db.query(`update guarantee set voter_name = 'c', status = 'confirmed' where id = 1`)
  await db.query("update guarantee set voter_name = 'd' where id = 3")
  for (const id of [1, 2, 3]) await db.query("delete from guarantee where id = $1", [id])
  await settle(db, relay, ...hidden, ...missing, ...seen)
  for (const [index, condition] of conditions.entries())
    t.same(hidden[index]?.changes(), missing[index]?.changes(), JSON.stringify(condition))
  t.same(told(seen[0] as Client), ["create 1", "leave 1"], "who may see it filters by it")
  t.same(told(hidden[0] as Client), [])
  t.same(told(hidden[1] as Client), [
    ...["create 1", "create 2", "create 3", "create 4"],
    ...['update 1: status was {"status":"pledged"}', "delete 1", "delete 2", "delete 3"],
  ])
})

t.test("what a client is not told moves its position all the same", async (t) => {
  const { db, relay } = await start(t)
  const client = await relay.connect()
  await db.query("insert into guarantee (id, voter_name) values (1, 'a')")
  await client.count(1)
  await db.query("update guarantee set voter_name = 'b'")
  const cursor = await cursorNow(db)
  await settle(db, relay, client)
  client.send({ type: "unsubscribe", channels: ["election_updates"], request: "where" })
  const { cursor: position } = await client.first("the answer", ({ request }) => request === "where")
  t.equal(client.changes().length, 1)
  t.not(position, client.messages[0]?.cursor)
  const [row] = await db.query<{ it: boolean }>(
    "select relay.contains($1::pg_snapshot, $2::pg_snapshot) as it",
    [String(position).split(":").slice(1).join(":"), cursor.split(":").slice(1).join(":")],
  )
  t.equal(row?.it, true)
})

t.test(
  "a renewal gives and takes columns at the answer, also where one lane lies beside the other",
  async (t) => {
    const { db, relay } = await start(t)
    const client = await relay.connect()
    const other = await relay.connect({ role: "admin" })
    const renew = async (claims: object) => {
      const request = JSON.stringify(claims)
      client.send({ type: "authenticate", token: token({ ...claims }), request })
      await client.first(
        "the answer",
        (message) => message.request === request && message.type === "authenticated",
      )
    }
    let n = 0
    const name = async () => {
      await db.query(`insert into guarantee (id, voter_name) values (${++n}, '${n}')`)
      return (await client.count(n)).at(-1)?.data?.voter_name
    }
    t.equal(await name(), undefined)
    await renew({ roles: ["admin"] })
    t.equal(await name(), "2")
    await renew({ roles: ["clerk"] })
    t.equal(await name(), "3")
    await renew({ roles: ["teller"] })
    t.equal(await name(), undefined)
    t.same(
      (await other.count(4)).map(({ data }) => data?.voter_name),
      ["1", "2", "3", "4"],
    )
  },
)

t.test("a stricter rule: everybody loads anew, and what was logged before is sent to nobody", async (t) => {
  const { db, relay } = await start(t, "select relay.track('guarantee')")
  const cursor = await cursorNow(db)
  const clients = [await relay.connect(), await relay.connect({ role: "admin" })]
  await db.query(`insert into guarantee (id, voter_name) values (1, '${SECRET}')`)
  for (const client of clients) t.equal((await client.count(1))[0]?.data?.voter_name, SECRET)
  await db.query(TRACK)
  for (const client of clients) t.equal((await client.closed).code, 4010)
  const fresh = await startRelay(t, db)
  for (const server of [relay, fresh]) {
    await server.relay.whenReady()
    const back = await server.connect({}, `?cursor=${cursor}`)
    t.match(back.messages[0], { recovered: false, reason: "lineage" })
    const [lineage] = String(back.messages[0]?.cursor).split(":")
    const forged = await server.connect({}, `?cursor=${[lineage, ...cursor.split(":").slice(1)].join(":")}`)
    t.match(forged.messages[0], { recovered: false, reason: "too_old" }, "not by a cursor that is made up")
    const admin = await server.connect({ role: "admin" }, `?cursor=${cursor}`)
    const since = await cursorNow(db)
    await db.query(
      `update guarantee set voter_name = '${SECRET}!', note = 'n'; delete from guarantee; insert into guarantee (id, voter_name) values (1, '${SECRET}')`,
    )
    const again = await server.connect({}, `?cursor=${since}`)
    await settle(db, server, back, forged, admin, again)
    t.same(told(admin), [`update 1: voter_name was {"voter_name":"${SECRET}"}`, "delete 1", "create 1"])
    for (const client of [back, forged, again]) {
      t.same(told(client), ["delete 1", "create 1"])
      t.notMatch(client.texts.join("\n"), SECRET)
    }
  }
})

t.test("a looser rule cuts off nobody, and holds for what is written from then on", async (t) => {
  const { db, relay } = await start(t)
  const cursor = await cursorNow(db)
  const client = await relay.connect()
  await db.query("insert into guarantee (id, voter_name) values (1, 'a')")
  await client.count(1)
  await db.query("select relay.track('guarantee', restricted => '{}')")
  await db.query("insert into guarantee (id, voter_name) values (2, 'b')")
  const names = (changes: Received[]) => changes.map(({ data }) => data?.voter_name)
  t.same(names(await client.count(2)), [undefined, "b"])
  const back = await relay.connect({}, `?cursor=${cursor}`)
  await ended(back)
  t.same(names(back.changes()), [undefined, "b"])
})

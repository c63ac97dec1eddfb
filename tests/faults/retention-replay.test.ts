/** Clients that return, slowly and again and again, while the log is rotated: each has everything, or was told. */

import type pg from "pg"
import t, { type Test } from "tap"
import { createChangelog } from "../../relay/feed/changelog.ts"
import { type Client, type Received, unlessClosed } from "../helpers/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { newSeed, type Random, random } from "../helpers/random.ts"
import { startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const ROTATIONS = 60
const CLIENTS = 8

interface Run {
  /** What everybody goes by, in place of time. */
  beats: number
  rotations: number
  refused: number
  over: boolean
  /** The row after which none comes. */
  last: string | undefined
}

/** What a client knows: the guarantees that exist, and the newest number of each vote. */
interface Known {
  guarantees: Set<string>
  votes: Map<string, number>
  cursor: string | undefined
  continued: number
  replayed: number
  /** How often it was told why not, by reason or close code. */
  told: Map<string, number>
}

const passed = (run: Run, beats: number) => {
  const wanted = run.beats + beats
  return until(`${beats} beats`, () => run.over || run.beats >= wanted)
}

const count = (known: Known, why: string) => known.told.set(why, (known.told.get(why) ?? 0) + 1)

function learn(known: Known, { type, table, key, data, cursor }: Received): void {
  if (type === "guarantee_update") known.guarantees.add(String(key?.id))
  if (type === "voting_update" && table !== undefined) {
    const id = String(key?.id)
    known.votes.set(id, Math.max(known.votes.get(id) ?? 0, Number(data?.votes)))
  }
  if (cursor !== undefined) known.cursor = cursor
}

/** The tables as they are, added to what came since the connection began. */
async function load(known: Known, session: pg.Client, before: Known): Promise<void> {
  const guarantees = await session.query<{ id: string }>("select id::text from guarantee")
  const votes = await session.query<{ id: string; votes: number }>("select id::text, votes from vote")
  // Whatever it knew before counts no more: a loss must not hide behind an older state.
  known.guarantees = new Set([...before.guarantees, ...guarantees.rows.map(({ id }) => id)])
  known.votes = new Map(before.votes)
  for (const { id, votes: number } of votes.rows)
    known.votes.set(id, Math.max(number, known.votes.get(id) ?? 0))
}

/** One visit. @returns whether the end came while it was there. */
async function visit(
  run: Run,
  relay: TestRelay,
  known: Known,
  session: pg.Client,
  chance: Random,
): Promise<boolean> {
  const query = known.cursor === undefined ? "" : `?cursor=${encodeURIComponent(known.cursor)}`
  let client: Client
  try {
    client = await relay.open(`/ws${query}`, { headers: { authorization: `Bearer ${token()}` } })
  } catch {
    // Not ready: 503 before the upgrade.
    count(known, "503")
    return false
  }
  let closed: number | undefined
  const closing = client.closed.then(({ code }) => {
    closed = code
  })
  if (chance.oneIn(3)) {
    client.socket.pause()
    await passed(run, chance.below(30))
    client.socket.resume()
  }
  const greeting = await unlessClosed(
    client,
    client.first("a greeting", ({ type }) => type === "connection_success"),
  )
  let read = 0
  const take = () => {
    for (; read < client.messages.length; read++) learn(known, client.messages[read] as Received)
  }
  if (greeting !== undefined && greeting.recovered !== true) {
    count(known, String(greeting.reason))
    const fresh = { ...known, guarantees: new Set<string>(), votes: new Map<string, number>() }
    for (const message of client.messages) learn(fresh, message)
    read = client.messages.length
    known.cursor = fresh.cursor
    await load(known, session, fresh)
  } else if (greeting !== undefined) {
    const end = await unlessClosed(
      client,
      client.first(
        "the end of the replay",
        ({ type, replayed }) => type === "checkpoint" && replayed != null,
      ),
    )
    if (end !== undefined) {
      known.continued++
      known.replayed += Number(end.replayed)
    }
  }
  if (run.last === undefined) await Promise.race([passed(run, 1 + chance.below(10)), closing])
  else
    await until("the last change", () => {
      take()
      return closed !== undefined || known.guarantees.has(String(run.last))
    })
  take()
  if (closed !== undefined) count(known, String(closed))
  client.socket.terminate()
  return run.last !== undefined && known.guarantees.has(run.last)
}

async function write(run: Run, session: pg.Client, chance: Random): Promise<void> {
  while (!run.over) {
    for (let n = 0; n < 4; n++) {
      await session.query("begin")
      await session.query(
        `insert into guarantee (note) select repeat('x', 200) from generate_series(1, ${1 + chance.below(10)})`,
      )
      await session.query(`update vote set votes = votes + 1 where id = ${1 + chance.below(20)}`)
      if (chance.oneIn(8)) {
        const { rotations, refused } = run
        // It may hold up another transaction that holds up the rotation.
        await until(
          "two rotations",
          () => run.over || run.rotations >= rotations + 2 || run.refused > refused,
        )
      }
      await session.query(chance.oneIn(5) ? "rollback" : "commit")
    }
    await passed(run, 1)
  }
}

async function rotations(t: Test, db: Database, run: Run): Promise<void> {
  const changelog = createChangelog(db.url, () => {})
  t.teardown(() => changelog.close())
  while (run.rotations < ROTATIONS) {
    await db.query("insert into guarantee (note) values ('beat')")
    await db.query("insert into guarantee (note) values ('beat')")
    run.beats++
    // A few in a row, then some time for those who are quick.
    if (run.beats % 160 > 8 && run.beats % 20 !== 0) continue
    if ((await changelog.rotate(0, 0)) === "done") run.rotations++
    else run.refused++
  }
}

t.test("clients that return while the log is rotated have everything, or were told", async (t) => {
  const seed = newSeed()
  t.comment(`seed ${seed} (COMMITCAST_TEST_SEED)`)
  const db = await database(t)
  await db.query("insert into vote (votes) select 0 from generate_series(1, 20)")
  const relay = await startRelay(t, db, { REPLAY_BUFFER_MB: "0.01" })
  const run: Run = { beats: 0, rotations: 0, refused: 0, over: false, last: undefined }
  const known = Array.from(
    { length: CLIENTS },
    (): Known => ({
      guarantees: new Set(),
      votes: new Map(),
      cursor: undefined,
      continued: 0,
      replayed: 0,
      told: new Map(),
    }),
  )
  const writers = Array.from({ length: 3 }, async (_, n) => write(run, await db.session(), random(seed + n)))
  const clients = known.map(async (one, n) => {
    const chance = random(seed + 10 + n)
    const session = await db.session()
    while (!(await visit(run, relay, one, session, chance)))
      if (run.last === undefined) await passed(run, chance.below(chance.oneIn(6) ? 80 : 6))
  })
  await rotations(t, db, run)
  run.over = true
  await Promise.all(writers)
  const [last] = await db.query<{ id: string }>(
    "insert into guarantee (note) values ('last') returning id::text",
  )
  run.last = last?.id
  await Promise.all(clients)

  const guarantees = await db.query<{ id: string }>("select id::text from guarantee")
  const votes = await db.query<{ id: string; votes: number }>("select id::text, votes from vote")
  for (const one of known) {
    const said = `continued ${one.continued} times with ${one.replayed} changes; told ${JSON.stringify([...one.told])}`
    const lost = [
      ...guarantees.filter(({ id }) => !one.guarantees.has(id)).map(({ id }) => `guarantee ${id}`),
      ...votes.filter(({ id, votes: n }) => one.votes.get(id) !== n).map(({ id }) => `vote ${id}`),
    ]
    t.same(lost, [], said)
    t.equal(one.guarantees.size, guarantees.length, "nothing that was rolled back")
    for (const why of one.told.keys())
      t.ok(["no_cursor", "too_old", "4010", "4011", "503"].includes(why), `told ${why}`)
  }
  const told = (why: string) => known.reduce((sum, one) => sum + (one.told.get(why) ?? 0), 0)
  t.ok(told("too_old") > 0, "some were too late")
  t.ok(known.reduce((sum, one) => sum + one.replayed, 0) > 0, "some were not")
})

/** Whatever fails, every committed change reaches a client of the library exactly once, or it is told to load anew. */

import t, { type Test } from "tap"
import { startCrowd } from "../helpers/crowd.ts"
import { database } from "../helpers/database.ts"
import { type Follower, follow } from "../helpers/follower.ts"
import { rotate } from "../helpers/log.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 2

const portOf = (url: string) => Number(new URL(url).port)

/** Waits until so many more transactions were committed and the follower has more changes. */
async function goOn(crowd: { committed(): number }, followers: Follower[], more = 40): Promise<void> {
  const from = crowd.committed()
  const had = followers.map(({ changes }) => changes.length)
  await until("the writers go on", () => crowd.committed() >= from + more)
  for (const [i, { changes, wait }] of followers.entries())
    await wait(`follower ${i} goes on`, () => changes.length > (had[i] ?? 0))
}

const allLive = (followers: Follower[]) => Promise.all(followers.map((follower) => follower.reaches("live")))

async function wholeAndNeverLost(t: Test, followers: Follower[]): Promise<void> {
  for (const [i, follower] of followers.entries()) {
    await follower.isWhole(t, `follower ${i}`)
    t.equal(follower.loads(), 1, "nothing had to be loaded again")
    t.same(follower.resyncs, ["no_cursor"])
  }
}

t.test("its database sessions are terminated again and again", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const followers = [follow(t, relay.url, db.url), follow(t, relay.url, db.url)]
  await allLive(followers)
  const crowd = await startCrowd(t, db.url, { twoPhase: 1 })
  const superuser = await db.session(db.superuserUrl)
  let terminated = 0
  for (let round = 0; round < 6; round++) {
    await goOn(crowd, followers)
    const { rowCount } = await superuser.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'commitcast%' and datname = $1",
      [db.name],
    )
    terminated += rowCount ?? 0
  }
  t.ok(terminated >= 6, `${terminated} sessions`)
  await goOn(crowd, followers)
  await crowd.stop()
  await wholeAndNeverLost(t, followers)
})

t.test("lines that are slow, narrow, and cut in the middle of frames", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const [cutting, narrow, slow] = [
    await startProxy(t, portOf(relay.url)),
    await startProxy(t, portOf(relay.url)),
    await startProxy(t, portOf(relay.url)),
  ]
  narrow.limit(500_000)
  slow.delay(150)
  const followers = [cutting, narrow, slow].map(({ port }) => follow(t, `http://127.0.0.1:${port}`, db.url))
  await allLive(followers)
  const crowd = await startCrowd(t, db.url)
  for (let round = 0; round < 5; round++) {
    await goOn(crowd, followers)
    cutting.cutAfter(1 + Math.floor(Math.random() * 30_000))
    await followers[0]?.came("waiting", round + 1)
    cutting.heal()
    await followers[0]?.reaches("live")
  }
  await crowd.stop()
  narrow.heal()
  await wholeAndNeverLost(t, followers)
})

t.test("a client whose line is dead without a word", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { HEARTBEAT_SECONDS: "1" })
  const proxy = await startProxy(t, portOf(relay.url))
  const followers = [follow(t, `http://127.0.0.1:${proxy.port}`, db.url), follow(t, relay.url, db.url)]
  await allLive(followers)
  const crowd = await startCrowd(t, db.url)
  await goOn(crowd, followers)
  proxy.silence()
  await followers[0]?.came("live", 2)
  await goOn(crowd, followers)
  await crowd.stop()
  await wholeAndNeverLost(t, followers)
})

t.test("a relay whose lines to the database are dead without a word", async (t) => {
  const db = await database(t)
  const proxy = await startProxy(t, db.port)
  const relay = await startRelay(t, { url: db.url.replace(`:${db.port}`, `:${proxy.port}`) })
  const followers = [follow(t, relay.url, db.url)]
  await allLive(followers)
  const crowd = await startCrowd(t, db.url)
  await goOn(crowd, followers)
  proxy.silence()
  const had = followers[0]?.changes.length ?? 0
  await until("the feed is replaced", () => (followers[0]?.changes.length ?? 0) > had)
  await goOn(crowd, followers)
  await crowd.stop()
  await wholeAndNeverLost(t, followers)
})

t.test("rotations, with transactions open across them", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const proxy = await startProxy(t, portOf(relay.url))
  const followers = [follow(t, relay.url, db.url), follow(t, `http://127.0.0.1:${proxy.port}`, db.url)]
  await allLive(followers)
  const long = await db.session()
  await long.query("begin isolation level repeatable read; insert into vote (votes) values (7)")
  const crowd = await startCrowd(t, db.url, { long: 0 })
  const rotated = async () =>
    rotate(db).then(
      (slot) => slot !== null,
      () => false,
    )
  await until("a rotation before the open transaction holds them up", rotated)
  for (let round = 0; round < 5; round++) {
    await rotated()
    proxy.cut()
    await goOn(crowd, followers, 60)
  }
  await long.query("commit")
  await goOn(crowd, followers)
  for (let round = 0; round < 5; round++) {
    await until("a rotation", rotated)
    await goOn(crowd, followers, 60)
  }
  await crowd.stop()
  for (const [i, follower] of followers.entries()) await follower.isWhole(t, `follower ${i}`)
  // A neighbour's transaction that ended in the moment before a rotation is an honest reason to load again.
  const reasons = followers.flatMap(({ resyncs }) => resyncs)
  t.same(
    reasons.filter((reason) => reason !== "no_cursor" && reason !== "too_old"),
    [],
  )
})

t.test(
  "a client that does not read, beside the listener: nothing of the relay holds a snapshot",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const followers = [follow(t, relay.url, db.url)]
    const stalled = await relay.connect()
    await allLive(followers)
    stalled.socket.pause()
    const crowd = await startCrowd(t, db.url)
    await goOn(crowd, followers, 100)
    const superuser = await db.session(db.superuserUrl)
    // The feed reads every few milliseconds: what it holds, it holds for a moment only.
    const holders = new Map<number, number>()
    for (let look = 0; look < 20; look++) {
      const { rows } = await superuser.query<{ pid: number }>(
        "select pid from pg_stat_activity where application_name like 'commitcast%' and datname = $1 and backend_xmin is not null",
        [db.name],
      )
      for (const { pid } of rows) holders.set(pid, (holders.get(pid) ?? 0) + 1)
      await goOn(crowd, followers, 1)
    }
    t.ok(
      [...holders.values()].every((times) => times < 20),
      "no session of the relay pins the horizon",
    )
    await crowd.stop()
    await wholeAndNeverLost(t, followers)
  },
)

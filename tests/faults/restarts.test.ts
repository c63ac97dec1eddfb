/** Processes that die and clocks that step: each change reaches a client of the library once, or it is told to load anew. */

import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import t from "tap"
import { openClient } from "../helpers/client.ts"
import { ownCluster } from "../helpers/cluster.ts"
import { workDirectory } from "../helpers/command.ts"
import { type Crowd, startCrowd } from "../helpers/crowd.ts"
import { database } from "../helpers/database.ts"
import { fakedBy, NO_FAKETIME } from "../helpers/faketime.ts"
import { type Follower, follow } from "../helpers/follower.ts"
import { processOn } from "../helpers/process.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 2

/** Waits until more was committed and the follower has changes of it. */
async function goOn(crowd: Crowd, follower: Follower, more = 30): Promise<void> {
  const from = crowd.committed()
  const had = follower.changes.length
  await until("the writers go on", () => crowd.committed() >= from + more)
  await follower.wait("the follower goes on", () => follower.changes.length > had)
}

t.test("a relay that is killed with -9 and started again", async (t) => {
  const db = await database(t)
  const relay = await processOn(t, db.url)
  let running = await relay.start()
  const follower = follow(t, relay.url, db.url)
  await follower.reaches("live")
  const crowd = await startCrowd(t, db.url, { twoPhase: 1 })
  for (let round = 0; round < 3; round++) {
    await goOn(crowd, follower)
    running.child.kill("SIGKILL")
    await running.ended
    running = await relay.start()
    await follower.came("live", round + 2)
  }
  await goOn(crowd, follower)
  await crowd.stop()
  await follower.isWhole(t, "after three kills")
  t.equal(follower.loads(), 1, "nothing had to be loaded again")
})

t.test("a database that is shut down and started again", async (t) => {
  const cluster = await ownCluster(t)
  const relay = await startRelay(t, cluster)
  const follower = follow(t, relay.url, cluster.url)
  await follower.reaches("live")
  const crowd = await startCrowd(t, cluster.url)
  for (let round = 0; round < 2; round++) {
    await goOn(crowd, follower)
    await cluster.stop("fast")
    await cluster.start()
  }
  await goOn(crowd, follower)
  await crowd.stop()
  await follower.isWhole(t, "after two restarts")
  t.equal(follower.loads(), 1, "nothing had to be loaded again")
})

t.test("a database that crashes and recovers", async (t) => {
  const cluster = await ownCluster(t)
  const relay = await startRelay(t, cluster)
  const follower = follow(t, relay.url, cluster.url)
  await follower.reaches("live")
  const crowd = await startCrowd(t, cluster.url)
  await goOn(crowd, follower)
  await cluster.stop("immediate")
  await cluster.start()
  await until("it loads again", () => follower.loads() === 2)
  await goOn(crowd, follower)
  await crowd.stop()
  await follower.isWhole(t, "after a crash")
  t.same(follower.resyncs, ["no_cursor", "lineage"])
})

t.test("a clock that is set forward and back", { skip: NO_FAKETIME }, async (t) => {
  const db = await database(t)
  const clock = join(await workDirectory(t), "clock")
  await writeFile(clock, "+0")
  const relay = await processOn(t, db.url, fakedBy(clock))
  await relay.start()
  const follower = follow(t, relay.url, db.url)
  const watcher = await openClient(t, `${relay.url.replace("http", "ws")}/ws`, {
    headers: { authorization: `Bearer ${token({}, { expiresIn: "30 days" })}` },
  })
  await follower.reaches("live")
  const crowd = await startCrowd(t, db.url)
  for (const [round, [offset, seconds]] of (
    [
      ["+7200", 7_200],
      ["-7200", -7_200],
      ["+0", 0],
    ] as const
  ).entries()) {
    await writeFile(clock, offset)
    watcher.send({ type: "ping", request: round })
    const { at } = await watcher.first("pong", ({ request }) => request === round)
    const off = (Date.parse(String(at)) - Date.now()) / 1_000 - seconds
    t.ok(Math.abs(off) < 600, `the relay's clock is ${offset} s`)
    const marks = () => watcher.messages.filter(({ type }) => type === "ping" || type === "checkpoint").length
    const had = marks()
    await goOn(crowd, follower, 60)
    await until("heartbeats and checkpoints go on", () => marks() > had + 2)
  }
  await crowd.stop()
  await follower.isWhole(t, "after the clock was set")
  t.equal(follower.states.filter(({ kind }) => kind === "waiting").length, 0, "nobody was closed")
  t.equal(follower.loads(), 1)
})

/** The feed in orders of events that real servers rarely show: what comes in the middle of a read, and what ends there. */

import t from "tap"
import type { Change } from "../../relay/change/change.ts"
import { parseSnapshot, type Snapshot } from "../../relay/change/cursor.ts"
import type { FeedConsumer } from "../../relay/feed/batch.ts"
import { Feed } from "../../relay/feed/feed.ts"
import type { Head } from "../../relay/feed/head.ts"
import type { NumberedPage } from "../../relay/feed/log-pages.ts"
import type { Session } from "../../relay/feed/log-session.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"
import { readChange } from "../helpers/change.ts"
import { createTestClock, settled } from "../helpers/clock.ts"
import { createHolds } from "../helpers/holds.ts"

const FLOOR_MS = 1_000
const POLL_MS = 5
/** Longer than any pause after a session that was up. */
const RETRY_MS = 100

const snapshot = (xmax: bigint): Snapshot => parseSnapshot(`${xmax}:${xmax}:`) as Snapshot

const change = (seq: bigint, xid: bigint): Change =>
  readChange({
    seq: String(seq),
    xid: String(xid),
    at: "2026-11-03 20:00:00+00",
    table: "public.vote",
    op: "insert",
    type: "voting_update",
    old: null,
    new: `{"id":${seq}}`,
    meta: "{}",
  })

/** A log in memory, of transactions that commit one after another. What it shows is of the moment of the call. */
function createFakeLog() {
  const holds = createHolds()
  const entries: Array<{ xid: bigint; change?: Change; canary?: string }> = []
  const log = {
    ...holds,
    lineage: "a",
    lineages: new Set(["a"]),
    horizon: 1n,
    leaseMs: null as number | null,
    xmax: 5n,
    /** Commits so many changes in one transaction. @returns its id. */
    commit(count: number): string {
      for (let n = 0; n < count; n++)
        entries.push({ xid: log.xmax, change: change(BigInt(entries.length + 1), log.xmax) })
      return String(log.xmax++)
    },
    canary(canary: string): void {
      entries.push({ xid: log.xmax++, canary })
    },
    async open(): Promise<Session> {
      await holds.pass("open")
      return session(log.lineage, new Set(log.lineages))
    },
  }

  const head = (): Head => ({
    snapshot: snapshot(log.xmax),
    horizon: snapshot(log.horizon),
    leaseMs: log.leaseMs,
  })

  const session = (lineage: string, lineages: ReadonlySet<string>): Session => ({
    lineage,
    lineages,
    async read(since, limit) {
      const found = entries.filter(({ xid }) => xid >= since.xmax)
      const page = { head: head(), ...contentOf(found.slice(0, limit)), cut: found.length > limit }
      await holds.pass(limit === 0 ? "begin" : "read")
      return page
    },
    async *pages(since, size): AsyncGenerator<NumberedPage> {
      const found = entries.filter(({ xid }) => xid >= since.xmax)
      const shown = head()
      const newest = BigInt(entries.length)
      for (let from = 0; from < found.length; from += size) {
        await holds.pass("page")
        const final = from + size >= found.length
        yield { head: shown, newest, ...contentOf(found.slice(from, from + size)), last: undefined, final }
      }
      await holds.pass("end of pages")
    },
    now: async () => snapshot(log.xmax),
    revocations: async () => [],
    async lease(durationMs) {
      await holds.pass("lease")
      log.leaseMs = durationMs
    },
    async endLease() {
      await holds.pass("end lease")
      if ((log.leaseMs ?? 0) > 0) return false
      log.leaseMs = null
      return true
    },
    async fence() {
      await holds.pass("fence")
      return log.xmax
    },
    close: () => void holds.pass("close"),
  })
  return log
}

const contentOf = (entries: Array<{ change?: Change; canary?: string }>) => ({
  changes: entries.flatMap(({ change }) => change ?? []),
  revocations: [],
  canaries: entries.flatMap(({ canary }) => canary ?? []),
})

/** A feed of such a log, what its consumer saw of it, and the clock that both go by. */
function createWorld() {
  const clock = createTestClock()
  const log = createFakeLog()
  const metrics = createMetrics()
  const deliveries = createHolds()
  const seen: string[] = []
  const consumer: FeedConsumer = {
    hasClients: () => true,
    async deliver({ changes, cursor, first, final }) {
      const [from, to] = [changes[0]?.id ?? "", changes.at(-1)?.id ?? ""]
      seen.push(`${first ? "" : "+"}${from === to ? from : `${from}-${to}`}${final ? "." : ""}`)
      await deliveries.pass(cursor.lineage)
    },
    showDerived() {},
    adopt: (lineage) => void seen.push(`adopt ${lineage}`),
    begin: (cursor) => void seen.push(`begin ${cursor.snapshot.xmax}`),
    lost: () => void seen.push("lost"),
    reset: () => void seen.push("reset"),
  }
  const feed = new Feed({
    changelog: log,
    consumer,
    log: createLog({ LOG_LEVEL: "silent", LOG_FORMAT: "json" }),
    metrics,
    onCanaries: (canaries) => seen.push(...canaries),
    bell: "adaptive",
    floorMs: FLOOR_MS,
    clock,
  })
  const reads = () => log.calls.filter((call) => call === "read").length
  return { clock, log, metrics, deliveries, seen, feed, reads }
}

/** The same, when it has come to rest: it waits for a bell. */
async function createQuietWorld() {
  const world = createWorld()
  world.feed.start()
  await world.clock.pass(50)
  t.equal(world.feed.bell.mode, "quiet")
  t.same(world.seen.splice(0), ["adopt a", "begin 5"])
  world.log.calls.length = 0
  return world
}

t.test("a bell in the middle of a read makes it read again", async (t) => {
  const { log, feed, seen, reads } = await createQuietWorld()
  const read = log.next("read")
  feed.rang(log.commit(1))
  await read.reached
  feed.rang(log.commit(1))
  read.release()
  await settled()
  t.same(seen, ["1.", "2."])
  t.equal(reads(), 2)
})

t.test("bells in the middle of a read make it read once more, whether it is delivering or not", async (t) => {
  const { log, feed, seen, reads, deliveries } = await createQuietWorld()
  const delivery = deliveries.next("a")
  feed.rang(log.commit(1))
  await delivery.reached
  feed.rang(log.commit(1))
  feed.rang(log.commit(1))
  delivery.release()
  await settled()
  t.same(seen, ["1.", "2-3."])
  t.equal(reads(), 2)
})

t.test("without a bell it reads when the floor's time is over, and says why it read", async (t) => {
  const { clock, log, feed, seen, metrics } = await createQuietWorld()
  log.commit(1)
  await clock.pass(FLOOR_MS - 100)
  t.same(seen, [])
  await clock.pass(100)
  t.same(seen, ["1."])
  const { polls, skipped, heard } = feed.bell
  t.same({ skipped, heard }, { skipped: 0, heard: 0 }, "its bell may still come")
  const why = async (label: string) =>
    (await metrics.reads.get()).values.find(({ labels }) => labels.why === label)?.value
  t.equal(await why("poll"), polls)
  feed.rang(log.commit(1))
  await settled()
  t.equal(await why("bell"), 2, "the first of a session and this one")
  await clock.pass(3 * FLOOR_MS)
  t.match(feed.bell, { heard: 1, skipped: 1 })
})

t.test("what is behind counts from the beginning of the read that brought it", async (t) => {
  const { clock, log, feed } = await createQuietWorld()
  const read = log.next("read")
  feed.rang(log.commit(1))
  await read.reached
  await clock.pass(300)
  read.release()
  await settled()
  t.equal(feed.lagMs, 300)
})

t.test(
  "a lease that ends in the middle of a long read: the next poll finds it, and who did not ring",
  async (t) => {
    const { clock, log, feed, seen } = await createQuietWorld()
    log.leaseMs = 900
    const page = log.next("page")
    feed.rang(log.commit(1_500))
    await page.reached
    await clock.pass(1_000)
    log.leaseMs = 0
    log.commit(1)
    page.release()
    await settled()
    t.equal(feed.bell.mode, "awake", "as far as that read has shown")
    t.same(seen, ["1-1000", "+1001-1500."])
    t.notOk(log.calls.includes("end lease"))
    await clock.pass(POLL_MS)
    t.same(seen.splice(0), ["1-1000", "+1001-1500.", "1501."])
    t.same(log.calls.slice(-3), ["read", "end lease", "fence"])
    t.equal(feed.bell.mode, "tail")
    log.commit(1)
    await clock.pass(20)
    t.same(seen, ["1502."], "polls go on until those have ended that began before the fence")
    t.equal(feed.bell.mode, "quiet")
  },
)

t.test(
  "a lease that another relay takes in the middle of a read has a fence of its own after it",
  async (t) => {
    const { log, feed, seen } = await createQuietWorld()
    const read = log.next("read")
    feed.rang(log.commit(1))
    await read.reached
    feed.recheck()
    log.commit(1)
    read.release()
    await settled()
    t.same(seen, ["1.", "2."], "what came meanwhile is read without a bell")
    t.same(log.calls, ["read", "end lease", "fence", "read"])
  },
)

t.test("a recheck while the last lease is ended is not taken for answered", async (t) => {
  const { log, feed } = await createQuietWorld()
  feed.recheck()
  const end = log.next("end lease")
  await end.reached
  feed.recheck()
  end.release()
  await settled()
  t.same(log.calls, ["read", "end lease", "fence", "read", "end lease", "fence"])
})

t.test("a session lost in the middle of a batch: its changes come again, all of them", async (t) => {
  const { clock, log, feed, seen } = await createQuietWorld()
  feed.rang(log.commit(2_500))
  const first = log.next("page")
  await first.reached
  const second = log.next("page")
  first.release()
  await second.reached
  t.equal(feed.backlog, 2_500)
  second.fail("cut")
  await settled()
  t.same(seen, ["1-1000", "lost"])
  t.match(feed.state, { kind: "down", attempts: 0, error: "cut" })
  t.equal(feed.backlog, 0)
  t.ok(log.calls.includes("close"))
  log.commit(1)
  await clock.pass(RETRY_MS)
  t.same(seen.slice(2), ["adopt a", "1-1000", "+1001-2000", "+2001-2501."])
  t.equal(feed.state.kind, "up")
})

t.test(
  "a read that fails again and again is tried less and less often, from the last good one on",
  async (t) => {
    const { clock, log, feed } = await createQuietWorld()
    log.commit(1)
    const attempts: number[] = []
    for (let n = 0; n < 4; n++) {
      const read = log.next("read")
      feed.rang("1")
      await clock.pass(10_000)
      await read.reached
      read.fail("cut")
      await settled()
      attempts.push(feed.state.kind === "down" ? feed.state.attempts : -1)
    }
    t.same(attempts, [0, 1, 2, 3])
    await clock.pass(10_000)
    t.equal(feed.state.kind, "up")
  },
)

t.test("a read that took too long is tried smaller, and grows again when reads are good", async (t) => {
  const { clock, log, feed, seen } = await createQuietWorld()
  feed.rang(log.commit(2_000))
  const page = log.next("page")
  await page.reached
  page.fail("Query read timeout")
  await settled()
  await clock.pass(RETRY_MS)
  t.same(seen.slice(0, 4), ["lost", "adopt a", "1-250", "+251-500"])
  // Two reads that are good.
  await clock.pass(5 * FLOOR_MS)
  seen.length = 0
  feed.rang(log.commit(1_000))
  await settled()
  t.same(seen, ["2001-3000."])
})

t.test("a batch that was delivered whole is not read again when its session fails right after", async (t) => {
  const { clock, log, feed, seen } = await createQuietWorld()
  const end = log.next("end of pages")
  feed.rang(log.commit(1_001))
  await end.reached
  end.fail("cut")
  await settled()
  log.commit(1)
  await clock.pass(RETRY_MS)
  t.same(seen, ["1-1000", "+1001.", "lost", "adopt a", "1002."])
})

t.test("a batch that could not be delivered comes again", async (t) => {
  const { clock, log, feed, seen, deliveries } = await createQuietWorld()
  const delivery = deliveries.next("a")
  feed.rang(log.commit(1))
  await delivery.reached
  delivery.fail("no row")
  await clock.pass(RETRY_MS)
  t.same(seen, ["1.", "lost", "adopt a", "1."])
})

/** Loses the session; while it is away the log becomes another. */
async function reconnect(world: ReturnType<typeof createWorld>, lineage: string, known: string[]) {
  const { clock, log, feed } = world
  const read = log.next("read")
  feed.rang("1")
  await read.reached
  Object.assign(log, { lineage, lineages: new Set(known) })
  log.commit(1)
  read.fail("cut")
  await clock.pass(RETRY_MS)
}

t.test("a log that was promoted goes on where it was, under its new name", async (t) => {
  const world = await createQuietWorld()
  const delivery = world.deliveries.next("b")
  void reconnect(world, "b", ["a", "b"])
  await delivery.reached
  delivery.release()
  await settled()
  t.same(world.seen, ["lost", "adopt b", "1."])
  t.match(world.feed.state, { kind: "up", cursor: { lineage: "b", snapshot: { xmax: 6n } } })
})

t.test(
  "another log: everybody is told before it is adopted, and nothing of it is taken for missed",
  async (t) => {
    const world = await createQuietWorld()
    await reconnect(world, "b", ["b"])
    t.same(world.seen, ["lost", "reset", "adopt b", "begin 6"])
    world.feed.rang(world.log.commit(1))
    await settled()
    t.same(world.seen.slice(4), ["2."])
    t.match(await world.metrics.resets.get(), {
      values: [
        { labels: { reason: "lineage" }, value: 1 },
        { labels: { reason: "horizon" }, value: 0 },
      ],
    })
  },
)

t.test("a log that no longer holds what is missing: a reset, and a position of its own", async (t) => {
  const { clock, log, feed, seen } = await createQuietWorld()
  feed.rang(log.commit(1))
  const begin = log.next("begin")
  log.horizon = log.xmax
  await begin.reached
  t.same(seen, ["reset"])
  t.match(feed.state, { kind: "down", attempts: 0, error: "no position to go on from (horizon)" })
  await clock.pass(10)
  begin.release()
  await settled()
  t.same(seen, ["reset", "begin 6"], "in the same session")
  t.match(feed.state, { kind: "up", since: 60 })
})

t.test("what is left of such a log is not read first", async (t) => {
  const { log, feed, seen } = await createQuietWorld()
  feed.rang(log.commit(1_001))
  log.horizon = log.xmax
  await settled()
  t.same(seen, ["reset", "begin 6"])
  t.notOk(log.calls.includes("page"))
})

t.test(
  "a horizon that passes between a cut read and its pages is a reset, and no part is delivered",
  async (t) => {
    const { log, feed, seen } = await createQuietWorld()
    const read = log.next("read")
    feed.rang(log.commit(1_001))
    await read.reached
    log.horizon = log.xmax
    read.release()
    await settled()
    t.same(seen, ["reset", "begin 6"])
    t.equal(feed.backlog, 0)
  },
)

t.test("while the capture was paused there is no position, until nobody can be missed", async (t) => {
  const { clock, log, feed, seen } = createWorld()
  log.horizon = 7n
  feed.start()
  await clock.pass(FLOOR_MS)
  t.same(seen, ["adopt a"])
  t.equal(feed.state.kind, "down")
  log.commit(1)
  log.commit(1)
  await clock.pass(FLOOR_MS)
  t.same(seen, ["adopt a", "begin 7"])
  t.equal(feed.state.kind, "up")
})

/** Whether a promise is settled by now, and with what. */
function outcomeOf<T>(promise: Promise<T>): () => T | "waiting" {
  let outcome: T | "waiting" = "waiting"
  void promise.then((value) => {
    outcome = value
  })
  return () => outcome
}

t.test("a refresh in the middle of a read is answered by the next read", async (t) => {
  const { log, feed, seen } = await createQuietWorld()
  const first = log.next("read")
  feed.rang(log.commit(1))
  await first.reached
  const fresh = outcomeOf(feed.refresh(5_000))
  const second = log.next("read")
  first.release()
  await second.reached
  t.same(seen, ["1."])
  t.equal(fresh(), "waiting", "that read had begun before")
  second.release()
  await settled()
  t.equal(fresh(), true)
})

t.test("a refresh is answered after all of it was delivered", async (t) => {
  const { log, feed, deliveries } = await createQuietWorld()
  log.commit(1)
  const delivery = deliveries.next("a")
  const fresh = outcomeOf(feed.refresh(5_000))
  await delivery.reached
  t.equal(fresh(), "waiting")
  delivery.release()
  await settled()
  t.equal(fresh(), true)
})

t.test("a refresh whose read fails is answered by one of the next session", async (t) => {
  const { clock, log, feed } = await createQuietWorld()
  const read = log.next("read")
  const fresh = outcomeOf(feed.refresh(5_000))
  await read.reached
  read.fail("cut")
  await settled()
  t.equal(fresh(), "waiting")
  await clock.pass(RETRY_MS)
  t.equal(fresh(), true)
})

t.test(
  "a refresh is not answered by a read that found too little, and not for longer than it may take",
  async (t) => {
    const { clock, log, feed } = await createQuietWorld()
    const begin = log.next("begin")
    log.commit(1)
    log.horizon = log.xmax
    const fresh = outcomeOf(feed.refresh(5_000))
    await begin.reached
    t.equal(fresh(), "waiting")
    await clock.pass(5_000)
    t.equal(fresh(), false)
    begin.release()
    await settled()
    t.equal(fresh(), false)
  },
)

t.test("canaries are handed over after what came with them, and nobody else sees them", async (t) => {
  const { log, feed, seen } = await createQuietWorld()
  log.commit(1)
  log.canary("tweet")
  feed.rang("5")
  await settled()
  t.same(seen.splice(0), ["1.", "tweet"])
  log.canary("alone")
  feed.rang("7")
  await settled()
  t.same(seen, [".", "alone"], "the position has moved, of which the consumer must know")
})

t.test("nothing new is nothing to deliver", async (t) => {
  const { feed, seen, reads } = await createQuietWorld()
  feed.rang("1")
  await settled()
  t.equal(reads(), 1)
  t.same(seen, [])
})

t.test("a stop ends the pause before another session", async (t) => {
  const { clock, log, feed } = createWorld()
  const open = log.next("open")
  feed.start()
  await open.reached
  open.fail("away")
  await settled()
  t.match(feed.state, { kind: "down", attempts: 1, error: "away" })
  t.equal(clock.waits().length, 1)
  await feed.stop()
  t.same(clock.waits(), [])
  t.same(log.calls, ["open"])
})

t.test("a stop ends the wait for a bell, and closes the session without another read", async (t) => {
  const { clock, log, feed, seen } = await createQuietWorld()
  await feed.stop()
  t.same(clock.waits(), [])
  t.same(log.calls, ["close"])
  t.same(seen, [])
})

t.test("a stop in the middle of a read waits for it, and begins no other", async (t) => {
  const { log, feed, seen, reads } = await createQuietWorld()
  const read = log.next("read")
  feed.rang(log.commit(1))
  await read.reached
  const stopped = outcomeOf(feed.stop().then(() => "stopped"))
  await settled()
  t.equal(stopped(), "waiting")
  feed.rang(log.commit(1))
  read.release()
  await settled()
  t.equal(stopped(), "stopped")
  t.same(seen, ["1."])
  t.equal(reads(), 1)
  t.equal(log.calls.at(-1), "close")
})

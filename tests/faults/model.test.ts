/**
 * The model test: random interleavings of transactions, clients and rotations on a real PostgreSQL, two relays and real
 * sockets, against the reference model. One statement after the other, while relays and clients take their own time; at
 * rest everything that a client was told, and its copy, must be what the model says.
 *
 * COMMITCAST_MODEL_RUNS: how many runs. COMMITCAST_MODEL_SEED, _PATH and _REPLAY (the replayPath), printed on failure:
 * that one again, as far as relays and clients take the same time.
 */

import fc from "fast-check"
import t from "tap"
import { ownCluster } from "../helpers/cluster.ts"
import { newTransaction } from "../helpers/reference.ts"
import { startRelay } from "../helpers/relay.ts"
import {
  type BOGUS,
  CHANNELS,
  type Hop,
  openSession,
  type Reader,
  readReference,
  Session,
  World,
  type Write,
} from "../helpers/world.ts"

const RUNS = Number(process.env.COMMITCAST_MODEL_RUNS ?? 100)
/** After this no run begins, unless their number was asked for; so long a failure is made smaller. Milliseconds. */
const TIME_MS = process.env.COMMITCAST_MODEL_RUNS === undefined ? 20_000 : Number.POSITIVE_INFINITY
const SHRINK_MS = 40_000
const SESSIONS = 4
/** Sessions from this one on do not ring the bell, and so may prepare transactions. */
const SILENT_FROM = 2
const READERS = 3
const RELAYS = 2

/** A command with its arguments, printed as it is called. */
class Step implements fc.AsyncCommand<World, World> {
  readonly name: string
  readonly args: readonly unknown[]
  readonly applies: (world: World) => boolean
  readonly act: (world: World) => Promise<void>
  constructor(
    name: string,
    args: readonly unknown[],
    applies: (world: World) => boolean,
    act: (world: World) => Promise<void>,
  ) {
    this.name = name
    this.args = args
    this.applies = applies
    this.act = act
  }
  check(world: World) {
    return this.applies(world)
  }
  async run(world: World) {
    world.steps++
    await this.act(world)
  }
  toString() {
    return `${this.name}(${this.args.map((arg) => JSON.stringify(arg)).join(", ")})`
  }
}

const session = fc.nat(SESSIONS - 1)
const reader = fc.nat(READERS - 1)
const relay = fc.nat(RELAYS - 1)
const channels = fc.constantFrom(...CHANNELS)
const of = (world: World, n: number) => world.sessions[n] as Session
const readerOf = (world: World, n: number) => world.readers[n] as Reader
const always = () => true

let names = 0

const commands: Array<fc.WeightedArbitrary<Step>> = [
  {
    weight: 80,
    arbitrary: fc.tuple(session, fc.constantFrom("read committed", "repeatable read", "serializable")).map(
      ([n, isolation]) =>
        new Step(
          "begin",
          [n, isolation],
          (world) => of(world, n).transaction === undefined,
          async (world) => {
            await of(world, n).client.query(`begin isolation level ${isolation}`)
            of(world, n).transaction = newTransaction(isolation)
          },
        ),
    ),
  },
  {
    weight: 300,
    arbitrary: fc
      .tuple(
        session,
        fc.constantFrom<Write>("insert", "update", "update", "delete"),
        fc.integer({ min: 1, max: 5 }),
        fc.constantFrom(1, 2, null),
        fc.nat(2),
      )
      .map(
        ([n, op, key, committee, votes]) =>
          new Step(
            "write",
            [n, op, key, committee, votes],
            (world) => of(world, n).transaction?.failed !== true,
            (world) => world.write(of(world, n), op, key, committee, votes),
          ),
      ),
  },
  {
    weight: 10,
    arbitrary: session.map(
      (n) =>
        new Step(
          "truncate",
          [n],
          // Alone it would leave the xid unknown.
          (world) => of(world, n).transaction?.failed === false,
          (world) => world.truncate(of(world, n)),
        ),
    ),
  },
  {
    weight: 20,
    arbitrary: fc
      .tuple(
        fc.nat(SILENT_FROM - 1),
        fc.constantFrom("election_updates", "committee:1", "user:7"),
        fc.constantFrom(1, 3, 3, 1_100),
      )
      .map(
        ([n, channel, count]) =>
          new Step(
            "broadcast",
            [n, channel, count],
            (world) => of(world, n).transaction?.failed !== true,
            (world) => world.broadcast(of(world, n), channel, count),
          ),
      ),
  },
  {
    weight: 40,
    arbitrary: session.map(
      (n) =>
        new Step(
          "savepoint",
          [n],
          (world) => of(world, n).transaction?.failed === false,
          async (world) => {
            const { client, transaction } = of(world, n)
            await client.query(`savepoint s${transaction?.savepoints.length}`)
            transaction?.savepoints.push(transaction.effects.length)
          },
        ),
    ),
  },
  {
    weight: 50,
    arbitrary: fc.tuple(session, fc.nat(3)).map(
      ([n, back]) =>
        new Step(
          "rollback to",
          [n, back],
          (world) => (of(world, n).transaction?.savepoints.length ?? 0) > back,
          async (world) => {
            const { client, transaction } = of(world, n)
            if (transaction === undefined) return
            const to = transaction.savepoints.length - 1 - back
            await client.query(`rollback to s${to}`)
            transaction.savepoints.length = to + 1
            transaction.effects.length = transaction.savepoints[to] as number
            transaction.failed = false
          },
        ),
    ),
  },
  {
    weight: 20,
    arbitrary: session.map(
      (n) =>
        new Step(
          "release",
          [n],
          (world) =>
            of(world, n).transaction?.failed === false &&
            (of(world, n).transaction?.savepoints.length ?? 0) > 0,
          async (world) => {
            const { client, transaction } = of(world, n)
            await client.query(`release s${(transaction?.savepoints.length ?? 0) - 1}`)
            transaction?.savepoints.pop()
          },
        ),
    ),
  },
  {
    weight: 100,
    arbitrary: fc
      .tuple(session, fc.constantFrom<"commit" | "rollback">("commit", "commit", "commit", "rollback"))
      .map(
        ([n, how]) =>
          new Step(
            how,
            [n],
            (world) => of(world, n).transaction !== undefined,
            (world) => world.end(of(world, n), how),
          ),
      ),
  },
  {
    weight: 20,
    arbitrary: fc.integer({ min: SILENT_FROM, max: SESSIONS - 1 }).map(
      (n) =>
        new Step(
          "prepare",
          [n],
          (world) => of(world, n).transaction !== undefined,
          (world) => world.prepare(of(world, n), `p${++names}`),
        ),
    ),
  },
  {
    weight: 20,
    arbitrary: fc.constantFrom<"commit" | "rollback">("commit", "rollback").map(
      (how) =>
        new Step(
          `${how} prepared`,
          [],
          (world) => world.reference.prepared.size > 0,
          (world) => world.endPrepared([...world.reference.prepared.keys()][0] as string, how),
        ),
    ),
  },
  {
    weight: 80,
    arbitrary: fc
      .tuple(reader, relay, fc.constantFrom<Hop>("kept", "kept", "stored", "read", "fresh"), channels)
      .map(
        ([n, to, how, through]) =>
          new Step(
            "hop",
            [n, to, how, ...(how === "fresh" ? [through] : [])],
            (world) => how === "fresh" || readerOf(world, n).ledger.cursor !== undefined,
            (world) => world.hop(readerOf(world, n), to, how, through),
          ),
      ),
  },
  {
    weight: 30,
    arbitrary: reader.map(
      (n) =>
        new Step(
          "disconnect",
          [n],
          (world) => readerOf(world, n).ledger.ended === undefined,
          async (world) => readerOf(world, n).ledger.disconnect(),
        ),
    ),
  },
  {
    weight: 20,
    arbitrary: reader.map(
      (n) =>
        new Step(
          "stall",
          [n],
          (world) => readerOf(world, n).ledger.ended === undefined && !readerOf(world, n).stalled,
          async (world) => {
            readerOf(world, n).stalled = true
            readerOf(world, n).ledger.stall()
          },
        ),
    ),
  },
  {
    weight: 30,
    arbitrary: fc.tuple(reader, channels).map(
      ([n, through]) =>
        new Step("read", [n, through], always, async (world) => {
          readerOf(world, n).reading = { channels: through, reading: await world.read(through) }
        }),
    ),
  },
  {
    weight: 40,
    arbitrary: fc
      .tuple(
        reader,
        fc.constantFrom<"mark" | "own" | "read" | "widen">("mark", "mark", "own", "read", "widen"),
      )
      .map(
        ([n, how]) =>
          new Step("subscribe", [n, how], always, (world) => world.subscribe(readerOf(world, n), how)),
      ),
  },
  {
    weight: 50,
    arbitrary: fc
      .boolean()
      .map((advance) => new Step("rotate", [advance], always, (world) => world.rotate(advance))),
  },
  {
    weight: 10,
    arbitrary: fc
      .tuple(reader, relay, fc.constantFrom<keyof typeof BOGUS>("malformed", "lineage", "ahead"))
      .map(
        ([n, to, reason]) =>
          new Step("stray", [n, to, reason], always, (world) => world.stray(readerOf(world, n), to, reason)),
      ),
  },
  {
    weight: 3,
    arbitrary: fc.constant(new Step("cut the database", [], always, (world) => world.cutDatabase())),
  },
  {
    weight: 3,
    arbitrary: relay.map((n) => new Step("restart", [n], always, (world) => world.restart(n))),
  },
  {
    weight: 5,
    arbitrary: fc.constant(
      new Step(
        "pause",
        [],
        // Nobody is given a position before those who are open have ended; that has a test of its own.
        (world) => world.others().length === 0,
        (world) => world.pause(),
      ),
    ),
  },
  { weight: 20, arbitrary: fc.constant(new Step("rest", [], always, (world) => world.rest())) },
]

t.test("what every client is told, and its copy, is what the reference model says", async (t) => {
  const cluster = await ownCluster(t, {
    fsync: "off",
    autovacuum: "off",
    max_prepared_transactions: 20,
    max_connections: 50,
  })
  // One remembers what it has read, the other has to read the log again.
  const start = (n: number) =>
    startRelay(t, cluster, { LOG_LEVEL: "warn", REPLAY_BUFFER_MB: n === 0 ? "64" : "0.005" })
  const relays = [await start(0), await start(1)]
  const sessions: Session[] = []
  for (let n = 0; n < SESSIONS; n++) {
    const bell = n >= SILENT_FROM ? "set relay.bell = 'off';" : ""
    sessions.push(new Session(await openSession(t, cluster.url, `${bell} set lock_timeout = '5ms'`)))
  }
  const control = await openSession(t, cluster.url, "")
  let executed = 0
  let runs = 0
  const counts = { changes: 0, repeats: 0, connections: 0, recovered: 0, loads: 0 }
  const { COMMITCAST_MODEL_SEED: seed, COMMITCAST_MODEL_PATH: path } = process.env
  const { COMMITCAST_MODEL_REPLAY: replayPath } = process.env
  const started = Date.now()
  let deadline = started + TIME_MS
  let failedAt: number | undefined
  const property = fc.asyncProperty(
    fc.commands([fc.oneof({ maxDepth: 1 }, ...commands)], {
      maxCommands: 120,
      size: "max",
      ...(replayPath === undefined ? {} : { replayPath }),
    }),
    async (steps) => {
      if (Date.now() > deadline) return
      await control.query("delete from vote; insert into vote (id, votes) values (1, 0), (2, 0)")
      for (const each of sessions) each.transaction = undefined
      const world = new World(relays, sessions, control, await readReference(control), start, READERS)
      await world.settle()
      try {
        for (const [n, reader] of world.readers.entries())
          await world.hop(reader, n % RELAYS, "fresh", CHANNELS[n] as string[])
        await fc.asyncModelRun(() => ({ model: world, real: world }), steps)
        await world.finish()
      } catch (error) {
        failedAt ??= Date.now()
        deadline = failedAt + SHRINK_MS
        throw error
      } finally {
        await world.clear()
        runs++
        executed += world.steps
        for (const { ledger } of world.readers)
          for (const name of Object.keys(counts) as Array<keyof typeof counts>)
            counts[name] += ledger.counts[name]
      }
    },
  )
  await fc.assert(property, {
    numRuns: RUNS,
    ...(seed === undefined ? {} : { seed: Number(seed) }),
    ...(path === undefined ? {} : { path }),
  })
  t.comment({ runs, steps: executed, ...counts, seconds: (Date.now() - started) / 1_000 })
  t.ok(runs > 0)
})

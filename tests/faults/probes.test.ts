/**
 * Each failure turns the right probe within the time that docs/OPERATIONS.md states, and its end turns it back. Counted in
 * looks at the probe, which take longer where the relay has less of the machine too.
 */

import { readFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import t, { type Test } from "tap"
import { freePort } from "../../cli/embedded/port.ts"
import { execSql, ownCluster } from "../helpers/cluster.ts"
import { run, workDirectory } from "../helpers/command.ts"
import { type Database, database } from "../helpers/database.ts"
import { makePair, startIssuer } from "../helpers/issuer.ts"
import { role } from "../helpers/log.ts"
import { startProxy } from "../helpers/proxy.ts"
import { launchRelay, SECRET, startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 4

const OPERATIONS = fileURLToPath(new URL("../../docs/OPERATIONS.md", import.meta.url))

interface Stated {
  probe: string
  /** Seconds. */
  turns: number
  back: number | undefined
}

/** The table of the document: what happens, and how long it takes. */
const stated = new Map(
  [...readFileSync(OPERATIONS, "utf8").matchAll(/^\| (.+?) \| (ready|live) \| (.+?) \| (.*?) ?\|$/gm)].map(
    ([, what = "", probe = "", turns = "", back = ""]): [string, Stated] => [
      what,
      { probe, turns: secondsOf(turns) ?? Number.NaN, back: secondsOf(back) },
    ],
  ),
)

function secondsOf(text: string): number | undefined {
  if (text === "at once") return 0
  const [, seconds] = /^(\d+) s/.exec(text) ?? []
  return seconds === undefined ? undefined : Number(seconds)
}

/** A failure: `begin` brings it about, `end` ends it. */
interface Failure {
  url: string
  begin(): Promise<unknown>
  end?(): Promise<unknown>
}

/** Between two looks. Milliseconds. */
const LOOK_MS = 20
/** Who gives no answer for so long gives none. */
const ANSWER_MS = 5_000

/** Looks at most so often as there is time for in so many seconds. @throws Error if it is not so by then. */
async function within(what: string, seconds: number, condition: () => Promise<boolean>): Promise<void> {
  for (let looks = (seconds * 1_000) / LOOK_MS; looks > 0; looks--) {
    if (await condition()) return
    await sleep(LOOK_MS)
  }
  throw new Error(`not within ${seconds} s: ${what}`)
}

/** Whether the probe says that all is well; no answer is none. */
async function isWell(url: string, probe: string): Promise<boolean> {
  const options = { signal: AbortSignal.timeout(ANSWER_MS), headers: { connection: "close" } }
  return fetch(`${url}/health/${probe}`, options).then(
    ({ status }) => status === 200,
    () => false,
  )
}

const tried = new Set<string>()

/** Tries a row of the table. */
function fault(what: string, prepare: (t: Test) => Promise<Failure>): void {
  tried.add(what)
  t.test(what, async (t) => {
    const { probe, turns, back } = stated.get(what) as Stated
    const failure = await prepare(t)
    const well = () => isWell(failure.url, probe)
    if (turns !== 0) await until(`${probe} before`, well)
    await failure.begin()
    const began = performance.now()
    const seconds = () => ((performance.now() - began) / 1_000).toFixed(1)
    await within(`${probe} turned`, Math.max(1, turns), async () => !(await well()))
    t.pass(`turned after ${seconds()} s`)
    if (back === undefined) return
    await failure.end?.()
    const ended = seconds()
    await within(`${probe} turned back`, back, well)
    t.pass(`ended after ${ended} s, back after ${seconds()} s`)
  })
}

async function behindProxy(t: Test) {
  const db = await database(t)
  const proxy = await startProxy(t, db.port)
  const { url } = await startRelay(t, { url: db.url.replace(`:${db.port}/`, `:${proxy.port}/`) })
  return { url, proxy }
}

/** The server process of one of the relay's sessions. */
async function backendOf(db: Database, application: string): Promise<number> {
  const [row] = await db.query<{ pid: number }>(
    "select pid from pg_stat_activity where datname = current_database() and application_name = $1",
    [application],
  )
  return row?.pid as number
}

/** A session that hangs until the end of the test. */
async function hanging(t: Test, application: string): Promise<Failure> {
  const db = await database(t)
  const { url } = await startRelay(t, db)
  return {
    url,
    async begin() {
      const pid = await backendOf(db, application)
      process.kill(pid, "SIGSTOP")
      t.teardown(() => process.kill(pid, "SIGCONT"))
    },
  }
}

/** A process of its own that hangs. @param seconds as long as it hangs at least. */
async function hangs(t: Test, seconds: number): Promise<Failure> {
  const db = await database(t)
  const started = run(t, await workDirectory(t), ["start"], {
    DATABASE_URL: db.url,
    PORT: "0",
    JWT_SECRET: SECRET,
    DRAIN_TIMEOUT_SECONDS: "1",
  })
  const [line] = await started.prints("ready", /^\{"event":"ready".*\}$/m)
  return {
    url: (JSON.parse(line) as { url: string }).url,
    begin: async () => started.child.kill("SIGSTOP"),
    async end() {
      await sleep(seconds * 1_000)
      started.child.kill("SIGCONT")
    },
  }
}

fault("the database is away", async (t) => {
  const { url, proxy } = await behindProxy(t)
  return {
    url,
    async begin() {
      proxy.refuse()
      proxy.cut()
    },
    end: async () => proxy.heal(),
  }
})

fault("the line to the database is silent", async (t) => {
  const { url, proxy } = await behindProxy(t)
  return { url, begin: async () => proxy.silence(), end: async () => proxy.heal() }
})

fault("the reading session hangs", (t) => hanging(t, "commitcast feed"))

fault("the listening session hangs, while the poll brings the changes", (t) =>
  hanging(t, "commitcast listener"),
)

fault("the database crashes and recovers by itself", async (t) => {
  const cluster = await ownCluster(t)
  const { url } = await startRelay(t, cluster)
  return {
    url,
    async begin() {
      const [own] = await execSql<{ pid: number }>(
        cluster.superuserUrl,
        "select pid from pg_stat_activity where application_name = 'commitcast feed'",
      )
      process.kill(own?.pid as number, "SIGKILL")
    },
  }
})

fault("the log is locked", async (t) => {
  const db = await database(t)
  const { url } = await startRelay(t, db)
  const session = await db.session()
  return {
    url,
    begin: () => session.query("begin; lock table relay.change in access exclusive mode"),
    end: () => session.query("rollback"),
  }
})

fault("the log hides its rows", async (t) => {
  const db = await database(t)
  const relayer = await role(t, db, "relayer")
  await db.query("select relay.admit_relay($1)", [new URL(relayer).username])
  const { url } = await startRelay(t, { url: relayer }, { CANARY_SECONDS: "10" })
  const alter = (what: string) =>
    db.query([0, 1, 2].map((slot) => `alter table relay.change_${slot} ${what}`).join("; "))
  return {
    url,
    begin: () => alter("enable row level security"),
    end: () => alter("disable row level security"),
  }
})

fault("the issuer of tokens is away at the start", async (t) => {
  const issuer = await startIssuer(t, [makePair("one")], await freePort())
  const { url } = await launchRelay(t, await database(t), issuer.settings)
  return { url, begin: async () => {}, end: issuer.listen }
})

fault("the relay is told to stop", async (t) => {
  const { url, relay, connect } = await startRelay(t, await database(t), { DRAIN_RATE: "1" })
  await connect()
  await connect()
  return { url, begin: async () => void relay.stop() }
})

fault("the process hangs", (t) => hangs(t, 0))

fault("the process has hung for 10 s: what it could not read meanwhile is read first", (t) => hangs(t, 10))

t.test("every row of the table is tried", async (t) => {
  t.same([...stated.keys()].sort(), [...tried].sort())
})

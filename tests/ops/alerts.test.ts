/** The alerts: the real Prometheus scrapes relays, each of which is driven into what one of them warns of. */

import { execFileSync, spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { mkdir, rename } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import t, { type Test } from "tap"
import { parse, stringify } from "yaml"
import { z } from "zod"
import { openClient } from "../helpers/client.ts"
import { run, workDirectory } from "../helpers/command.ts"
import { type Database, database } from "../helpers/database.ts"
import { AUDIENCE, ISSUER } from "../helpers/issuer.ts"
import { cursorNow } from "../helpers/log.ts"
import { noPrometheus, startPrometheus } from "../helpers/prometheus.ts"
import { startProxy } from "../helpers/proxy.ts"
import { launchRelay, metricOf, SECRET, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { OPS, shipped } from "../helpers/shipped.ts"
import { until } from "../helpers/wait.ts"

const Rule = z.strictObject({
  alert: z.string().regex(/^CommitCast[A-Z]\w+$/),
  expr: z.string(),
  for: z
    .string()
    .regex(/^\d+m$/)
    .optional(),
  labels: z.strictObject({ severity: z.enum(["page", "ticket"]) }),
  annotations: z.strictObject({ summary: z.string(), runbook: z.string() }),
})
const Rules = z.strictObject({
  groups: z.tuple([z.strictObject({ name: z.string(), rules: z.array(Rule) })]),
})
const rules = Rules.parse(parse(shipped("prometheus/alerts.yml")))
const alerts = rules.groups[0].rules

/** A relay that is scraped, and the way into trouble. */
interface Scene {
  url: string
  drive(): Promise<unknown>
}

/** As a setting, so that nothing waits for long. */
const SOON = { CANARY_SECONDS: "0.2" }

async function relayOf(
  t: Test,
  settings: Record<string, string>,
  drive: (relay: TestRelay, db: Database) => Promise<unknown>,
): Promise<Scene> {
  const db = await database(t)
  const relay = await startRelay(t, db, settings)
  return { url: relay.url, drive: () => drive(relay, db) }
}

/** `commitcast start` as a process of its own. */
async function processOf(t: Test, args: string[], descriptors?: number) {
  const db = await database(t)
  const env = { DATABASE_URL: db.url, PORT: "0", JWT_SECRET: SECRET, DRAIN_TIMEOUT_SECONDS: "1" }
  const process = run(t, await workDirectory(t), ["start", ...args], env, descriptors)
  const [line] = await process.prints("ready", /^\{"event":"ready".*\}$/m)
  const { url } = z.object({ url: z.string() }).parse(JSON.parse(line))
  return { process, url }
}

const report = (url: string): Promise<Response> =>
  fetch(`${url}/api/utils/websocket/health/`, {
    headers: { authorization: `Bearer ${token({ role: "admin" })}` },
  })

const open = (t: Test, url: string) => openClient(t, `${url.replace("http", "ws")}/ws?token=${token()}`)

const SCENES: Record<string, (t: Test) => Promise<Scene>> = {
  CommitCastDown: (t) => relayOf(t, {}, ({ stop }) => stop()),
  async CommitCastNotReady(t) {
    const db = await database(t)
    const proxy = await startProxy(t, db.port)
    const { url } = await startRelay(t, { url: db.url.replace(`:${db.port}/`, `:${proxy.port}/`) })
    return {
      url,
      async drive() {
        proxy.refuse()
        proxy.cut()
      },
    }
  },
  CommitCastNotCaptured: (t) =>
    relayOf(t, {}, async ({ url }, db) => {
      await db.query(
        `do $$ begin execute (select format('alter table vote disable trigger %I', tgname) from pg_trigger where tgrelid = 'vote'::regclass and tgname ~ '^000_relay_insert'); end $$`,
      )
      await report(url)
    }),
  CommitCastLoadsAnew: (t) => relayOf(t, {}, (_relay, db) => db.query("select relay.begin_lineage()")),
  CommitCastUnsteady: (t) =>
    relayOf(t, {}, async (relay, db) => {
      for (let times = 1; times <= 4; times++) {
        await db.query(
          "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'commitcast feed'",
        )
        const lost = () => metricOf(relay, "relay_feed_reconnects_total")
        await until("the session is lost", async () => (await lost()) === times)
        await until("there is another", async () => (await metricOf(relay, "relay_feed_up")) === 1)
      }
    }),
  CommitCastCannotWrite: (t) =>
    relayOf(t, SOON, (_relay, db) =>
      db.query("alter table relay.change_0 add constraint full_disk check (what <> 3) not valid"),
    ),
  CommitCastChoresFail: (t) =>
    relayOf(t, {}, async ({ url }, db) => {
      await db.query("alter view relay.tracked rename to untracked")
      await report(url)
    }),
  CommitCastUnreadable: (t) =>
    relayOf(t, {}, (_relay, db) => db.query("insert into relay.change_0 (what, data) values (9999, 'x')")),
  CommitCastDegraded: (t) =>
    relayOf(t, {}, async ({ url }, db) => {
      await db.query("select relay.untrack(target) from relay.tracking")
      await report(url)
    }),
  CommitCastLate: (t) =>
    relayOf(t, {}, async (relay, db) => {
      await relay.connect()
      await db.query("begin; insert into vote (votes) values (1); select pg_sleep(2); commit")
    }),
  async CommitCastBusy(t) {
    const { process: child, url } = await processOf(t, [])
    return {
      url,
      async drive() {
        // Shorter than a scrape may take: one that gives up takes the measured delay with it.
        for (let times = 0; times < 8; times++) {
          child.child.kill("SIGSTOP")
          await sleep(600)
          child.child.kill("SIGCONT")
          await sleep(600)
        }
      },
    }
  },
  async CommitCastRotationRefused(t) {
    const db = await database(t)
    const dump = await db.session()
    await dump.query("begin; lock table relay.change_1 in access share mode")
    const { url } = await startRelay(t, db, { RETENTION_MB: "0.001" })
    return { url, drive: async () => {} }
  },
  CommitCastLogLarge: (t) => relayOf(t, { RETENTION_MB: "0.001" }, async () => {}),
  CommitCastTooLate: (t) =>
    relayOf(t, {}, async (relay, db) => {
      const [lineage] = (await cursorNow(db)).split(":")
      await relay.connect({}, `?cursor=${lineage}:3:3:`)
    }),
  CommitCastSlowReaders: (t) =>
    relayOf(t, { LANE_BUFFER_MB: "0.1" }, async (relay, db) => {
      const client = await relay.connect()
      client.socket.pause()
      await db.query("insert into guarantee (note) select repeat('x', 1000) from generate_series(1, 30000)")
    }),
  CommitCastTokensRefused: (t) =>
    relayOf(t, {}, async ({ open }) => {
      for (let n = 0; n < 30; n++) await (await open("/ws?token=x")).closed
    }),
  async CommitCastKeysNotFetched(t) {
    const nobody = await startProxy(t, 1)
    nobody.refuse()
    const relay = await launchRelay(t, await database(t), {
      JWT_SECRET: "",
      JWKS_URL: `http://127.0.0.1:${nobody.port}/keys`,
      JWT_ISSUER: ISSUER,
      JWT_AUDIENCE: AUDIENCE,
    })
    return { url: relay.url, drive: async () => {} }
  },
  CommitCastLimitReached: (t) =>
    relayOf(t, { MAX_CONNECTIONS_PER_USER: "1" }, async (relay) => {
      await relay.connect()
      await (await relay.open(`/ws?token=${token()}`)).closed
    }),
  async CommitCastDescriptors(t) {
    const { url } = await processOf(t, ["--max-connections-per-user", "0"], 400)
    return {
      url,
      async drive() {
        for (let n = 0; n < 300; n++) await open(t, url)
      },
    }
  },
  async CommitCastWorkerEnded(t) {
    const { url } = await processOf(t, ["--workers", "2"])
    return {
      url,
      async drive() {
        const { workers } = z
          .object({ workers: z.array(z.object({ pid: z.number() })) })
          .parse(await (await report(url)).json())
        process.kill(workers[0]?.pid as number, "SIGKILL")
      },
    }
  },
  async CommitCastNotDerived(t) {
    const db = await database(t)
    await db.query("select relay.define_derived('dashboard_update', 'dashboard_statistics', '{vote}')")
    const { url } = await startRelay(t, db)
    return {
      url,
      async drive() {
        await db.query("alter function dashboard_statistics() rename to elsewhere")
        await db.query("insert into vote (votes) values (1)")
      },
    }
  },
  async CommitCastAuditLost(t) {
    const file = join(await workDirectory(t), "audit.log")
    return relayOf(t, { AUDIT_LOG: file }, async (relay) => {
      await relay.connect()
      await rename(file, `${file}.1`)
      await mkdir(file)
      await until("it looks for its file again", async () => {
        const client = await relay.connect()
        client.socket.close()
        await client.closed
        return (await metricOf(relay, "relay_audit_failures_total")) > 0
      })
    })
  },
}

t.test("each alert has a paragraph that says what to do", async (t) => {
  const operations = readFileSync(join(OPS, "../docs/OPERATIONS.md"), "utf8")
  for (const { alert, annotations } of alerts) {
    t.equal(annotations.runbook, `docs/OPERATIONS.md#${alert.toLowerCase()}`)
    const [, paragraph = ""] = new RegExp(`^### ${alert}\\n\\n(.+?)\\n(?=\\n#)`, "ms").exec(operations) ?? []
    t.ok(paragraph.length > 100, `${alert}: ${paragraph}`)
  }
  const told = [...operations.matchAll(/^### (CommitCast\w+)$/gm)].map(([, name]) => name)
  t.same(
    told,
    alerts.map(({ alert }) => alert),
    "and each paragraph an alert, in the same order",
  )
})

t.test(
  "promtool has nothing against the rules",
  { skip: spawnSync("promtool", ["--version"]).error !== undefined && "no promtool on this machine" },
  async (t) => {
    const said = execFileSync("promtool", ["check", "rules", join(OPS, "prometheus/alerts.yml")], {
      encoding: "utf8",
    })
    t.match(said, `${alerts.length} rules found`)
  },
)

t.test("each alert fires for the relay that is in that trouble", { skip: noPrometheus }, async (t) => {
  t.same(Object.keys(SCENES).sort(), alerts.map(({ alert }) => alert).sort())
  const well = await startRelay(t, await database(t), SOON)
  await well.connect()
  const scenes: Array<[string, Scene]> = []
  for (const [alert, open] of Object.entries(SCENES)) scenes.push([alert, await open(t)])
  const hostOf = (url: string) => new URL(url).host
  // Nobody wants to wait here for what lasts.
  const atOnce = rules.groups.map((group) => ({
    ...group,
    rules: group.rules.map(({ for: _for, ...rule }) => rule),
  }))
  const hosts = [well, ...scenes.map(([, scene]) => scene)].map(({ url }) => hostOf(url))
  const prometheus = await startPrometheus(t, stringify({ groups: atOnce }), hosts)
  await until("each was scraped twice", async () => {
    const twice = await prometheus.ask('count_over_time(relay_ready{job="commitcast"}[1m]) >= 2')
    return twice.length === hosts.length
  })
  await Promise.all(
    scenes.map(async ([alert, scene]) => {
      await scene.drive()
      // Some are over before the next question on a machine that is slow.
      const mine = `max_over_time(ALERTS{alertname="${alert}",alertstate="firing",instance="${hostOf(scene.url)}"}[10m])`
      await until(`${alert} fires`, async () => (await prometheus.ask(mine)).length > 0)
      t.pass(alert)
    }),
  )
  // All of this runs on one event loop, but for the processes; it may well be late.
  const others = `max_over_time(ALERTS{alertname!="CommitCastBusy",instance="${hostOf(well.url)}"}[10m])`
  t.same(await prometheus.ask(others), [], "and none for one that is well")
})

/**
 * Growth: what a commit and a change cost as there are more tables under capture, more channels, more lanes. Each change is
 * written when the last has come to all whom it concerns.
 */

import type pg from "pg"
import type { Audience } from "../clients/audience.ts"
import { now } from "../clients/clock.ts"
import { percentilesOf } from "../clients/percentiles.ts"
import { compareToFirst, figure, measured, type Outcome, type Row } from "../harness/row.ts"
import type { Server } from "../harness/server.ts"
import { OWN_TABLE } from "../harness/session.ts"
import { type Group, play, type Stage } from "../harness/stage.ts"
import { cpuOf } from "../harness/usage.ts"
import { faultOf } from "../harness/validity.ts"

const SECONDS = 4
const QUICK_SECONDS = 1.5
const WARM_SECONDS = 1

interface Setting {
  clients: number
  paths: string[]
  /** How many clients a change goes to. */
  receivers: number
  /** Changes go to tables, and to committees, in turn. */
  tables: string[]
  committees: number
}

interface Series {
  name: string
  what: string
  counts: number[]
  settingOf(count: number): Setting
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1)

export const SERIES: Series[] = [
  {
    name: "tables",
    what: "tables under capture, 100 clients",
    counts: [1, 10, 50],
    settingOf: (count) => ({
      clients: 100,
      paths: ["/ws"],
      receivers: 100,
      tables: upTo(count).map((n) => `growth_${n}`),
      committees: 1,
    }),
  },
  {
    name: "channels",
    what: "channels with a client each",
    counts: [1, 100, 1_000],
    settingOf: (count) => ({
      clients: count,
      paths: upTo(count).map((n) => `/ws?channels=committee:${n}`),
      receivers: 1,
      tables: [OWN_TABLE],
      committees: count,
    }),
  },
  {
    name: "lanes",
    what: "lanes, 1,000 clients",
    counts: [1, 10, 100, 1_000],
    settingOf: (count) => ({
      clients: 1_000,
      paths: upTo(count).map((n) => `/ws?channels=election_updates,committee:${n}`),
      receivers: 1_000,
      tables: [OWN_TABLE],
      committees: 1,
    }),
  },
]

export const growth: Group = async function* (stage) {
  const seconds = stage.choice.quick ? QUICK_SECONDS : SECONDS
  const { series: chosen = SERIES.map(({ name }) => name) } = stage.choice
  for (const { name, what, counts, settingOf } of SERIES.filter((series) => chosen.includes(series.name))) {
    const rows: Row[] = []
    for (const count of counts) {
      const setting = settingOf(count)
      const cell = {
        group: "growth",
        name: `${what}: ${count.toLocaleString("en")}`,
        command: `npm run bench -- growth --series ${name}`,
      }
      rows.push(
        ...(await play(stage, "ours", [cell], async function* (server) {
          const audience = stage.audience(server, setting.paths)
          const session = await prepare(stage, setting)
          await audience.connect(setting.clients)
          await write(session, server, audience, setting, WARM_SECONDS)
          yield await write(session, server, audience, setting, seconds)
        })),
      )
    }
    yield* compareToFirst(rows, ["commit p50", "CPU a change"])
  }
}

/** Makes the tables and committees that are missing. */
async function prepare(stage: Stage, { tables, committees }: Setting): Promise<pg.Client> {
  const session = await stage.session()
  for (const table of tables.filter((name) => name !== OWN_TABLE)) {
    await session.query(`create table if not exists ${table} (like ${OWN_TABLE} including all)`)
    await session.query("select relay.track($1::regclass, type => 'voting_update')", [table])
  }
  await session.query(
    "insert into committee (id, name) select n, 'Committee ' || n from generate_series(13, $1::int) n on conflict do nothing",
    [committees],
  )
  return session
}

async function write(
  session: pg.Client,
  server: Server,
  audience: Audience,
  { clients, receivers, tables, committees }: Setting,
  seconds: number,
): Promise<Outcome> {
  await audience.begin()
  const cpu = cpuOf(server.pid)
  const commits: number[] = []
  const ends = now() + seconds * 1e6
  let reached = true
  while (reached && now() < ends) {
    const turn = commits.length
    const began = now()
    await session.query(
      `insert into ${tables[turn % tables.length]} (election_id, committee_id, votes) values (1, $1, 1)`,
      [1 + (turn % committees)],
    )
    commits.push((now() - began) / 1_000)
    reached = (await audience.reach(commits.length * receivers)).reached
  }
  const used = cpuOf(server.pid) - cpu
  const report = await audience.report()
  const fault = faultOf({
    reports: [report],
    expected: receivers === clients ? commits.length : undefined,
    total: commits.length * receivers,
    alive: server.alive(),
  })
  if (fault !== undefined) return { kind: "invalid", reason: fault }
  return measured(
    figure("commit p50", percentilesOf(commits).p50, "ms"),
    figure("CPU a change", used / commits.length, "µs"),
    figure("CPU a delivery", used / report.events, "µs"),
  )
}

/**
 * Writers: what the capture takes from those who write. Commits a second of the same statement on the same table, with
 * nothing on it, with a NOTIFY that carries the row, and with ours, in turns, because a machine has better and worse moments.
 */

import { pgbench } from "../pgbench.ts"
import { compareSubjects, figure, measured, type Outcome, type Row } from "../row.ts"
import { AbsentError } from "../server.ts"
import type { Group, Stage } from "../stage.ts"

const SECONDS = 3
const QUICK_SECONDS = 1
const ROUNDS = 3
/** Until the relay has seen that writers are busy, and polls. */
const WARM_SECONDS = 1

interface Case {
  subject: string
  script: "none" | "notify" | "ours"
  settings?: Record<string, string>
}

const NOTHING: Case = { subject: "no trigger", script: "none" }
const OURS: Case = { subject: "ours", script: "ours" }
const KINDS: Array<{ name: string; statement: string; cases: Case[] }> = [
  {
    name: "INSERT",
    statement: "insert",
    cases: [
      NOTHING,
      OURS,
      { subject: "ours, no bell", script: "ours", settings: { "relay.bell": "off" } },
      { subject: "ours, a bell each", script: "ours", settings: { "relay.bell": "always" } },
      { subject: "ours, bulk flag", script: "ours", settings: { "relay.bulk_load": "on" } },
      { subject: "plain NOTIFY", script: "notify" },
    ],
  },
  {
    name: "UPDATE",
    statement: "update",
    cases: [
      NOTHING,
      OURS,
      { subject: "ours, bulk flag", script: "ours", settings: { "relay.bulk_load": "on" } },
      { subject: "plain NOTIFY", script: "notify" },
    ],
  },
]
/** A thousand rows a statement. */
const MANY = {
  name: "INSERT of 1,000 rows",
  statement: "many",
  cases: [
    NOTHING,
    OURS,
    { subject: "ours, bulk flag", script: "ours", settings: { "relay.bulk_load": "on" } } as Case,
  ],
}

const PREPARE = `
  create table writers_none (like vote including all);
  create table writers_notify (like vote including all);
  create table writers_ours (like vote including all);
  create function writers_notify() returns trigger language plpgsql as $$
  begin perform pg_notify('writers', row_to_json(new)::text); return null; end $$;
  create trigger notify after insert or update on writers_notify for each row execute function writers_notify();
  select relay.track('writers_ours', type => 'voting_update');
`
const FILL = ["none", "notify", "ours"]
  .map(
    (name) =>
      `truncate writers_${name} restart identity; insert into writers_${name} (votes) select 1 from generate_series(1, 10000)`,
  )
  .join("; ")

export const writers: Group = async function* (stage) {
  const { quick, clients = [1, 16, 64] } = stage.choice
  const session = await stage.session()
  // A relay is there in all cases, without clients: it captures nothing of the tables that are not its own.
  const relay = await stage.server("ours")
  await session.query(PREPARE)
  const runs = [
    ...clients.flatMap((count) => KINDS.map((kind) => ({ ...kind, count }))),
    ...(stage.choice.clients === undefined ? [{ ...MANY, count: 1 }] : []),
  ]
  for (const { name, statement, cases, count } of runs) {
    await session.query(FILL)
    const found = new Map<Case, number[]>(cases.map((each) => [each, []]))
    stage.note(`${name}, ${count} writers`)
    let failure: Outcome | undefined
    try {
      for (let round = 0; round < (quick ? 1 : ROUNDS); round++)
        for (const each of cases) {
          const load = {
            databaseUrl: stage.databaseUrl,
            script: `${statement}-${each.script}`,
            writers: count,
            settings: each.settings,
          }
          await pgbench({ ...load, seconds: WARM_SECONDS })
          found.get(each)?.push(await pgbench({ ...load, seconds: quick ? QUICK_SECONDS : SECONDS }))
          await settle(stage)
        }
      if (!relay.alive()) failure = { kind: "invalid", reason: "the relay died" }
    } catch (error) {
      const kind = error instanceof AbsentError ? "absent" : "invalid"
      failure = { kind, reason: (error as Error).message }
    }
    const rows = cases.map(
      (each): Row => ({
        group: "writers",
        name: `${name}, ${count} ${count === 1 ? "writer" : "writers"}`,
        subject: each.subject,
        command:
          statement === "many" ? "npm run bench -- writers" : `npm run bench -- writers --clients ${count}`,
        outcome:
          failure ??
          measured(
            figure(statement === "many" ? "statements" : "commits", median(found.get(each) ?? []), "/s"),
          ),
      }),
    )
    yield* compareSubjects(rows, ["commits", "statements"], [NOTHING.subject, "plain NOTIFY"])
  }
  await stage.clear()
}

/** Waits until no lease is in force any more, so that each case begins with a quiet bell. */
async function settle(stage: Stage): Promise<void> {
  const session = await stage.session()
  await session.query("checkpoint").catch(() => {})
  for (;;) {
    const { rows } = await session.query(
      "select relay.lease_in_force(pg_sequence_last_value('relay.lease')) as it",
    )
    if (rows[0].it === false) break
    await session.query("select pg_sleep(0.05)")
  }
  await session.end()
}

function median(sample: number[]): number {
  const sorted = [...sample].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] as number
}

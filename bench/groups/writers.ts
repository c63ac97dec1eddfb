/**
 * Writers: what the capture takes from those who write. Commits a second of the same statement on the same table, with
 * nothing on it, with a NOTIFY that carries the row, with a trigger that only logs, and with ours, in turns, because a
 * machine has better and worse moments.
 */

import { pgbench } from "../harness/pgbench.ts"
import { compareSubjects, figure, measured, type Outcome, type Row } from "../harness/row.ts"
import { AbsentError } from "../harness/server.ts"
import type { Group, Stage } from "../harness/stage.ts"

const SECONDS = 2
const QUICK_SECONDS = 1
const ROUNDS = 3
/** Until the relay has seen that writers are busy, and polls. */
const WARM_SECONDS = 1

interface Case {
  subject: string
  script: "none" | "notify" | "log" | "ours"
  settings?: Record<string, string>
}

const NOTHING: Case = { subject: "no trigger", script: "none" }
const OURS: Case = { subject: "ours", script: "ours" }
const FLAGGED: Case = { subject: "ours, bulk flag", script: "ours", settings: { "relay.bulk_load": "on" } }
const LOG: Case = { subject: "a log and no more", script: "log" }
const NOTIFY: Case = { subject: "plain NOTIFY", script: "notify" }
/** Enough for the fastest to delete. */
const ROWS = { insert: 10_000, update: 10_000, many: 10_000, delete: 120_000 }
const KINDS: Array<{ name: string; statement: keyof typeof ROWS; cases: Case[] }> = [
  {
    name: "INSERT",
    statement: "insert",
    cases: [
      NOTHING,
      OURS,
      { subject: "ours, no bell", script: "ours", settings: { "relay.bell": "off" } },
      { subject: "ours, a bell each", script: "ours", settings: { "relay.bell": "always" } },
      FLAGGED,
      LOG,
      NOTIFY,
    ],
  },
  { name: "UPDATE", statement: "update", cases: [NOTHING, OURS, FLAGGED, LOG, NOTIFY] },
  { name: "DELETE", statement: "delete", cases: [NOTHING, OURS, FLAGGED, LOG, NOTIFY] },
]
/** A thousand rows a statement. */
const MANY = { name: "INSERT of 1,000 rows", statement: "many" as const, cases: [NOTHING, OURS, FLAGGED] }

const TABLES = ["none", "notify", "log", "ours"] as const
/** The trigger that only logs does what every audit trigger does, and no more. */
const PREPARE = `
  ${TABLES.map((name) => `create table writers_${name} (like vote including all); create sequence writers_${name}_next;`).join("")}
  create function writers_notify() returns trigger language plpgsql as $$
  begin
    perform pg_notify('writers', case TG_OP when 'DELETE' then row_to_json(old) else row_to_json(new) end::text);
    return null;
  end $$;
  create trigger notify after insert or update or delete on writers_notify
    for each row execute function writers_notify();
  create table writers_logged (
    seq bigint generated always as identity, xid xid8 default pg_current_xact_id(), at timestamptz default clock_timestamp(),
    name text, op text, old text, new text);
  create index on writers_logged (xid);
  create function writers_log() returns trigger language plpgsql as $$
  begin
    insert into writers_logged (name, op, old, new) values (TG_TABLE_NAME, TG_OP,
      case when TG_OP <> 'INSERT' then row_to_json(old)::text end, case when TG_OP <> 'DELETE' then row_to_json(new)::text end);
    return null;
  end $$;
  create trigger log after insert or update or delete on writers_log for each row execute function writers_log();
  select relay.track('writers_ours', type => 'voting_update');
`
/** New rows, which no trigger sees. */
const filling = (rows: number, tables: readonly string[] = TABLES) => `
  set relay.bulk_load = 'on';
  ${tables
    .map(
      (name) => `
      alter table writers_${name} disable trigger user;
      truncate writers_${name} restart identity;
      insert into writers_${name} (votes) select 1 from generate_series(1, ${rows});
      alter sequence writers_${name}_next restart;
      alter table writers_${name} enable trigger user;`,
    )
    .join("")}
  truncate writers_logged;
  reset relay.bulk_load`

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
    await session.query(filling(ROWS[statement]))
    const found = new Map<Case, number[]>(cases.map((each) => [each, []]))
    stage.note(`${name}, ${count} writers`)
    let failure: Outcome | undefined
    try {
      for (let round = 0; round < (quick ? 1 : ROUNDS); round++)
        for (const each of cases) {
          if (statement === "delete") await session.query(filling(ROWS.delete, [each.script]))
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

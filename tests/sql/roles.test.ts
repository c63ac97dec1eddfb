/** The table of roles and actions in docs/SECURITY.md: each cell is tried, and is as it says there. */

import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import type pg from "pg"
import t, { type Test } from "tap"
import { type Database, database } from "../helpers/database.ts"
import { missing, readLog, readOps, refusal, role, VERSIONS } from "../helpers/log.ts"
import { until } from "../helpers/wait.ts"

const ROLES = ["writer", "reader", "owner", "relay", "publisher"] as const
type Role = (typeof ROLES)[number]
/** `nothing`: it can be done, and nothing comes of it. `own`: it concerns what this role writes, and nobody else. */
type Answer = "yes" | "no" | "nothing" | "own"

interface World {
  db: Database
  superuser: pg.Client
  sessions: Record<Role, pg.Client>
  /** Of the database's role. */
  nameOf(role: Role): string
  /** The number of the tracked table, which its capture's functions are called by. */
  id: number
}
type Attempt = (world: World, role: Role) => Promise<Answer>

// ------------------------------------------------------------------------------------------- the document

const document = readFileSync(fileURLToPath(import.meta.resolve("#root/docs/SECURITY.md")), "utf8")

/** Each action with its answers, in the order of ROLES. */
function documented(): Map<string, string[]> {
  const [, table = ""] = /^\| action \| writer \| .+\n\|[-|]+\n((?:\|.+\n)+)/m.exec(document) ?? []
  const rows = table.trim().split("\n")
  return new Map(
    rows.map((row) => {
      const [action = "", ...answers] = row.slice(2, -2).split(" | ")
      return [action, answers]
    }),
  )
}

// ------------------------------------------------------------------------------------------- the world

async function makeWorld(t: Test, version: (typeof VERSIONS)[number]): Promise<World> {
  const db = await database(t, { version })
  const superuser = await db.session(db.superuserUrl)
  const urls = {} as Record<Role, string>
  for (const name of ROLES) urls[name] = await role(t, db, name)
  const nameOf = (role: Role) => new URL(urls[role]).username
  await superuser.query(`
    grant insert, update, delete, truncate on vote to ${nameOf("writer")};
    grant select on vote to ${nameOf("writer")}, ${nameOf("reader")};
    alter table vote owner to ${nameOf("owner")}`)
  await db.query(
    `select relay.admit_relay('${nameOf("relay")}'), relay.admit_publisher('${nameOf("publisher")}')`,
  )
  const sessions = {} as Record<Role, pg.Client>
  for (const name of ROLES) sessions[name] = await db.session(urls[name])
  const [tracked] = await db.query<{ id: number }>("select id from relay.tracking where name = 'public.vote'")
  return { db, superuser, sessions, nameOf, id: tracked?.id as number }
}

/** PostgreSQL says that the role may not, or that there is no such thing to be done. */
const REFUSED = ["42501", "0A000"]

/** Tries statements, and undoes them. @returns whether all can be done or none. @throws where it is not the same for all. */
async function may(session: pg.Client, ...statements: string[]): Promise<boolean> {
  const refused: boolean[] = []
  for (const sql of statements) {
    await session.query("begin")
    const error = await refusal(session.query(sql))
    await session.query("rollback")
    if (error !== undefined && !REFUSED.includes(error.code)) throw new Error(`${sql}: ${error.message}`)
    refused.push(error !== undefined)
  }
  if (new Set(refused).size !== 1) throw new Error(`not the same for all: ${statements} ${refused}`)
  return !refused[0]
}

/** What is allowed or refused for each of some statements alike. */
const statements =
  (...texts: string[]): Attempt =>
  async ({ sessions, id }, role) =>
    (await may(sessions[role], ...texts.map((text) => text.replaceAll("$id", String(id))))) ? "yes" : "no"

/** The log after somebody else has written a row. */
async function logged({ db, superuser }: World, votes: number): Promise<unknown[]> {
  const before = (await readLog(db)).length
  await superuser.query(`insert into vote (votes) values (${votes})`)
  return (await readLog(db)).slice(before).map(({ op, new: row }) => [op, row?.votes])
}

// ------------------------------------------------------------------------------------------- the actions

/** Keys of advisory locks, which anybody may take; old versions of ours used them. */
const KEYS = ["relay.rotate", "relay.lineage", "relay.track"]

const lock: Attempt = async (world, role) => {
  const session = world.sessions[role]
  for (const key of KEYS) await session.query("select pg_advisory_lock(hashtext($1))", [key])
  const other = await world.db.session()
  await other.query("set statement_timeout = '10s'")
  try {
    const { rows } = await other.query("select relay.rotate('0', 0) is not null as rotated")
    await other.query("select relay.begin_lineage(); select relay.track('public.committee')")
    await other.query("select relay.untrack('public.committee')")
    return rows[0]?.rotated === true ? "nothing" : "yes"
  } finally {
    await session.query("select pg_advisory_unlock_all()")
    await other.end()
  }
}

const holdOpen: Attempt = async ({ db, sessions, superuser }, role) => {
  const session = sessions[role]
  const acts: Record<Role, string> = {
    writer: "insert into vote default values",
    reader: "select from vote",
    owner: "insert into vote default values",
    relay: "select from relay.change",
    publisher: "select relay.broadcast('news', '1')",
  }
  await session.query(`begin; ${acts[role]}`)
  await superuser.query("set lock_timeout = '5s'")
  let held = false
  // Whatever partition it has: it comes round.
  for (let round = 0; round < 3 && !held; round++) {
    const error = await refusal(db.query("select relay.advance_slot(relay.rotate('0', 0))"))
    held = error?.code === "55P03"
    if (error === undefined) await db.query("select relay.advance_slot(((relay.slot() + 1) % 3)::smallint)")
  }
  await session.query("rollback")
  return held ? "yes" : "no"
}

const ATTEMPTS: Record<string, Attempt> = {
  "read the log": statements("select from relay.change", "select old, new from relay.change where seq = 1"),
  "write, change or empty the log": statements(
    "insert into relay.change_0 (what, data) values (1, '{}')",
    "update relay.change_0 set data = null",
    "delete from relay.change_1",
    "truncate relay.change_2",
    "insert into relay.what (id, type, op) values (0, 'message', 'message')",
    "update relay.what set meta = null",
  ),
  "see what is tracked": statements("select from relay.tracked", "select from relay.tracking"),
  "set the relay's sequences": statements(
    "select nextval('relay.change_seq')",
    "select setval('relay.change_seq', 1)",
    "select setval('relay.state', 1)",
    "select setval('relay.lease', 1)",
    "alter sequence relay.change_seq restart",
  ),
  "lock the log and what belongs to it against others": statements(
    "lock table relay.change_0 in access exclusive mode",
    "lock table relay.change in share mode",
    "lock table relay.horizon in row exclusive mode",
    "lock table relay.lineage in share row exclusive mode",
    "lock table relay.tracking in share row exclusive mode",
    "select from relay.horizon for share",
  ),
  "hold the relay's places among the advisory locks": lock,
  "make or change objects in the relay's schema": statements(
    "create table relay.mine (id int)",
    "create function relay.mine() returns int language sql as 'select 1'",
    "create or replace function relay.is_paused() returns boolean language sql as 'select true'",
    "alter function relay.cursor() set search_path = pg_temp",
    "create trigger mine before insert on relay.change_0 for each row execute function suppress_redundant_updates_trigger()",
    "alter schema relay rename to mine",
  ),
  "track and untrack tables": statements(
    "select relay.track('public.vote')",
    "select relay.untrack('public.vote')",
    "select relay.mend('public.vote')",
    "select relay.admit_relay(current_user)",
    "select relay.admit_publisher(current_user)",
  ),
  "pause and resume the capture of all, begin a lineage": statements(
    "select relay.pause()",
    "select relay.resume()",
    "select relay.begin_lineage()",
  ),
  "rotate the log, renew the capture's code, watch the tables, set a lease, write a canary": statements(
    "select relay.rotate('1 day', 1000000000)",
    "select relay.advance_slot(0::smallint)",
    "select relay.renew()",
    "select relay.watch()",
    "select relay.set_lease(1)",
    "select relay.end_lease()",
    "select relay.meet_lineage()",
    "select relay.canary('x')",
  ),
  "say that columns are restricted, forget the log": statements(
    `select relay.track('public.vote', restricted => '{"admin": ["entered_by"]}')`,
    "select relay.forget_log()",
  ),
  "revoke and reinstate users and tokens": statements(
    "select relay.revoke('7')",
    "select relay.reinstate('7')",
    "insert into relay.revocation (kind, value, until) values ('user', '7', 'infinity')",
    "delete from relay.revocation",
    "select relay.admit_revoker(current_user)",
  ),
  "see who is revoked": statements("select from relay.revocation"),
  "define and drop derived messages": statements(
    "select relay.define_derived('totals', 'pg_backend_pid', '{public.vote}')",
    "select relay.drop_derived('totals')",
    "insert into relay.derived values ('totals', 'dashboard', null, 'f', '{}', '1s', '1s')",
  ),
  "see what is derived": statements("select from relay.derived"),
  "send messages": statements(
    "select relay.broadcast('election_updates', '1')",
    "select relay.send_to_user('7', '1')",
  ),
  "take a cursor": statements("select relay.cursor()"),
  "call the capture's functions, hang them on a table of its own": statements(
    "select relay.capture_insert_$id()",
    "create temp table mine (id int); create trigger mine after insert on mine for each row execute function relay.capture_insert_$id()",
    "create temp table mine (id int); create trigger mine after insert on mine for each statement execute function relay.capture_truncate_$id()",
    "select relay.data_sql($id, 'insert', 'public.vote', false)",
  ),
  "disable, drop or pass over the triggers of a table": statements(
    'alter table vote disable trigger "000_relay_insert_$id"',
    'drop trigger "000_relay_update_$id" on vote',
    "alter table vote disable trigger user",
  ),
  "set session_replication_role": statements("set session_replication_role = replica"),
  "leave rows out by relay.bulk_load": async (world, role) => {
    const session = world.sessions[role]
    const before = (await readLog(world.db)).length
    await session.query("set relay.bulk_load = 'on'")
    const writes = (await refusal(session.query("insert into vote default values"))) === undefined
    const own = (await readLog(world.db)).length === before
    const others = await logged(world, 5)
    await session.query("reset relay.bulk_load")
    if (others.length !== 1) return "yes"
    return writes && own ? "own" : "nothing"
  },
  "ring a forged bell": async (world, role) => {
    const before = await readLog(world.db)
    for (const forged of [
      { v: 1, table: "public.vote", op: "insert", rows: 1, xid: "1" },
      { v: 1, lease: 2_000 },
    ])
      await world.sessions[role].query("select pg_notify('election_updates', $1)", [JSON.stringify(forged)])
    return (await readLog(world.db)).length === before.length ? "nothing" : "yes"
  },
  "hear the bells: table, operation, number of rows": async (world, role) => {
    const session = world.sessions[role]
    const heard: string[] = []
    session.on("notification", ({ payload = "" }) => heard.push(payload))
    await session.query("listen election_updates")
    // One that a relay's role has set is over, and still there: nobody has taken it away.
    await world.db.query("select relay.end_lease()")
    await logged(world, 4711)
    await until("a bell", () => heard.length > 0)
    await session.query("unlisten *")
    return heard.some((payload) => /4711|entered/.test(payload)) ? "own" : "yes"
  },
  "bring in its own functions, operators and tables by search_path and pg_temp": async (world, role) => {
    const session = world.sessions[role]
    await session.query(
      `set search_path = pg_temp, public, pg_catalog;
      create temp table change (id int); create temp table tracking (id int); create temp table horizon (h text);
      create function pg_temp.row_to_json(record) returns json language plpgsql as 'begin raise exception ''hijacked''; end';
      create function pg_temp.pg_sequence_last_value(regclass) returns bigint language plpgsql as 'begin raise exception ''hijacked''; end';
      create function pg_temp.equal(text, text) returns bool language plpgsql as 'begin raise exception ''hijacked''; end';
      create operator pg_temp.= (leftarg = text, rightarg = text, function = pg_temp.equal)`.replace(
        "(like relay.lease)",
        "(id int)",
      ),
    )
    const before = (await readLog(world.db)).length
    const writes = (await refusal(session.query("insert into public.vote default values"))) === undefined
    const logs = (await readLog(world.db)).length - before
    const others = await logged(world, 6)
    await session.query("reset search_path; discard temp")
    return others.length === 1 && logs === (writes ? 1 : 0) ? "nothing" : "yes"
  },
  "have its own cast to json run as the relay's owner": async (world, role) => {
    const { db, superuser } = world
    const session = world.sessions[role]
    await superuser.query(`grant create on schema public to ${world.nameOf("owner")}`)
    await session.query("begin")
    const made = await refusal(
      session.query(`create type public.own as enum ('a');
        create function public.spy(public.own) returns json language plpgsql as 'begin raise exception ''run as %'', current_user; end';
        create cast (public.own as json) with function public.spy(public.own);
        alter table vote add column own public.own`),
    )
    await session.query(made === undefined ? "commit" : "rollback")
    if (made !== undefined) return "no"
    // A DBA who tracks the table again changes nothing: it is the column's type that is somebody else's.
    await superuser.query("select relay.track('public.vote', key => '{id}')")
    const before = (await readLog(db)).length
    const run = await refusal(session.query("insert into vote (own) values ('a')"))
    const logs = (await readLog(db)).length - before
    await session.query("alter table vote drop column own; drop type public.own cascade")
    await superuser.query("select relay.track('public.vote')")
    return run === undefined && logs === 1 ? "nothing" : "yes"
  },
  "see columns that it may not read, in messages and plans of its own writes": async (world, role) => {
    const { superuser, nameOf } = world
    const session = world.sessions[role]
    const hidden = 47_114_711
    // Alone in the table: after some rows a session makes no more plans that have the row in them.
    await superuser.query(`delete from vote; insert into vote (votes, entered_by) values (${hidden}, 'for nobody''s eyes');
      revoke select on vote from ${nameOf(role)}`)
    const told: string[] = []
    const hear = ({ message, detail }: { message?: string | undefined; detail?: string | undefined }) =>
      void told.push(`${message} ${detail}`)
    session.on("notice", hear)
    await session.query(
      "set client_min_messages = debug5; set debug_pretty_print = off; set debug_print_plan = on; set debug_print_parse = on; set debug_print_rewritten = on",
    )
    const done = async (sql: string) => {
      const { length } = told
      const error = await refusal(session.query(sql))
      if (error !== undefined) hear(error)
      else if (told.length < length + 5) throw new Error(`asked for its plans, and told of none: ${sql}`)
      return error === undefined
    }
    // If its first write fails while the conditions of the capture are planned, they are planned with the row in them from then on.
    await superuser.query(
      "select relay.track('public.vote'); alter function relay.log_is_there() rename to not_there",
    )
    await refusal(session.query("update vote set status = 'corrected'"))
    await superuser.query("alter function relay.not_there() rename to log_is_there")
    const writes = await done("update vote set status = 'verified'")
    await done("begin isolation level serializable; update vote set status = 'corrected'; commit")
    await done("begin; delete from vote; rollback")
    // Of a table that was altered the capture finds its columns anew.
    await superuser.query("alter table vote rename column entered_by to by_whom")
    await done("update vote set status = 'entered'")
    await superuser.query("alter table vote rename column by_whom to entered_by")
    session.off("notice", hear)
    await session.query("rollback; reset all")
    await superuser.query(
      `grant select on vote to ${nameOf("writer")}, ${nameOf("reader")}, ${nameOf("owner")}`,
    )
    const bytes = Buffer.alloc(4)
    bytes.writeInt32LE(hidden)
    const asPlansShow = [...new Int8Array(bytes)].join(" ")
    const text = told.join("\n")
    if (text.includes(asPlansShow) || text.includes(String(hidden)) || /nobody's eyes/.test(text))
      return "yes"
    return writes ? "nothing" : "no"
  },
  "see what others say to the database": async ({ sessions, superuser }, role) => {
    await superuser.query("select 'said by another'")
    const { rows } = await sessions[role].query(
      "select from pg_stat_activity where query like '%by another%' and pid <> pg_backend_pid()",
    )
    return rows.length > 0 ? "yes" : "no"
  },
  "see how much is written, by size and statistics": statements(
    "select pg_total_relation_size('relay.change_0'), pg_relation_size(oid) from pg_class where relname = 'change_0'; select n_tup_ins from pg_stat_all_tables where schemaname = 'relay'",
  ),
  "read the log's columns in pg_stats": async ({ sessions, superuser }, role) => {
    await superuser.query("analyze relay.change_0, relay.change_1, relay.change_2")
    const { rows } = await sessions[role].query(
      "select from pg_stats where schemaname = 'relay' and attname = 'data'",
    )
    return rows.length > 0 ? "yes" : "no"
  },
  "end the relay's sessions": async ({ sessions, db, superuser, nameOf }, role) => {
    const url = new URL(db.url)
    url.username = nameOf("relay")
    const relay = await db.session(url.href)
    const { rows } = await relay.query<{ pid: number }>("select pg_backend_pid() as pid")
    const error = await refusal(sessions[role].query(`select pg_terminate_backend(${rows[0]?.pid})`))
    if (error === undefined) return "yes"
    await superuser.query("select 1")
    return "no"
  },
  "keep the log from being rotated, by a transaction that stays open": holdOpen,
}

// ------------------------------------------------------------------------------------------- the tests

t.test("the document and the attempts name the same actions", async (t) => {
  t.strictSame([...documented().keys()].sort(), Object.keys(ATTEMPTS).sort())
})

for (const version of VERSIONS) {
  t.test(`each cell, on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    const world = await makeWorld(t, version)
    await world.superuser.query("insert into vote default values")
    t.same(await readOps(world.db), ["insert"], "the capture works")
    for (const [action, answers] of documented()) {
      const found: (string | undefined)[] = []
      for (const role of ROLES)
        found.push(await ATTEMPTS[action]?.(world, role).catch((error: Error) => error.message))
      t.strictSame(found, answers, action)
    }
  })
}

/** Who may do what: writers need no right on the relay, and none of their names or objects reach into it. */

import t from "tap"
import { type Database, database } from "../helpers/database.ts"
import { lastEntry, missing, readLog, readOps, refusal, role, VERSIONS } from "../helpers/log.ts"

const WRITE = `insert into public.vote (votes) values (1), (2); update public.vote set votes = votes + 1;
  delete from public.vote where votes = 2; truncate public.attendance`

const allOps = ["insert", "insert", "update", "update", "delete", "truncate"]

/** Lets the writer make what it likes in a schema that it puts first. */
const ownSchema = async (db: Database) => {
  const superuser = await db.session(db.superuserUrl)
  await superuser.query(
    "create schema own authorization writer; grant usage on schema own to public; grant create on schema public to writer",
  )
}

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test(
      "a role without any right on the relay writes tracked tables, and every write is logged",
      async (t) => {
        const db = await database(t, { version })
        const writer = await db.session(db.writerUrl)
        await writer.query(WRITE)
        await writer.query("begin isolation level serializable; insert into vote default values; commit")
        t.same(await readOps(db), [...allOps, "insert"])
      },
    )

    t.test(
      "a table in a schema that is closed to the changelog's owner is captured and watched",
      async (t) => {
        const db = await database(t, { version })
        const superuser = await db.session(db.superuserUrl)
        await superuser.query(`create schema "Closed ""x"; create table "Closed ""x".t (id int primary key);
        create schema parts; create table parts.tree (id int primary key) partition by range (id);
        create table parts.leaf partition of parts.tree default;
        select relay.track('"Closed ""x".t', type => 'closed_update'); select relay.track('parts.tree');
        grant usage on schema "Closed ""x", parts to writer; grant all on "Closed ""x".t, parts.tree to writer`)
        const writer = await db.session(db.writerUrl)
        await writer.query(
          `insert into "Closed ""x".t values (1); update "Closed ""x".t set id = 2; insert into parts.tree values (1)`,
        )
        await writer.query(`begin isolation level repeatable read; delete from "Closed ""x".t; commit`)
        t.same(await readOps(db), ["insert", "update", "insert", "delete"])
        await superuser.query("select relay.watch()")
        t.same(
          (await superuser.query("select problem from relay.tracked where name ~ 'Closed|parts'")).rows,
          [{ problem: null }, { problem: null }],
        )
        await superuser.query(
          `alter table "Closed ""x".t rename to moved; create table "Closed ""x".t (id int)`,
        )
        t.match((await superuser.query("select problem from relay.tracked where name ~ 'Closed'")).rows, [
          { problem: /there is another of its name/ },
        ])
      },
    )

    t.test("of the relay's functions everybody may call relay.cursor() alone", async (t) => {
      const db = await database(t, { version })
      const functions = await db.query<{ signature: string; open: boolean }>(`
        select p.oid::regprocedure::text as signature, has_function_privilege('writer', p.oid, 'execute') as open
        from pg_proc p where p.pronamespace = 'relay'::regnamespace order by 1`)
      t.ok(functions.length > 20)
      t.same(
        functions.filter(({ open }) => open).map(({ signature }) => signature),
        ["relay.cursor()"],
      )
    })

    t.test("everybody may neither read nor change a relation of the relay", async (t) => {
      const db = await database(t, { version })
      const found = await db.query(`
        select c.oid::regclass::text as name, p.privilege from pg_class c, unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) p(privilege)
        where c.relnamespace = 'relay'::regnamespace and c.relkind in ('r', 'p', 'v') and has_table_privilege('writer', c.oid, p.privilege)
        union all
        select c.oid::regclass::text, p.privilege from pg_class c, unnest(array['select', 'update', 'usage']) p(privilege)
        where c.relnamespace = 'relay'::regnamespace and c.relkind = 'S' and has_sequence_privilege('writer', c.oid, p.privilege)`)
      t.same(found, [])
      t.same(await db.query("select has_schema_privilege('writer', 'relay', 'create') as it"), [
        { it: false },
      ])
      const writer = await db.session(db.writerUrl)
      for (const sql of [
        "select * from relay.change",
        "insert into relay.change_0 (what, data) values (1, '{}')",
        "update relay.what set meta = null",
        "select * from relay.tracked",
        "select relay.track('vote')",
        "select relay.untrack('vote')",
        "select relay.broadcast('election_updates', '1')",
        "select relay.send_to_user('7', '1')",
        "select relay.revoke('7')",
        "select relay.reinstate('7')",
        "select * from relay.revocation",
        "insert into relay.revocation (kind, value, until) values ('user', '7', 'infinity')",
        "select relay.rotate('0', 0)",
        "select relay.set_lease(2000)",
        "select relay.end_lease()",
        "select relay.meet_lineage()",
        "select nextval('relay.change_seq')",
        "select setval('relay.state', 1)",
      ])
        t.match(await refusal(writer.query(sql)), { code: "42501" }, sql)
      t.same(await readOps(db), [])
    })

    t.test(
      "admitted roles: a relay's role may read and rotate, a publisher's may send, a revoker's may revoke, and none the other",
      async (t) => {
        const db = await database(t, { version })
        const [reader, publisher, revoker] = [
          await role(t, db, "reader"),
          await role(t, db, "publisher"),
          await role(t, db, "revoker"),
        ]
        const nameOf = (url: string) => new URL(url).username
        await db.query(
          `select relay.admit_relay('${nameOf(reader)}'), relay.admit_publisher('${nameOf(publisher)}'), relay.admit_revoker('${nameOf(revoker)}')`,
        )
        const [r, p, v] = [await db.session(reader), await db.session(publisher), await db.session(revoker)]
        await r.query(
          "select relay.meet_lineage(), relay.set_lease(1), relay.end_lease(), relay.rotate('1 day', 1000000000)",
        )
        await r.query(
          "select * from relay.change, relay.horizon, relay.lineage, relay.migration, relay.tracked; select relay.revocation_text(r) from relay.revocation r; select pg_sequence_last_value('relay.lease')",
        )
        await p.query(`select relay.broadcast('committee:7', '{"a": 1}'), relay.send_to_user('7', '"hi"')`)
        await v.query("select relay.revoke('7'), relay.revoke(jti => 'x')")
        t.same((await v.query("select value from relay.revocation where revoked_by = session_user")).rows, [
          { value: "7" },
          { value: "x" },
        ])
        t.same(
          (await v.query("select relay.reinstate('7') as it, relay.reinstate(jti => 'x') as its")).rows,
          [{ it: true, its: true }],
        )
        for (const [session, sql] of [
          [r, "select relay.revoke('7')"],
          [r, "select relay.reinstate('7')"],
          [r, "delete from relay.revocation"],
          [p, "select relay.revoke('7')"],
          [p, "select from relay.revocation"],
          [v, "select relay.send_to_user('7', '1')"],
          [v, "select from relay.change"],
          [v, "delete from relay.revocation"],
          [v, "select relay.log_revocation(r) from relay.revocation r"],
          [r, "select relay.broadcast('committee:7', '1')"],
          [r, "select relay.track('vote')"],
          [r, "select from vote"],
          [r, "insert into relay.change_0 (what, data) values (1, '{}')"],
          [r, "update relay.what set meta = null"],
          [p, "select from relay.change"],
          [p, "select relay.rotate('0', 0)"],
        ] as const)
          t.match(await refusal(session.query(sql)), { code: "42501" }, sql)
        t.match(
          (await readLog(db))
            .filter(({ op }) => op === "message")
            .map(({ op, meta, new: payload }) => [op, meta.channel, payload]),
          [
            ["message", "committee:7", { a: 1 }],
            ["message", "user:7", "hi"],
          ],
        )
      },
    )

    t.test("broadcast takes channels that a client could name, and no other", async (t) => {
      const db = await database(t, { version })
      for (const channel of [
        "",
        "Committee:7",
        "committee:",
        "committee:7:8",
        "committee: 7",
        "committee:7\n",
        `c:${"x".repeat(129)}`,
        "a b",
        "user:",
      ])
        t.match(
          await refusal(db.query("select relay.broadcast($1, '1')", [channel])),
          { code: "22023", message: /cannot be used/ },
          channel,
        )
      t.match(await refusal(db.query("select relay.send_to_user('', '1')")), { code: "22023" })
      await db.query("select relay.broadcast('news', '1'), relay.broadcast('committee:ä-7', 'null')")
      t.same(await readOps(db), ["message", "message"])
    })

    t.test("a writer's own functions, operators and tables of our names are not used", async (t) => {
      const db = await database(t, { version })
      await ownSchema(db)
      const writer = await db.session(db.writerUrl)
      const trap = "language plpgsql as $$ begin raise exception 'hijacked as %', current_user; end $$"
      await writer.query(`set search_path = own, public, pg_catalog;
        create function own.pg_notify(text, text) returns void ${trap};
        create function own.row_to_json(record) returns json ${trap};
        create function own.current_setting(text, boolean) returns text ${trap};
        create function own.pg_sequence_last_value(regclass) returns bigint ${trap};
        create function own.nextval(regclass) returns bigint ${trap};
        create function own.clock_timestamp() returns timestamptz ${trap};
        create function own.pg_current_xact_id() returns xid8 ${trap};
        create function own.lower(text) returns text ${trap};
        create function own.coalesce_trap(text, text) returns bool ${trap};
        create operator own.= (leftarg = text, rightarg = text, function = own.coalesce_trap);
        create operator own.<> (leftarg = text, rightarg = text, function = own.coalesce_trap);
        create function own.record_trap(record, record) returns bool ${trap};
        create operator own.*<> (leftarg = record, rightarg = record, function = own.record_trap);
        create domain own.text as pg_catalog.text check (value is null);
        create table own.change (like public.vote); create table own.new_rows (id int); create table own.tracking (id int)`)
      await writer.query(WRITE)
      t.same(await readOps(db), allOps)
      t.same(await writer.query("select from own.change").then(({ rowCount }) => rowCount), 0)
    })

    t.test("temporary tables and functions of our names are not used", async (t) => {
      const db = await database(t, { version })
      const writer = await db.session(db.writerUrl)
      await writer.query(`create temp table change (like vote); create temp table new_rows (id int, votes int); create temp table tracking (id int);
        create temp table pg_class (oid int); create temp table horizon (h text); create temp table vote (id int);
        create function pg_temp.row_to_json(record) returns json language plpgsql as 'begin return null; end';
        create function pg_temp.lower(text) returns text language sql as $$ select 'truncate' $$;
        insert into new_rows values (7, 7); set search_path = pg_temp, public`)
      await writer.query(WRITE)
      t.same(await readOps(db), allOps)
      t.match((await readLog(db))[0]?.new, { votes: 1 })
      t.equal((await writer.query("select from change")).rowCount, 0)
    })

    t.test("a writer cannot call the capture's functions, nor hang them on a table of its own", async (t) => {
      const db = await database(t, { version })
      await ownSchema(db)
      const writer = await db.session(db.writerUrl)
      await writer.query("create table own.mine (id int primary key)")
      const [{ id } = { id: 0 }] = await db.query<{ id: number }>(
        "select id from relay.tracking where name = 'public.vote'",
      )
      for (const sql of [
        `select relay.capture_insert_${id}()`,
        `create trigger mine after insert on own.mine for each row execute function relay.capture_insert_${id}()`,
        `create trigger mine after insert on own.mine for each statement execute function relay.capture_truncate_${id}()`,
        `select relay.data_sql(${id}, 'insert', 'public.vote', false)`,
        `select relay.log(1, '{}')`,
      ])
        t.match(await refusal(writer.query(sql)), { code: /42501|0A000/ }, sql)
      await writer.query("insert into own.mine values (1)")
      t.same(await readOps(db), [])
    })

    t.test("row security of the table is the writer's matter: what was written is logged", async (t) => {
      const db = await database(t, { version })
      await db.query(`alter table vote enable row level security; alter table vote force row level security;
        create policy only_small on vote to writer using (votes < 10) with check (votes < 20)`)
      const writer = await db.session(db.writerUrl)
      await writer.query("insert into vote (votes) values (1), (15); update vote set votes = 12")
      t.same(
        (await readLog(db)).map(({ op, new: after }) => [op, after?.votes]),
        [
          ["insert", 1],
          ["insert", 15],
          ["update", 12],
        ],
      )
    })

    t.test("a writer without the right to a column still has it logged", async (t) => {
      const db = await database(t, { version })
      await db.query("revoke all on vote from writer; grant insert (votes) on vote to writer")
      const writer = await db.session(db.writerUrl)
      await writer.query("insert into vote (votes) values (1)")
      t.match(await lastEntry(db), { new: { votes: 1, status: "entered" } })
    })
  })
}

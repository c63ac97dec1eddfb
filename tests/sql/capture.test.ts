/** What each way of writing leaves in the changelog. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { copyIn, lastEntry, missing, readLog, readOps, refusal, VERSIONS } from "../helpers/log.ts"

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("statements of many rows are logged row by row, in order, under one xid", async (t) => {
      const db = await database(t, { version })
      await db.query(`begin; insert into vote (votes) values (1), (2), (3);
        update vote set votes = votes + 10; delete from vote; commit`)
      const log = await readLog(db)
      t.same(
        log.map(({ op, old, new: after }) => [op, old?.votes, after?.votes]),
        [
          ["insert", undefined, 1],
          ["insert", undefined, 2],
          ["insert", undefined, 3],
          ["update", 1, 11],
          ["update", 2, 12],
          ["update", 3, 13],
          ["delete", 11, undefined],
          ["delete", 12, undefined],
          ["delete", 13, undefined],
        ],
      )
      t.equal(new Set(log.map((entry) => entry.xid)).size, 1)
      t.match(log[0], { table: "public.vote", type: "voting_update" })
      t.same(log[0]?.meta, {
        key: ["id"],
        exact: ["id"],
        scope: { committee: "committee_id", election: "election_id" },
        instants: ["entered_at"],
      })
    })

    t.test("statements that touch no row leave nothing", async (t) => {
      const db = await database(t, { version })
      await db.query(
        "insert into vote (votes) select 1 where false; update vote set votes = 1; delete from vote",
      )
      t.same(await readOps(db), [])
    })

    t.test("an UPDATE that changes nothing is no event", async (t) => {
      const db = await database(t, { version })
      await db.query("insert into vote (votes) values (1), (2)")
      await db.query("update vote set votes = votes, status = 'entered'; update vote set votes = 2")
      t.same(await readOps(db), ["insert", "insert", "update"])
    })

    t.test("INSERT ON CONFLICT logs what it did: an insert, an update or nothing", async (t) => {
      const db = await database(t, { version })
      await db.query("insert into vote (id, votes) values (1, 1)")
      await db.query("insert into vote (id, votes) values (1, 9), (2, 9) on conflict do nothing")
      await db.query(
        "insert into vote (id, votes) values (2, 5), (3, 5) on conflict (id) do update set votes = excluded.votes",
      )
      await db.query(
        "insert into vote (id, votes) values (3, 5) on conflict (id) do update set votes = excluded.votes",
      )
      const log = await readLog(db)
      t.same(log.map(({ op, new: after }) => [op, after?.id, after?.votes]).sort(), [
        ["insert", 1, 1],
        ["insert", 2, 9],
        ["insert", 3, 5],
        ["update", 2, 5],
      ])
    })

    t.test("MERGE logs inserts, updates and deletes", async (t) => {
      const db = await database(t, { version })
      await db.query("insert into vote (id, votes) values (1, 1), (2, 2)")
      await db.query(`merge into vote v using (values (1, 10), (2, 0), (3, 30)) s(id, n) on v.id = s.id
        when matched and s.n = 0 then delete
        when matched then update set votes = s.n
        when not matched then insert (id, votes) values (s.id, s.n)`)
      const log = (await readLog(db)).slice(2)
      t.same(log.map(({ op, old, new: after }) => [op, (after ?? old)?.id, after?.votes]).sort(), [
        ["delete", 2, undefined],
        ["insert", 3, 30],
        ["update", 1, 10],
      ])
    })

    t.test("inserts captured by statement are logged as those captured by row", async (t) => {
      const logs = await Promise.all(
        ["row", "statement"].map(async (level) => {
          const db = await database(t, { version })
          await db.query(`select relay.track('vote', 'voting_update', level => '${level}')`)
          await db.query("insert into vote (id, votes) values (1, 1), (2, 2), (3, 3)")
          await db.query("insert into vote (id, votes) select n, n from generate_series(4, 6) n")
          await db.query(
            "insert into vote (id, votes) values (1, 9), (7, 7) on conflict (id) do update set votes = excluded.votes",
          )
          await copyIn(await db.session(), "copy vote (id, votes) from stdin", "8\t8\n9\t9\n")
          await db.query("begin; savepoint s; insert into vote (id) values (10); rollback to s; commit")
          await db.query("update vote set votes = votes + 1 where id < 4; delete from vote where id > 4")
          t.match(await db.query("select level from relay.tracked where name = 'public.vote'"), [{ level }])
          return (await readLog(db))
            .map(({ op, table, type, oldText, newText, meta }) =>
              JSON.stringify([op, table, type, oldText, newText, meta]).replace(
                /\d{4}-\d\d-\d\dT[\d:.+]+/g,
                "a time",
              ),
            )
            .sort()
        }),
      )
      t.equal(logs[0]?.length, 18)
      t.same(logs[1], logs[0])
    })

    t.test("COPY logs every row", async (t) => {
      const db = await database(t, { version })
      await copyIn(await db.session(), "copy vote (votes, status) from stdin", "7\tentered\n8\tverified\n")
      t.same(
        (await readLog(db)).map(({ op, new: after }) => [op, after?.votes, after?.status]),
        [
          ["insert", 7, "entered"],
          ["insert", 8, "verified"],
        ],
      )
    })

    t.test("foreign keys: children deleted by CASCADE and changed by SET NULL are logged", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table parent (id int primary key);
        create table owned (id int primary key, parent_id int references parent on delete cascade on update cascade);
        create table loose (id int primary key, parent_id int references parent on delete set null);
        select relay.track('parent'), relay.track('owned'), relay.track('loose');
        insert into parent values (1); insert into owned values (11, 1); insert into loose values (21, 1)`)
      await db.query(
        "update parent set id = 2 where false; delete from loose; insert into loose values (22, 1)",
      )
      await db.query("delete from parent")
      const log = (await readLog(db)).slice(5)
      t.same(log.map(({ op, table, old, new: after }) => [op, table, old, after]).sort(), [
        ["delete", "public.owned", { id: 11, parent_id: 1 }, null],
        ["delete", "public.parent", { id: 1 }, null],
        ["update", "public.loose", { id: 22, parent_id: 1 }, { id: 22, parent_id: null }],
      ])
      t.equal(new Set(log.map((entry) => entry.xid)).size, 1)
    })

    t.test("a changed primary key is an update with both keys", async (t) => {
      const db = await database(t, { version })
      await db.query("insert into vote (id) values (1); update vote set id = 2")
      t.match(await lastEntry(db), { op: "update", old: { id: 1 }, new: { id: 2 } })
    })

    t.test("what is rolled back, wholly or to a savepoint, is not in the log", async (t) => {
      const db = await database(t, { version })
      await db.query("begin; insert into vote (votes) values (1); rollback")
      const [transaction] = await db.query(`begin; insert into vote (votes) values (2); savepoint s;
        update vote set votes = 3; delete from vote; rollback to s; savepoint s2; insert into vote (votes) values (4);
        create temp table own as select pg_current_xact_id()::text as xid; commit; select xid from own`)
      const log = await readLog(db)
      t.same(
        log.map(({ op, new: after }) => [op, after?.votes]),
        [
          ["insert", 2],
          ["insert", 4],
        ],
      )
      for (const { xid } of log) t.equal(String(xid), transaction?.xid, "of a subtransaction too")
    })

    t.test("rows of 20 kB and of 2 MB are logged whole", async (t) => {
      const db = await database(t, { version })
      for (const size of [20_000, 2_000_000]) {
        await db.query("insert into guarantee (note) values (repeat('ä', $1::int / 2))", [size])
        await db.query("update guarantee set status = 'confirmed' where id = (select max(id) from guarantee)")
        const entry = await lastEntry(db)
        t.equal(entry.op, "update")
        t.equal(entry.new?.note, "ä".repeat(size / 2))
        t.equal(entry.old?.note, entry.new?.note, "a value that was not written is there too")
      }
    })

    for (const name of ["touch", "Aaa"]) {
      t.test(
        `an application's AFTER ROW trigger "${name}" updates the row: insert comes before update`,
        async (t) => {
          const db = await database(t, { version, empty: false })
          await db.query(`create table item (id int primary key, n int);
          create function bump() returns trigger language plpgsql as
            $$ begin update item set n = n + 1 where id = new.id and n < 3; return null; end $$;
          create trigger "${name}" after insert or update on item for each row execute function bump();
          select relay.track('item')`)
          await db.query("insert into item values (1, 0), (2, 2)")
          const log = await readLog(db)
          for (const id of [1, 2]) {
            const states = log.filter((entry) => entry.new?.id === id).map((entry) => entry.new?.n)
            t.same(states, id === 1 ? [0, 1, 2, 3] : [2, 3], `row ${id}`)
          }
          t.match(await db.query("select level, problem from relay.tracked where name = 'public.item'"), [
            { level: "row", problem: null },
          ])
        },
      )
    }

    t.test(
      "an AFTER ROW trigger made after track is reported, and tracking again puts it right",
      async (t) => {
        const db = await database(t, { version })
        const problem = async () => {
          const [row] = await db.query("select problem from relay.tracked where name = 'public.vote'")
          return row?.problem
        }
        await db.query("select relay.track('vote', level => 'statement')")
        t.equal(await problem(), null)
        await db.query(`create function bump() returns trigger language plpgsql as
          $$ begin update vote set votes = 99 where id = new.id; return null; end $$;
        create trigger bump after insert on vote for each row execute function bump()`)
        t.match(await problem(), /AFTER ROW trigger was added: track it again/)
        await db.query("select relay.track('vote', 'voting_update')")
        t.equal(await problem(), null)
        await db.query("insert into vote (votes) values (1)")
        t.same(
          (await readLog(db)).map(({ op, new: after }) => [op, after?.votes]),
          [
            ["insert", 1],
            ["update", 99],
          ],
        )
      },
    )

    t.test("BEFORE triggers have had their say when a row is logged", async (t) => {
      const db = await database(t, { version })
      await db.query(`create function raise_votes() returns trigger language plpgsql as
          $$ begin if new.votes = 0 then return null; end if; new.votes := new.votes * 2; return new; end $$;
        create trigger raise_votes before insert or update on vote for each row execute function raise_votes()`)
      await db.query("insert into vote (votes) values (0), (1); update vote set votes = 5")
      t.same(
        (await readLog(db)).map(({ new: after }) => after?.votes),
        [2, 10],
      )
    })

    t.test("changes made by a function, a DO block and WITH are logged", async (t) => {
      const db = await database(t, { version })
      await db.query(`do $$ begin insert into vote (votes) values (1); end $$;
        with moved as (delete from vote returning votes) insert into guarantee (note) select votes::text from moved`)
      t.same((await readLog(db)).map(({ op, table }) => `${op} ${table}`).sort(), [
        "delete public.vote",
        "insert public.guarantee",
        "insert public.vote",
      ])
    })

    t.test("TRUNCATE is one entry a table, with CASCADE for each of them", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table child (id int primary key, vote_id bigint references vote);
        select relay.track('child'); insert into vote default values; insert into child values (1, null)`)
      await db.query("truncate vote cascade")
      const log = (await readLog(db)).slice(2)
      t.same(log.map(({ op, table, old, new: after }) => [op, table, old, after]).sort(), [
        ["truncate", "public.child", null, null],
        ["truncate", "public.vote", null, null],
      ])
      await db.query("truncate attendance, guarantee")
      t.same((await readOps(db)).slice(4), ["truncate", "truncate"])
    })

    t.test(
      "under session_replication_role = replica changes are captured, too, as those that a subscription makes",
      async (t) => {
        const db = await database(t, { version })
        const session = await db.session(db.superuserUrl)
        await session.query("set session_replication_role = replica; insert into vote default values")
        await session.query("update vote set votes = 2; delete from vote; truncate vote")
        t.same(await readOps(db), ["insert", "update", "delete", "truncate"])
        await session.query("reset session_replication_role; insert into vote default values")
        t.same((await readOps(db)).slice(4), ["insert"])
      },
    )

    t.test("if the log cannot be written the writer's statement fails and says so", async (t) => {
      const db = await database(t, { version })
      await db.query("alter table relay.change_0 add constraint full_disk check (false) not valid")
      t.match(await refusal(db.query("insert into vote default values")), {
        code: "23514",
        message: /full_disk/,
      })
      t.same(await db.query("select from vote"), [])
    })
  })
}

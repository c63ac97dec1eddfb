/** A row's changes are logged in the order in which they happened, also when something updates it before the INSERT is over. */

import t from "tap"
import { type Database, database } from "../helpers/database.ts"
import { missing, readLog, readWritten, VERSIONS } from "../helpers/log.ts"

/** What the log says happened to one vote. */
const historyOf = async (db: Database, id: number) =>
  (await readLog(db))
    .filter((entry) => entry.table === "public.vote" && (entry.new ?? entry.old)?.id === id)
    .map(({ op, new: after }) => [op, after?.votes])

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("WITH inserts a row and its lines, whose trigger adds them up in the row", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table line (vote_id bigint references vote, n int);
        create function total() returns trigger language plpgsql as
          $$ begin update vote set votes = votes + new.n where id = new.vote_id; return null; end $$;
        create trigger total after insert on line for each row execute function total()`)
      await db.query(
        "with head as (insert into vote (id) values (1), (2) returning id) insert into line select id, 5 from head",
      )
      for (const id of [1, 2])
        t.same(await historyOf(db, id), [
          ["insert", 0],
          ["update", 5],
        ])
    })

    t.test("a function in RETURNING updates the row", async (t) => {
      const db = await database(t, { version })
      await db.query(`create function raise(vote_id bigint) returns void language sql as
        'update vote set votes = 5 where id = vote_id'`)
      await db.query("insert into vote (id) values (1) returning raise(id)")
      // No trigger of ours runs before that function: the log has the update first.
      t.same(
        (await readWritten(db)).map(({ op }) => op),
        ["update", "insert"],
      )
      t.same(await historyOf(db, 1), [
        ["insert", 0],
        ["update", 5],
      ])
    })

    t.test("an application's statement trigger whose name sorts first updates the row", async (t) => {
      const db = await database(t, { version })
      await db.query(`create function raise() returns trigger language plpgsql as
          $$ begin update vote set votes = 5; return null; end $$;
        create trigger "000_app" after insert on vote for each statement execute function raise()`)
      await db.query("insert into vote (id) values (1)")
      t.same(await historyOf(db, 1), [
        ["insert", 0],
        ["update", 5],
      ])
    })

    t.test("an application's statement trigger with any other name updates the row", async (t) => {
      const db = await database(t, { version })
      await db.query(`create function raise() returns trigger language plpgsql as
          $$ begin update vote set votes = 5; return null; end $$;
        create trigger "Aaa" after insert on vote for each statement execute function raise()`)
      await db.query("insert into vote (id) values (1)")
      t.same(await historyOf(db, 1), [
        ["insert", 0],
        ["update", 5],
      ])
    })

    t.test("writers that take turns on one row are logged in the order of their commits", async (t) => {
      const db = await database(t, { version })
      await db.query("insert into vote (id) values (1)")
      const writers = await Promise.all(Array.from({ length: 6 }, () => db.session(db.writerUrl)))
      await Promise.all(
        writers.map(async (writer) => {
          for (let n = 0; n < 20; n++) await writer.query("update vote set votes = votes + 1")
        }),
      )
      t.same(
        (await historyOf(db, 1)).map(([, votes]) => votes),
        Array.from({ length: 121 }, (_, n) => n),
      )
    })
  })
}

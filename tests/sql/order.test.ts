import t from "tap"
import { database } from "../helpers/database.ts"
import { missing, readLog, VERSIONS } from "../helpers/log.ts"

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test(
      "a trigger of another table updates the row that the same statement inserted: insert comes first",
      async (t) => {
        const db = await database(t, { version })
        await db.query(`create table line (id int primary key, vote_id bigint references vote, n int);
        create function total() returns trigger language plpgsql as
          $$ begin update vote set votes = votes + new.n where id = new.vote_id; return null; end $$;
        create trigger total after insert on line for each row execute function total()`)
        await db.query(`with head as (insert into vote (id) values (1), (2) returning id)
        insert into line select id, id, 5 from head`)
        t.same(await db.query("select id::int, votes from vote order by id"), [
          { id: 1, votes: 5 },
          { id: 2, votes: 5 },
        ])
        for (const id of [1, 2])
          t.same(
            (await readLog(db))
              .filter((e) => e.new?.id === id)
              .map(({ op, new: after }) => [op, after?.votes]),
            [
              ["insert", 0],
              ["update", 5],
            ],
          )
      },
    )
    t.test("a function in RETURNING updates the inserted row", async (t) => {
      const db = await database(t, { version })
      await db.query(`create function raise(v bigint) returns int language plpgsql as
          $$ begin update vote set votes = 5 where id = v; return 5; end $$`)
      await db.query(`insert into vote (id) values (1) returning raise(id)`)
      t.same(await db.query("select id::int, votes from vote order by id"), [{ id: 1, votes: 5 }])
      t.same(
        (await readLog(db)).map(({ op, new: after }) => [op, after?.votes]),
        [
          ["insert", 0],
          ["update", 5],
        ],
      )
    })
    t.test("a statement trigger of the application that sorts first", async (t) => {
      const db = await database(t, { version })
      await db.query(`create function raise() returns trigger language plpgsql as
          $$ begin update vote set votes = 5; return null; end $$;
          create trigger "000_app" after insert on vote for each statement execute function raise()`)
      await db.query(`insert into vote (id) values (1)`)
      t.same(
        (await readLog(db)).map(({ op, new: after }) => [op, after?.votes]),
        [
          ["insert", 0],
          ["update", 5],
        ],
      )
    })
  })
}

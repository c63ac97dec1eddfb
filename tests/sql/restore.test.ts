/** A database that came out of pg_dump: it captures as before, and sends nothing of the old log again. */

import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import t from "tap"
import { install } from "../../cli/schema/install.ts"
import { parseSnapshot, type Snapshot } from "../../relay/change/cursor.ts"
import { database } from "../helpers/database.ts"
import { dump, noDump, restore } from "../helpers/dump.ts"
import { missing, readLog, VERSIONS } from "../helpers/log.ts"
import { openSession } from "../helpers/session.ts"

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) || noDump(version) }, async (t) => {
    for (const relays of ["a relay", "no relay"])
      t.test(
        `restored from one that ${relays} had met, it is present, captures every operation and sends only what is new`,
        async (t) => {
          const db = await database(t, { version })
          if (relays === "a relay") await db.query("select relay.meet_lineage()")
          await db.query(`create table parts (id int primary key, n int) partition by list (id); create table part_1 partition of parts default;
        select relay.track('parts'); insert into vote (votes) values (1), (2); insert into parts values (1, 1)`)
          const directory = await mkdtemp(join(tmpdir(), "commitcast-dump-"))
          t.teardown(() => rm(directory, { recursive: true }))
          const file = join(directory, "dump")
          await dump(db.url, file)
          const target = await database(t, { version, empty: true })
          // Other tables first, so that no oid is what it was.
          await target.query(
            "create table filler_1 (); create table filler_2 (); drop table filler_1; drop table filler_2",
          )
          await restore(target.url, file)

          t.match(await install(target.url), { state: "present" })
          t.equal((await readLog(target)).length, 3)
          const { changelog, session } = await openSession(t, target)
          t.same(
            (await changelog.tracked()).map(({ name, problem }) => [name, problem]),
            [
              ["public.attendance", null],
              ["public.guarantee", null],
              ["public.parts", null],
              ["public.vote", null],
            ],
          )
          const start = parseSnapshot("3:3:") as Snapshot
          t.same((await session.read(start, 100)).changes, [])
          await target.query(`insert into vote (votes) values (3); update vote set votes = 4 where votes = 3; delete from vote where votes = 4;
        truncate vote; insert into parts values (2, 2); update parts set n = 3 where id = 2`)
          t.same(
            (await readLog(target)).map(({ op, table, meta }) => [op, table, meta.partition]),
            [
              ["insert", "public.vote", undefined],
              ["update", "public.vote", undefined],
              ["delete", "public.vote", undefined],
              ["truncate", "public.vote", undefined],
              ["insert", "public.parts", undefined],
              ["update", "public.parts", undefined],
            ],
          )
          t.equal((await session.read(start, 100)).changes.length, 6)
          await target.query("select relay.track('vote', 'voting_update'), relay.untrack('parts')")
        },
      )
  })
}

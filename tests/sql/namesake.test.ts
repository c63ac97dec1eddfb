/** Another table takes the name of a tracked one. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { missing, VERSIONS } from "../helpers/log.ts"
import { logged, watch } from "../helpers/watch.ts"

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("a session that has written a table asks again once another has its name", async (t) => {
      const db = await database(t, { version })
      await db.query(
        "create table person (id int primary key); select relay.track('person'); select relay.watch()",
      )
      const writer = await db.session(db.url)
      await writer.query("insert into person values (1); alter table person rename to person_old")
      await writer.query("insert into person_old values (2); create table person (id int primary key)")
      t.same(await watch(db), ["person"])
      t.same(
        await logged(db, () =>
          writer.query("insert into person_old values (3); insert into person values (3)"),
        ),
        [],
      )
    })
  })
}

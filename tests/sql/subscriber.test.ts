/** What a subscription applies is captured, also in trees, and whichever way they are published. */

import t from "tap"
import { type Database, database } from "../helpers/database.ts"
import { missing, readLog, VERSIONS } from "../helpers/log.ts"
import { until } from "../helpers/wait.ts"
import { mend, problemOf, watch } from "../helpers/watch.ts"

const READING = `create table reading (id int, k int, primary key (id, k)) partition by list (k);
  create table reading_1 partition of reading for values in (1);
  create table reading_2 partition of reading for values in (2) partition by list (id);
  create table reading_2_rest partition of reading_2 default;
  create table note (id int primary key)`

/** A subscription within one server needs its slot made apart. */
async function subscribe(target: Database, source: Database, publication: string): Promise<void> {
  const superuser = await target.session(target.superuserUrl)
  const from = await source.session(source.superuserUrl)
  await from.query(`select pg_create_logical_replication_slot('${source.name}', 'pgoutput')`)
  await from.query(`create publication p for table reading, note ${publication}`)
  await superuser.query(
    `create subscription ${target.name} connection '${source.superuserUrl}' publication p with (create_slot = false, slot_name = '${source.name}', copy_data = false)`,
  )
}

async function unsubscribe(target: Database, source: Database): Promise<void> {
  const superuser = await target.session(target.superuserUrl)
  await superuser.query(`alter subscription ${target.name} disable`)
  await superuser.query(`alter subscription ${target.name} set (slot_name = none)`)
  await superuser.query(`drop subscription ${target.name}`)
  const from = await source.session(source.superuserUrl)
  await until("the slot is free", async () => {
    const { rowCount } = await from.query(
      "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1 and not active",
      [source.name],
    )
    return rowCount === 1
  })
}

const appliedIn = async (db: Database): Promise<string[]> =>
  (await readLog(db))
    .filter(({ op }) => op !== "bulk_load")
    .map(({ table, op, old, new: after, meta }) =>
      [table?.replace("public.", ""), op, (after ?? old)?.id ?? meta.partition].filter(Boolean).join(" "),
    )

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    for (const publication of ["", "with (publish_via_partition_root = true)"])
      for (const first of ["tracked", "subscribed"])
        t.test(`published ${publication}, ${first} first`, async (t) => {
          const [source, target] = [
            await database(t, { version, empty: true }),
            await database(t, { version }),
          ]
          await source.query(READING)
          await target.query(READING)
          const track = () =>
            target.query("select relay.track('reading'), relay.track('note', level => 'statement')")
          if (first === "tracked") await track()
          await subscribe(target, source, publication)
          t.teardown(() => unsubscribe(target, source))
          if (first === "subscribed") await track()
          else {
            t.match(
              await problemOf(target, "note"),
              /a subscription writes to it, and what that inserts is not/,
            )
            await mend(target, "note")
          }
          t.equal(await problemOf(target, "note"), null)
          t.equal(await problemOf(target, "reading"), null)
          await source.query(
            "insert into reading values (1, 1), (2, 2); update reading set id = 3 where id = 1; insert into note values (4); delete from reading_2",
          )
          const expected = [
            "reading insert 1",
            "reading insert 2",
            "reading update 3",
            "note insert 4",
            "reading delete 2",
          ]
          await until("all is applied", async () => (await appliedIn(target)).length >= expected.length)
          t.same(await appliedIn(target), expected)

          const later = "create table reading_3 partition of reading for values in (3)"
          await target.query(later)
          t.same(await watch(target), ["reading"])
          await mend(target, "reading")
          t.equal(await problemOf(target, "reading"), null)
          await source.query(later)
          await (await target.session(target.superuserUrl)).query(
            `alter subscription ${target.name} refresh publication with (copy_data = false)`,
          )
          await source.query("insert into reading_3 values (5, 3)")
          await until("its row is applied", async () =>
            (await appliedIn(target)).includes("reading insert 5"),
          )
          t.pass("a partition that came later is captured")
        })
  })
}

/** The bell: what NOTIFY says, and when it is silent. */

import type pg from "pg"
import t from "tap"
import { type Database, database } from "../helpers/database.ts"
import { lastEntry, missing, readOps, refusal, VERSIONS } from "../helpers/log.ts"
import { until } from "../helpers/wait.ts"

/** Hears everything on the channel; `heard` returns what came until now. */
async function listen(db: Database) {
  const session = await db.session()
  const payloads: string[] = []
  session.on("notification", ({ payload }) => payloads.push(payload ?? ""))
  await session.query("listen election_updates")
  return {
    async heard() {
      // Notifications come before the answer to a query of the same session.
      await session.query("select 1")
      return payloads.splice(0)
    },
  }
}

const lease = async (db: Database, ms: number) =>
  Number((await db.query<{ it: string }>("select relay.set_lease($1) as it", [ms]))[0]?.it)

/** As if a relay had taken one that ends so many milliseconds from now. */
const inForce = (session: pg.Client, ahead: string) =>
  session.query(
    `select relay.set_state(polled => true), setval('relay.lease', (extract(epoch from clock_timestamp()) * 1000)::bigint + ${ahead})`,
  )

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("a bell names table, operation, rows and xid, and nothing of the rows", async (t) => {
      const db = await database(t, { version })
      const bell = await listen(db)
      await db.query("insert into guarantee (voter_name, note) values ('Ada', 'secret')")
      const entry = await lastEntry(db)
      await db.query("update guarantee set note = 'secret 2'")
      await db.query("truncate guarantee")
      await db.query("insert into vote (votes) select generate_series(1, 1000)")
      await db.query("select relay.track('attendance', level => 'statement')")
      await db.query("insert into attendance (voter_name) select generate_series(1, 1000)")
      await db.query("select relay.broadcast('news', '\"secret\"')")
      const heard = await bell.heard()
      t.equal(heard[0], `{"v":1,"table":"public.guarantee","op":"insert","rows":1,"xid":"${entry.xid}"}`)
      t.same(
        heard.map((payload) => JSON.parse(payload)).map(({ v, table, op, rows }) => [v, table, op, rows]),
        [
          [1, "public.guarantee", "insert", 1],
          [1, "public.guarantee", "update", 1],
          [1, "public.guarantee", "truncate", 0],
          [1, "public.vote", "insert", 1],
          [1, "public.attendance", "insert", 1000],
          [1, "", "message", 1],
        ],
      )
      t.notOk(heard.join().includes("secret"))
    })

    t.test(
      "it rings at commit, once for what is equal in a transaction, and not for a rollback",
      async (t) => {
        const db = await database(t, { version })
        const bell = await listen(db)
        await db.query("begin; insert into vote default values; rollback")
        await db.query(
          "begin; insert into vote default values; insert into vote default values; update vote set votes = votes + 1",
        )
        t.same(await bell.heard(), [])
        await db.query("commit")
        t.same(
          (await bell.heard()).map((payload) => JSON.parse(payload).op),
          ["insert", "update"],
        )
      },
    )

    t.test("relay.bell = off: the change is logged and nothing rings", async (t) => {
      const db = await database(t, { version })
      const bell = await listen(db)
      await db.query(
        "set relay.bell = 'off'; insert into vote default values; select relay.broadcast('news', '1')",
      )
      t.same(await bell.heard(), [])
      t.same(await readOps(db), ["insert", "message"])
    })

    t.test("while there is a lease nothing rings", async (t) => {
      const db = await database(t, { version })
      const bell = await listen(db)
      await lease(db, 2_000)
      t.same(await bell.heard(), ['{"v":1,"lease":2000}'])
      await db.query("insert into vote default values")
      t.same(await bell.heard(), [])
      await db.query("begin; set local relay.bell = 'off'; commit")
      await inForce(await db.session(), "-1")
      await db.query("select relay.end_lease(); insert into vote default values")
      t.equal((await bell.heard()).length, 1, "taken away, and '' is unset")
    })

    t.test("a lease that is over or void counts until a relay takes it away", async (t) => {
      const db = await database(t, { version })
      const bell = await listen(db)
      const admin = await db.session()
      for (const ahead of ["-1", "-86400000", "5500", "86400000"]) {
        await inForce(admin, ahead)
        await db.query("insert into vote default values; select relay.broadcast('news', '1')")
        t.same(await bell.heard(), [], `${ahead} ms ahead`)
        await db.query("select relay.end_lease(); insert into vote default values")
        t.equal((await bell.heard()).length, 1, `${ahead} ms ahead, taken away`)
      }
    })

    t.test("a lease lasts 2 s at most, and is never shortened", async (t) => {
      const db = await database(t, { version })
      const now = async () =>
        Number(
          (
            await db.query<{ it: string }>(
              "select (extract(epoch from clock_timestamp()) * 1000)::bigint as it",
            )
          )[0]?.it,
        )
      const before = await now()
      const end = await lease(db, 3_600_000)
      t.ok(end >= before + 2_000 && end <= (await now()) + 2_000)
      for (const ms of [0, 1, -3_600_000])
        await until(`${ms} ms after one that is not over`, async () => {
          const first = await lease(db, 3_600_000)
          const second = await lease(db, ms)
          return second === first
        })
      t.ok((await lease(db, 2_000)) >= end)
      await inForce(await db.session(), "3600000")
      const again = await lease(db, 1_000)
      t.ok(again <= (await now()) + 1_000, "one that is void is replaced")
      await inForce(await db.session(), "5500")
      t.ok((await lease(db, 1_000)) <= (await now()) + 1_000, "however little it is too far ahead")
    })

    t.test("the relays are told of a lease, but not of one that follows another", async (t) => {
      const db = await database(t, { version })
      const bell = await listen(db)
      const admin = await db.session()
      const told = async (ms: number) => {
        await lease(db, ms)
        return (await bell.heard()).length === 1
      }
      t.ok(await told(2_000), "the first")
      await until("not of the next while it is in force", async () => !(await told(2_000)))
      await inForce(admin, "-1")
      t.ok(await told(2_000), "over")
      await inForce(admin, "60000")
      t.ok(await told(2_000), "void")
      // A server that is slow between looking at the old lease and setting the new one: the old one ends meanwhile.
      const [{ source } = { source: "" }] = await db.query<{ source: string }>(
        "select pg_get_functiondef('relay.set_lease'::regproc) as source",
      )
      await admin.query(source.replace("perform setval", "perform pg_sleep(0.3); perform setval"))
      await inForce(admin, "150")
      t.ok(await told(2_000), "ended before the next was set")
    })

    t.test("a lease that is over or void is taken away for good, one in force stays", async (t) => {
      const db = await database(t, { version })
      const admin = await db.session()
      const ended = async () => {
        const [row] = await db.query("select relay.end_lease() as ended, relay.state() & 4 = 0 as rings")
        return [row?.ended, row?.rings]
      }
      t.same(await ended(), [true, true], "there was none")
      await until("one in force stays", async () => {
        await inForce(admin, "3000")
        const [over, gone] = await ended()
        return over === false && gone === false
      })
      for (const ahead of ["-1", "-3600000", "5500", "3600000"]) {
        await inForce(admin, ahead)
        t.same(await ended(), [true, true], `${ahead} ms ahead`)
      }
      const bell = await listen(db)
      await lease(db, 2_000)
      t.equal((await bell.heard()).length, 1, "the next is told of")
    })

    t.test(
      "a lease counts at once in transactions that are open, and is not undone by a rollback",
      async (t) => {
        const db = await database(t, { version })
        const bell = await listen(db)
        const writer = await db.session(db.writerUrl)
        await writer.query("begin isolation level serializable; select from vote")
        await db.query("begin; select relay.set_lease(2000); rollback")
        await writer.query("insert into vote default values; commit")
        t.same(await bell.heard(), [])
      },
    )

    t.test(
      "with relay.bell = off a captured transaction can be prepared, and its change comes with COMMIT PREPARED",
      async (t) => {
        const db = await database(t, { version })
        const session = await db.session(db.writerUrl)
        const gid = `g_${db.name}`
        t.teardown(() =>
          db
            .session(db.superuserUrl)
            .then((s) => s.query(`rollback prepared '${gid}'`).catch(() => {}))
            .catch(() => {}),
        )
        await session.query(
          `set relay.bell = 'off'; begin; insert into vote (votes) values (1); update vote set votes = 2`,
        )
        await session.query(`prepare transaction '${gid}'`)
        t.same(await readOps(db), [])
        await session.query(`commit prepared '${gid}'`)
        t.same(await readOps(db), ["insert", "update"])
        await session.query("reset relay.bell; begin; insert into vote (votes) values (1)")
        t.match(await refusal(session.query(`prepare transaction '${gid}_2'`)), {
          code: "0A000",
          message: /cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY/,
        })
        t.same(await readOps(db), ["insert", "update"])
      },
    )

    t.test("a table whose name needs quotes makes a valid bell", async (t) => {
      const db = await database(t, { version })
      const bell = await listen(db)
      const name = 'a "quoted" \\ name'
      await db.query(`create table "${name.replaceAll('"', '""')}" (id int primary key);
        select relay.track('"${name.replaceAll('"', '""')}"', 'x_update'); insert into "${name.replaceAll('"', '""')}" values (1)`)
      const [payload] = await bell.heard()
      t.equal(JSON.parse(payload ?? "").table, `public."${name.replaceAll('"', '""')}"`)
    })
  })
}

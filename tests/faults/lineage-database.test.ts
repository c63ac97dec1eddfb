/** The schema reinstalled, the database copied or restored from a dump: other logs, which continue nobody. */

import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import t, { type Test } from "tap"
import { install, uninstall } from "../../cli/schema/install.ts"
import { applySql, readElectionSchema, readMigrations } from "../../cli/schema/migrations.ts"
import type { Client } from "../helpers/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { dump, noDump, restore, restoreOnly } from "../helpers/dump.ts"
import { missing, VERSIONS } from "../helpers/log.ts"
import { startRelay, type TestRelay } from "../helpers/relay.ts"
import { continued, cutOff, keptCursor, refused, writePast } from "../helpers/returning.ts"
import { until } from "../helpers/wait.ts"

interface World {
  db: Database
  relay: TestRelay
  client: Client
  cursor: string
}

/** A relay, and a client that has seen a change. */
async function world(t: Test, version: (typeof VERSIONS)[number]): Promise<World> {
  // Not a clone of the template: here the first lineage is the only one, as in most databases.
  const db = await database(t, { version, empty: true })
  await db.query(await readElectionSchema())
  await install(db.url)
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  await db.query("insert into vote (votes) values (1)")
  await client.count(1)
  return { db, relay, client, cursor: await keptCursor(client) }
}

/** The client was told, the relay is there again, and agrees with another one about what a cursor is worth. */
async function startsAnew(t: Test, { db, relay, client, cursor }: World): Promise<void> {
  await cutOff(t, client)
  // It may have been ready before, on a log that was not whole yet.
  await until("the relay has met the log that is there now", async () => {
    const [row] = await db.query<{ id: string | null }>("select relay.present_lineage() as id")
    const { ready, feed } = relay.relay.status()
    return ready && feed.kind === "up" && feed.cursor.lineage === row?.id
  })
  await writePast(db.url, cursor)
  await refused(t, relay, db.url, cursor)
  const other = await startRelay(t, db)
  await refused(t, other, db.url, cursor)
  const next = await relay.connect()
  await db.query("insert into vote (votes) values (102)")
  // The position that it begins at may lie before what the other relay's client has seen.
  await next.first("its own", ({ data }) => data?.votes === 102)
  await continued(t, other, db.url, await keptCursor(next), [])
}

async function dumpFile(t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "commitcast-dump-"))
  t.teardown(() => rm(directory, { recursive: true }))
  return join(directory, "dump")
}

/** Nobody is connected to the database, nor can connect, while this works. */
async function closed(
  db: Database,
  name: string,
  work: (query: (sql: string) => Promise<unknown>) => Promise<void>,
) {
  const superuser = await db.session(db.superuserUrl.replace(db.name, "postgres"))
  await superuser.query(`alter database ${name} allow_connections false`)
  await superuser.query(
    `select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = '${name}'`,
  )
  await work((sql) => superuser.query(sql))
  await superuser.query(`alter database ${name} allow_connections true`)
}

for (const version of VERSIONS)
  t.test(`PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("uninstalled and installed again", async (t) => {
      const it = await world(t, version)
      await uninstall(it.db.url)
      await it.db.query("insert into vote (votes) values (101)")
      await until("the relay has noticed", () => !it.relay.relay.status().ready)
      await install(it.db.url)
      await startsAnew(t, it)
    })

    t.test("installed again at once, so that the relay never saw it gone", async (t) => {
      const it = await world(t, version)
      const again = (await readMigrations()).map((migration) => applySql(migration))
      await it.db.query(
        `begin; set local client_min_messages = 'error'; drop schema relay cascade; insert into vote (votes) values (101);
         ${again.join(";")}; select relay.track('vote'); commit`,
      )
      await startsAnew(t, it)
    })

    t.test("copied by CREATE DATABASE ... TEMPLATE: the copy refuses, the original continues", async (t) => {
      const { db, relay, cursor } = await world(t, version)
      await db.query("insert into vote (votes) values (2)")
      const copy = `${db.name}_copy`
      await closed(db, db.name, async (query) => {
        await query(`create database ${copy} template ${db.name} owner app`)
      })
      const url = db.url.replace(db.name, copy)
      t.teardown(async () => {
        const superuser = await db.session(db.superuserUrl.replace(db.name, "postgres"))
        await superuser.query(`drop database ${copy} with (force)`)
      })
      await writePast(url, cursor)
      const inCopy = await startRelay(t, { url })
      await refused(t, inCopy, url, cursor)
      const client = await inCopy.connect()
      const cursorOfCopy = await keptCursor(client)
      await inCopy.stop()
      await until("ready", () => relay.relay.status().ready)
      await continued(t, relay, db.url, cursor, [2])
      await refused(t, relay, db.url, cursorOfCopy)
    })

    t.test("a copy put in the place of the original, under the relay's feet", async (t) => {
      const it = await world(t, version)
      const { db } = it
      await closed(db, db.name, async (query) => {
        await query(`create database ${db.name}_copy template ${db.name} owner app`)
      })
      await until("the relay is back", () => it.relay.relay.status().ready)
      await (await db.session()).query("insert into vote (votes) values (2)")
      await it.client.count(2)
      const cursor = await keptCursor(it.client)
      await closed(db, db.name, async (query) => {
        await query(`alter database ${db.name} rename to ${db.name}_old`)
        await query(`alter database ${db.name}_copy rename to ${db.name}`)
        await query(`drop database ${db.name}_old`)
      })
      const session = await db.session()
      const query = (async (sql: string) => (await session.query(sql)).rows) as Database["query"]
      await startsAnew(t, { ...it, cursor, db: { ...db, query } })
    })

    t.test("dumped and restored", { skip: noDump(version) }, async (t) => {
      t.test("into another database", async (t) => {
        const { db, cursor } = await world(t, version)
        const file = await dumpFile(t)
        await dump(db.url, file)
        const target = await database(t, { version, empty: true })
        await restore(target.url, file)
        await writePast(target.url, cursor)
        await refused(t, await startRelay(t, target), target.url, cursor)
      })

      for (const [when, sections] of [
        ["at once", []],
        ["in sections, the relay meeting it in between", ["pre-data", "data", "post-data"]],
      ] as const)
        t.test(`over itself, ${when}`, async (t) => {
          const it = await world(t, version)
          const { db } = it
          const file = await dumpFile(t)
          await dump(db.url, file)
          await db.query("insert into vote (votes) values (2)")
          await it.client.count(2)
          const cursor = await keptCursor(it.client)
          await db.query(
            "set client_min_messages = 'error'; drop schema relay cascade; drop owned by app cascade",
          )
          if (sections.length === 0) await restore(db.url, file)
          for (const section of sections) {
            await restore(db.url, file, `--section=${section}`)
            if (section === "pre-data")
              await until(
                "the relay has met the log that is not filled yet",
                async () => (await db.query("select from relay.lineage")).length === 1,
              )
            // What a relay does now and then: it must leave to the restore what that brings.
            if (section === "data") {
              await db.query("select relay.renew()")
              await db.query("select relay.watch()")
              await db.query("select relay.mend('vote')")
            }
          }
          await startsAnew(t, { ...it, cursor })
        })

      t.test(
        "over itself, the lineages of the dump last, when the relay reads the log already",
        async (t) => {
          const it = await world(t, version)
          const { db, relay, cursor } = it
          const file = await dumpFile(t)
          await dump(db.url, file)
          await db.query(
            "set client_min_messages = 'error'; drop schema relay cascade; drop owned by app cascade",
          )
          await restore(db.url, file, "--section=pre-data")
          await cutOff(t, it.client)
          const isLineage = (entry: string) => / relay (lineage|unbroken) /.test(entry)
          await restoreOnly(db.url, file, "data", (entry) => !isLineage(entry))
          await until("the relay reads", () => relay.relay.status().ready)
          const client = await relay.connect()
          await restoreOnly(db.url, file, "data", isLineage)
          await restore(db.url, file, "--section=post-data")
          await startsAnew(t, { ...it, client, cursor })
        },
      )
    })
  })

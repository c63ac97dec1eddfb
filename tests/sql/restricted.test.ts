/** relay.track with columns that only certain roles may see. Who receives them is in tests/relay/restricted.test.ts. */

import t, { type Test } from "tap"
import { database } from "../helpers/database.ts"
import {
  backendOf,
  cursorNow,
  lastEntry,
  missing,
  readLog,
  refusal,
  VERSIONS,
  waitsForLock,
} from "../helpers/log.ts"

const RESTRICTED = `restricted => '{"admin": ["voter_name", "note"], "clerk": ["note"]}'`

/** A database whose log is known to be its own: that of a copy is emptied where a lineage begins. */
async function met(t: Test, version: (typeof VERSIONS)[number]) {
  const db = await database(t, { version })
  await db.query("select relay.meet_lineage()")
  return db
}

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("each change says which roles may see which columns; without restrictions nothing", async (t) => {
      const db = await met(t, version)
      await db.query("insert into guarantee default values")
      t.notOk("restricted" in (await lastEntry(db)).meta)
      await db.query(`select relay.track('guarantee', ${RESTRICTED})`)
      const [row] = await db.query("select restricted from relay.tracked where name = 'public.guarantee'")
      t.same(row, { restricted: { admin: ["voter_name", "note"], clerk: ["note"] } })
      await db.query("insert into guarantee default values; update guarantee set note = 'n' where id = 2")
      await db.query("delete from guarantee where id = 2; truncate guarantee")
      await db.query(
        "set relay.bulk_load = 'summary'; insert into guarantee default values; reset relay.bulk_load",
      )
      const expected = [
        ["note", ["admin", "clerk"]],
        ["voter_name", ["admin"]],
      ]
      t.same(
        (await readLog(db)).slice(1).map(({ op, meta }) => [op, meta.restricted]),
        ["insert", "update", "delete", "truncate", "bulk_load"].map((op) => [op, expected]),
      )
      await db.query("select relay.track('guarantee')")
      await db.query("insert into guarantee default values")
      t.same((await lastEntry(db)).meta.restricted, expected, "what is forgotten is not lifted")
      const found = await refusal(db.query("select relay.track('guarantee', exclude => '{note}')"))
      t.match(found, { code: "22023", message: /'note' must be among the captured columns/ })
      t.match(found?.hint, /restricted => '\{\}'/)
      await db.query("select relay.track('guarantee', restricted => '{}')")
      await db.query("insert into guarantee default values")
      t.notOk("restricted" in (await lastEntry(db)).meta)
    })

    t.test("restrictions that cannot be are refused with the remedy, and nothing is changed", async (t) => {
      const db = await met(t, version)
      await db.query(
        "create table x (id int primary key, code text unique, committee_id int, secret text, other text)",
      )
      const form =
        /restricted must be an object of roles and their columns such as \{"admin": \["voter_name"\]\}/
      for (const [options, message, hint] of [
        [`restricted => '["secret"]'`, form],
        [`restricted => '"secret"'`, form],
        [`restricted => 'null'`, form],
        [`restricted => '{"admin": "secret"}'`, form],
        [`restricted => '{"admin": {"secret": true}}'`, form],
        [`restricted => '{"admin": null}'`, form],
        [`restricted => '{"admin": ["secret", 1]}'`, form],
        [`restricted => '{"admin": ["secret", null]}'`, form],
        [`restricted => '{"admin": [["secret"]]}'`, form],
        [`restricted => '{"": ["secret"]}'`, form],
        [`restricted => '{"${"r".repeat(129)}": ["secret"]}'`, form],
        [
          `restricted => '{"admin": ["nope", "secret"]}'`,
          /restricted of public.x: 'nope' must be among the captured columns/,
        ],
        [
          `exclude => '{secret}', restricted => '{"admin": ["secret"]}'`,
          /'secret' must be among the captured columns/,
        ],
        [
          `restricted => '{"admin": ["secret"], "clerk": ["id"]}'`,
          /key column id of public.x cannot be restricted/,
          /key => array\['id'\]/,
        ],
        [`key => '{id,code}', restricted => '{"admin": ["code"]}'`, /key column code of public.x cannot be/],
        [
          `restricted => '{"admin": ["committee_id"]}'`,
          /column committee_id of public.x cannot be restricted: its value is in the names of channels/,
          /channels => '\{\}'/,
        ],
        [
          `channels => '{"hall": "other"}', restricted => '{"admin": ["other"]}'`,
          /column other of public.x cannot be restricted/,
        ],
      ] as const) {
        const found = await refusal(db.query(`select relay.track('x', ${options})`))
        t.match(found, { code: "22023", message }, options)
        if (hint !== undefined) t.match(found?.hint, hint)
      }
      t.same(await db.query("select from relay.tracked where name = 'public.x'"), [])
      for (const options of [
        `restricted => '{}'`,
        `restricted => '{"admin": []}'`,
        `key => '{code}', restricted => '{"admin": ["id"]}'`,
        `channels => '{}', restricted => '{"admin": ["committee_id"]}'`,
        `restricted => '{"${"r".repeat(128)}": ["secret"]}'`,
      ])
        await t.resolves(db.query(`select relay.track('x', ${options})`), options)
    })

    t.test("names that mean something elsewhere are restricted like any other", async (t) => {
      const db = await met(t, version)
      await db.query(`create table x (id int primary key, "__proto__" text, "q""uote's" text);
        select relay.track('x', restricted => '{"__proto__": ["__proto__"], "it''s \\"me\\"": ["q\\"uote''s"]}')`)
      await db.query("insert into x values (1, 'a', 'b')")
      t.same((await lastEntry(db)).meta.restricted, [
        ["__proto__", ["__proto__"]],
        [`q"uote's`, [`it's "me"`]],
      ])
    })

    t.test(
      "a stricter rule ends the lineage and what was logged; any other changes nothing there",
      async (t) => {
        const db = await met(t, version)
        await db.query(`select relay.track('guarantee', restricted => '{"admin": ["note"]}')`)
        let cursor = await cursorNow(db)
        const lineage = (cursor: string) => cursor.split(":")[0]
        const held = async () => {
          const [, ...snapshot] = cursor.split(":")
          const [row] = await db.query<{ it: boolean }>(
            "select relay.contains($1::pg_snapshot, h) as it from relay.horizon",
            [snapshot.join(":")],
          )
          return row?.it
        }
        for (const [options, stricter] of [
          [`'{"admin": ["note"]}'`, false],
          [`'{"admin": ["note"], "clerk": ["note"]}'`, false],
          [`'{"admin": ["note"]}'`, true],
          [`'{"clerk": ["note"]}'`, true],
          [`'{"clerk": ["note", "voter_name"]}'`, true],
          [`'{"clerk": ["voter_name"]}'`, false],
          [`'{}'`, false],
          ["null", false],
          [`'{"admin": []}'`, false],
          [`'{"admin": ["status"]}'`, true],
        ] as const) {
          await db.query("insert into guarantee default values")
          await db.query(`select relay.track('guarantee', restricted => ${options})`)
          const now = await cursorNow(db)
          t.equal(lineage(now) !== lineage(cursor), stricter, options)
          t.equal(await held(), !stricter, `${options}: a cursor from before under the new lineage's name`)
          cursor = now
          t.equal(await held(), true, `${options}: a cursor from after`)
        }
        await db.query("select relay.untrack('guarantee')")
        await db.query(`select relay.track('guarantee', restricted => '{"admin": ["status"]}')`)
        t.not(
          lineage(await cursorNow(db)),
          lineage(cursor),
          "what was logged under an earlier rule may be anything",
        )
      },
    )

    t.test(
      "a stricter rule waits for who writes by the one before; the horizon holds what they wrote",
      async (t) => {
        const db = await met(t, version)
        const [writer, other, tracking] = [await db.session(), await db.session(), await db.session()]
        await writer.query("begin; insert into guarantee (note) values ('open')")
        await other.query("begin; insert into vote default values")
        const pid = await backendOf(tracking)
        const tracked = tracking.query(`select relay.track('guarantee', restricted => '{"admin": ["note"]}')`)
        await waitsForLock(db, pid)
        const late = db.query("insert into guarantee (note) values ('later')")
        await writer.query("commit")
        await tracked
        await late
        await other.query("commit")
        const log = await readLog(db)
        t.same(
          log
            .filter(({ table }) => table === "public.guarantee")
            .map(({ new: row, meta }) => [row?.note, meta.restricted]),
          [
            ["open", undefined],
            ["later", [["note", ["admin"]]]],
          ],
        )
        const decided = await db.query<{ note: string; it: boolean }>(
          "select new::json->>'note' as note, pg_visible_in_snapshot(xid, h) as it from relay.change, relay.horizon order by seq",
        )
        t.same(decided, [
          { note: "open", it: true },
          { note: null, it: false },
          { note: "later", it: false },
        ])
      },
    )

    t.test("what the horizon demands already stays demanded", async (t) => {
      const db = await met(t, version)
      const open = await db.session()
      await open.query("begin; insert into vote default values")
      const [own] = (await open.query<{ xid: string }>("select pg_current_xact_id()::text as xid")).rows
      await db.query("select relay.pause()")
      await db.query("select relay.resume()")
      await db.query(`select relay.track('guarantee', restricted => '{"admin": ["note"]}')`)
      const [row] = await db.query("select pg_visible_in_snapshot($1::xid8, h) as it from relay.horizon", [
        own?.xid,
      ])
      t.same(row, { it: true }, "the capture was paused while it was open")
      await open.query("rollback")
    })

    t.test("it is refused where what the log holds could not be told", async (t) => {
      const db = await met(t, version)
      const session = await db.session()
      const track = `select relay.track('guarantee', restricted => '{"admin": ["note"]}')`
      for (const before of [
        "begin; insert into vote default values",
        "begin isolation level repeatable read",
        "begin isolation level serializable",
      ]) {
        await session.query(before)
        t.match(
          await refusal(session.query(track)),
          { code: "25001", message: /columns can be restricted only/ },
          before,
        )
        await session.query("rollback")
      }
      t.same(await db.query("select from relay.tracked where restricted <> '{}'"), [])
      await session.query(`begin; select relay.broadcast('election_updates', '1'); ${track}; rollback`)
      await session.query(`begin; ${track}; insert into guarantee default values; commit`)
      t.same((await lastEntry(db)).meta.restricted, [["note", ["admin"]]])
      await session.query(
        `begin isolation level repeatable read; insert into vote default values; ${track}; commit`,
      )
    })

    t.test("a restricted column that is renamed stays restricted under its name", async (t) => {
      const db = await met(t, version)
      await db.query(`select relay.track('guarantee', restricted => '{"admin": ["voter_name"]}')`)
      await db.query("alter table guarantee rename voter_name to full_name")
      await db.query("insert into guarantee (full_name) values ('Ada')")
      const { new: row, meta } = await lastEntry(db)
      t.equal(row?.voter_name, "Ada")
      t.same(meta.restricted, [["voter_name", ["admin"]]])
      t.match(
        await refusal(db.query(`select relay.track('guarantee', restricted => '{"admin": ["voter_name"]}')`)),
        {
          message: /'voter_name' must be among the captured columns/,
        },
      )
    })
  })
}

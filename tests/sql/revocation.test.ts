/** relay.revoke and relay.reinstate: what they take, what they write, and whom they make wait. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { missing, refusal, VERSIONS } from "../helpers/log.ts"
import { until } from "../helpers/wait.ts"

const LOG = "select meta::json as it from relay.change where op = 'revocation' order by seq"

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("it names one user or one token, and a time to come", async (t) => {
      const db = await database(t, { version })
      for (const [call, message] of [
        ["relay.revoke()", /either a user or a token/],
        ["relay.revoke('7', jti => 'x')", /either a user or a token/],
        ["relay.reinstate()", /either a user or a token/],
        ["relay.reinstate('7', 'x')", /either a user or a token/],
        ["relay.revoke('')", /no token has such a user/],
        ["relay.revoke(repeat('x', 129))", /no token has such a user/],
        ["relay.revoke(jti => repeat('x', 257))", /no token has such a jti/],
        ["relay.revoke('7', now())", /until must be a time to come/],
        ["relay.revoke('7', '-infinity')", /until must be a time to come/],
        ["relay.revoke('7', null)", /until must be a time to come/],
        ["relay.revoke('7', issued_before => 'infinity')", /issued_before must be a time/],
        ["relay.revoke(jti => 'x', issued_before => now())", /goes with a user/],
      ] as const)
        t.match(await refusal(db.query(`select ${call}`)), { code: "22023", message }, call)
      t.same(await db.query(LOG), [])
      t.same(await db.query("select from relay.revocation"), [])
    })

    t.test("the log has each call with its times in milliseconds, the table the last", async (t) => {
      const db = await database(t, { version })
      await db.query("set timezone = 'Asia/Tokyo'; set datestyle = 'SQL, DMY'")
      await db.query(`select relay.revoke('7');
        select relay.revoke('7', '2100-01-01 00:00:00.0005+00', '2000-01-01 00:00:00+00');
        select relay.revoke(user_id => '7', until => '2100-01-01 00:00:00+00');
        select relay.revoke(jti => 'ä"x')`)
      t.same(await db.query("select relay.reinstate('7') as it"), [{ it: true }])
      t.same(await db.query("select relay.reinstate('7') as it"), [{ it: false }])
      const user = { kind: "user", value: "7" }
      t.same(
        (await db.query(LOG)).map(({ it }) => it),
        [
          { ...user, until: null, issued_before: null },
          { ...user, until: 4_102_444_800_001, issued_before: 946_684_800_000 },
          { ...user, until: 4_102_444_800_000, issued_before: null },
          { kind: "jti", value: 'ä"x', until: null, issued_before: null },
          { ...user, until: 0, issued_before: null },
        ],
      )
      t.match(await db.query("select kind, value, until = 'infinity' as for_ever from relay.revocation"), [
        { kind: "jti", value: 'ä"x', for_ever: true },
      ])
    })

    t.test("calls about others wait for nobody, also where both clear away what is over", async (t) => {
      const db = await database(t, { version })
      await db.query("insert into relay.revocation (kind, value, until) values ('user', 'old', now())")
      const [one, two] = [await db.session(), await db.session()]
      await one.query("begin; select relay.revoke('1')")
      await two.query("set statement_timeout = '10s'; select relay.revoke('2')")
      await one.query("commit")
      t.same(await db.query("select value from relay.revocation order by 1"), [
        { value: "1" },
        { value: "2" },
      ])
    })

    t.test("two calls about the same are in the log in the order in which they count", async (t) => {
      const db = await database(t, { version })
      const [one, two] = [await db.session(), await db.session()]
      await one.query("begin; select relay.revoke('7', '2100-01-01')")
      const second = two.query("select relay.revoke('7', '2200-01-01')")
      await until("it waits for the first", async () => {
        const [waits] = await db.query<{ it: boolean }>(
          "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock') as it",
        )
        return waits?.it === true
      })
      await one.query("select relay.revoke('8'); commit")
      await second
      const last = await db.query(
        "select extract(epoch from until)::bigint * 1000 = (select (meta::json->>'until')::bigint from relay.change order by seq desc limit 1) as it from relay.revocation where value = '7'",
      )
      t.same(last, [{ it: true }])
    })
  })
}

/** What people call refuses null and nonsense in words that say what to do, whatever their session has set. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { missing, refusal, VERSIONS } from "../helpers/log.ts"

/** The call, what is wrong with it, and what the message or its hint says to do. */
const CALLS: ReadonlyArray<readonly [call: string, message: RegExp, remedy: RegExp]> = [
  ["relay.track(null)", /null is no table/, /relay\.track\('/],
  ["relay.track(999999::regclass)", /999999 is no table/, /relay\.track\('/],
  ["relay.track('pg_catalog.pg_stats')", /cannot be tracked/, /ordinary and partitioned/],
  ["relay.track('public.vote', type => '')", /type {2}cannot be used/, /lower-case letters/],
  ["relay.track('public.vote', type => E'a\\nb')", /cannot be used/, /lower-case letters/],
  ["relay.track('public.vote', channels => 'null')", /channels must be an object/, /such as/],
  ["relay.track('public.vote', channels => '[]')", /channels must be an object/, /such as/],
  ["relay.track('public.vote', channels => '{\"committee\":null}')", /channels of/, /captured column/],
  ["relay.track('public.vote', channels => '{\"a b\":\"id\"}')", /channels of/, /lower-case letters/],
  ["relay.track('public.vote', columns => array[]::text[])", /key column/, /captured columns/],
  ["relay.track('public.vote', columns => array[null]::text[])", /no column NULL/, /no column/],
  ["relay.track('public.vote', exclude => array['nowhere'])", /no column nowhere/, /no column/],
  ["relay.track('public.vote', key => array[]::text[])", /key of public\.vote/, /key => array/],
  ["relay.track('public.vote', key => array['id', 'id'])", /key of public\.vote/, /each once/],
  ["relay.track('public.vote', key => array[null]::text[])", /no column NULL/, /no column/],
  ["relay.track('public.vote', level => 'table')", /level must be/, /row or statement/],
  ["relay.track('public.vote', restricted => 'null')", /restricted must be an object/, /such as/],
  ["relay.track('public.vote', restricted => '{\"admin\":\"votes\"}')", /restricted must be/, /such as/],
  ["relay.track('public.vote', max_bytes => 0)", /max_bytes must be between/, /1024 and/],
  ["relay.track('public.vote', max_bytes => -1)", /max_bytes must be between/, /1024 and/],
  ["relay.untrack(null)", /target must not be null/, /relay\.untrack\('/],
  ["relay.send_to_user(null, '{}')", /user_id NULL cannot be used/, /sub or user_id/],
  ["relay.send_to_user('', '{}')", /user_id '' cannot be used/, /1 to 128/],
  ["relay.send_to_user('a b', '{}')", /user_id 'a b' cannot be used/, /without blanks/],
  ["relay.send_to_user('a:b', '{}')", /user_id 'a:b' cannot be used/, /colons/],
  ["relay.send_to_user(E'a\\tb', '{}')", /cannot be used/, /without blanks/],
  ["relay.send_to_user(repeat('x', 129), '{}')", /cannot be used/, /1 to 128/],
  ["relay.send_to_user('7', null)", /payload must not be null/, /Send '/],
  ["relay.broadcast(null, '{}')", /channel NULL cannot be used/, /prefix/],
  ["relay.broadcast('', '{}')", /channel '' cannot be used/, /prefix/],
  ["relay.broadcast('Committee:7', '{}')", /cannot be used/, /lower-case letters/],
  ["relay.broadcast('committee:', '{}')", /cannot be used/, /1 to 128/],
  ["relay.broadcast('committee:a b', '{}')", /cannot be used/, /without blanks/],
  ["relay.broadcast('committee:a\\b:c', '{}')", /cannot be used/, /colons/],
  ["relay.broadcast('election_updates', null)", /payload must not be null/, /Send '/],
  ["relay.canary(null)", /name must have/, /1 to 128/],
  ["relay.revoke(null)", /either a user or a token/, /user_id => '/],
  ["relay.revoke('7', null)", /until must be a time to come/, /Leave it out/],
  ["relay.revoke('7', '-infinity')", /until must be a time to come/, /Leave it out/],
  ["relay.revoke('7', jti => 'x')", /either a user or a token/, /or jti/],
  ["relay.revoke('')", /no token has such a user/, /1 to 128/],
  ["relay.reinstate(null)", /either a user or a token/, /user_id => '/],
  ["relay.admit_revoker(null)", /there is no role null/, /pg_roles/],
  ["relay.admit_relay(null)", /there is no role null/, /pg_roles/],
  ["relay.admit_publisher('nobody of that name')", /there is no role "nobody of that name"/, /pg_roles/],
  ["relay.admit_revoker('nobody of that name')", /there is no role "nobody of that name"/, /pg_roles/],
  ["relay.define_derived(null, 'public.election_results', '{vote}')", /type NULL/, /lower-case letters/],
  ["relay.define_derived('x_update', null, '{vote}')", /function must name/, /election_results/],
  ["relay.define_derived('x_update', 'public.election_results', null)", /tables must name/, /\{vote/],
  ["relay.define_derived('x_update', 'public.election_results', '{}')", /tables must name/, /\{vote/],
  [
    "relay.define_derived('x_update', 'public.election_results', array[null]::regclass[])",
    /tables must/,
    /\{vote/,
  ],
  [
    "relay.define_derived('x_update', 'public.election_results', '{vote}', null)",
    /channel NULL/,
    /without an id/,
  ],
  [
    "relay.define_derived('x_update', 'public.election_results', '{vote}', min_interval => null)",
    /min_interval/,
    /100 ms/,
  ],
  [
    "relay.define_derived('x_update', 'public.election_results', '{vote}', max_age => null)",
    /max_age/,
    /a day/,
  ],
  [
    "relay.define_derived('x_update', 'public.election_results', '{vote}', action => '')",
    /action '' cannot/,
    /lower-case/,
  ],
  ["relay.drop_derived(null)", /type and channel must not be null/, /relay\.derived/],
  ["relay.drop_derived('x', null)", /type and channel must not be null/, /relay\.derived/],
  ["(relay.derive(null, null)).id", /no derived message null of null/, /relay\.derived/],
  ["(relay.derive('none', 'dashboard')).id", /no derived message none of dashboard/, /relay\.derived/],
]

const ODD = `
  set standard_conforming_strings = off; set escape_string_warning = off; set datestyle = 'SQL, DMY';
  set intervalstyle = 'sql_standard'; set timezone = 'Asia/Kathmandu'; set extra_float_digits = -15;
  set quote_all_identifiers = on; set array_nulls = off; set transform_null_equals = on; set bytea_output = 'escape';
  set default_transaction_isolation = 'serializable'; set row_security = off;
  set search_path = pg_temp, public`

for (const version of VERSIONS)
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    const db = await database(t, { version })
    const [plain, odd] = [await db.session(), await db.session()]
    await odd.query(ODD)

    t.test("a call with null or nonsense is refused, and the message says what to do", async (t) => {
      for (const [call, message, remedy] of CALLS)
        for (const [session, name] of [
          [plain, "plain"],
          [odd, "odd"],
        ] as const) {
          // Where backslashes escape, they are written twice.
          const text = session === odd ? call.replaceAll("a\\b", "a\\\\b") : call
          const error = (await refusal(session.query(`select ${text}`))) as Error & {
            code: string
            hint?: string
          }
          t.match(error, { code: /^(22023|42P01|42809|42703|42704)$/, message }, `${name}: ${call}`)
          t.match(`${error.message} ${error.hint ?? ""}`, remedy, `${name}: ${call}`)
        }
      t.same(await db.query('select from relay.change where "table" is null'), [], "nothing is in the log")
    })

    t.test("a call that is right does the same in both", async (t) => {
      const calls = [
        "relay.send_to_user(E'a\\\\b-ä', $a$[\"x\\ty\"]$a$)",
        "relay.broadcast('committee:7', 'null')",
        "relay.revoke('7', '2100-02-01 00:00:00+00')",
        "relay.reinstate('7')",
        "relay.track('public.vote')",
        "relay.define_derived('x_update', 'public.election_results', '{public.vote}')",
        "relay.drop_derived('x_update')",
      ]
      const logged = async (session: typeof plain) => {
        const before = await db.query<{ seq: string }>(
          "select coalesce(max(seq), 0) as seq from relay.change",
        )
        for (const call of calls) await session.query(`select ${call}`)
        return db.query("select op, type, new, meta from relay.change where seq > $1 order by seq", [
          before[0]?.seq,
        ])
      }
      const expected = await logged(plain)
      t.equal(expected.length, 4)
      t.same(await logged(odd), expected)
    })
  })

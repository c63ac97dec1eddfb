/** What goes wrong with the capture is said everywhere, and gone once what the document says is done. */

import t from "tap"
import { install } from "../../cli/schema/install.ts"
import { track } from "../../cli/schema/track.ts"
import { type Fault, tryFaults } from "../helpers/matrix.ts"

t.jobs = 3

/** Neither the relay nor the owner of the schema may touch the triggers, or the relay would mend them. */
const foreign = (sql: string): Pick<Fault, "prepare" | "bring"> => ({
  prepare: ({ superuser }) => superuser("alter table vote owner to postgres"),
  bring: ({ superuser }) => superuser(sql),
})

const onTrigger = (sql: string): string =>
  `do $$ begin execute (select format('${sql}', tgname) from pg_trigger where tgrelid = 'vote'::regclass and tgname ~ '^000_relay_insert'); end $$`

tryFaults(t, "The capture", {
  "the capture is paused": {
    bring: ({ db }) => db.query("select relay.pause()"),
    problem: /^the capture is paused and nothing is sent: select relay\.resume\(\) \(since \d{4}-.+Z\)$/,
    doctor: /^log: the capture is paused: .* -> select relay\.resume\(\)/m,
    mend: ({ db }) => db.query("select relay.resume()"),
  },
  "a trigger is disabled": {
    ...foreign(onTrigger("alter table vote disable trigger %I")),
    problem:
      /^public\.vote: its trigger "000_relay_insert_\d+" is disabled on public\.vote: .*relay\.mend.* \(since /,
    doctor: /^tables: public\.vote: its trigger .* is disabled .* -> .*select relay\.mend\('public\.vote'\)/m,
    mend: ({ superuser }) => superuser("select relay.mend('public.vote')"),
  },
  "a trigger is dropped": {
    ...foreign(onTrigger("drop trigger %I on vote")),
    problem: /^public\.vote: its trigger "000_relay_insert_\d+" is missing on public\.vote/,
    doctor: /^tables: public\.vote: its trigger .* is missing .* -> .*select relay\.mend/m,
    async mend({ db }) {
      await install(db.superuserUrl)
    },
  },
  "a tracked table is dropped": {
    bring: ({ db }) => db.query("drop table vote cascade"),
    problem: /^public\.vote: the table was dropped: select relay\.untrack\(\d+\)/,
    doctor: /^tables: public\.vote: the table was dropped -> select relay\.untrack\(\d+\)/m,
    mend: ({ db }) =>
      db.query("select relay.untrack(target::oid) from relay.tracking where name = 'public.vote'"),
  },
  "a tracked table is renamed": {
    bring: ({ db }) => db.query("alter table vote rename to ballot"),
    problem: /^public\.vote: the table was renamed: track it again/,
    doctor: /^tables: public\.vote: the table was renamed -> track it again/m,
    mend: ({ db }) => db.query("select relay.track('ballot', type => 'voting_update')"),
  },
  "another table has taken its name": {
    bring: ({ db }) =>
      db.query("alter table attendance rename to old; create table attendance (id bigint primary key)"),
    problem: /^public\.attendance: the table was renamed to public\.old, and there is another of its name/,
    doctor: /^tables: public\.attendance: the table was renamed to public\.old/m,
    mend: ({ db }) =>
      db.query(
        "select relay.track('old', type => 'attendance_update'), relay.track('attendance', type => 'a_update')",
      ),
  },
  "a captured column is altered": {
    bring: ({ db }) => db.query("alter table vote rename column votes to count"),
    problem: /^public\.vote: a captured column was renamed, retyped or dropped: track it again/,
    doctor: /^tables: public\.vote: a captured column was renamed, retyped or dropped -> track it again/m,
    async mend({ db }) {
      await track(db.url, "vote", {})
    },
  },
  "the row of a table in `relay.tracking` is deleted": {
    bring: ({ db }) => db.query("delete from relay.tracking where name = 'public.vote'"),
    problem: /^public\.vote: it has triggers of a tracking that is gone: commitcast track public\.vote/,
    doctor: /^tables: public\.vote has triggers of a tracking that is gone -> .*track public\.vote/m,
    async mend({ db }) {
      await track(db.url, "vote", { type: "voting_update" })
    },
  },
  "no table is tracked": {
    bring: ({ db }) => db.query("select relay.untrack(target) from relay.tracking"),
    problem: /^no table is tracked, so that nothing is sent: commitcast track/,
    doctor: /^tables: none is tracked, so that nothing is sent -> .*track/m,
    async mend({ db }) {
      await track(db.url, "vote", {})
    },
  },
  "the function of a derived message fails": {
    prepare: ({ db }) =>
      db.query(`create function total() returns json language sql stable as $$ select '1'::json $$;
        select relay.define_derived('total', 'total', '{vote}', min_interval => '100 ms', max_age => '100 ms')`),
    bring: ({ db }) =>
      db.query(
        "create or replace function total() returns json language sql stable as $$ select note::int::text::json from guarantee limit 1 $$",
      ),
    problem: /^total of .* cannot be computed: PostgreSQL refused it \(22P02\): run it in psql/,
    doctor: /^relay: total of .* cannot be computed/m,
    labels: 'type="total",result="failed"',
    mend: ({ db }) =>
      db.query(
        "create or replace function total() returns json language sql stable as $$ select '1'::json $$",
      ),
  },
})

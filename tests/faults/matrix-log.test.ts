/** What goes wrong with the log is said everywhere, and gone once what the document says is done. */

import t, { type Test } from "tap"
import { install } from "../../cli/schema/install.ts"
import { track } from "../../cli/schema/track.ts"
import type { Database } from "../helpers/database.ts"
import { onLogTables, role } from "../helpers/log.ts"
import { type Fault, tryFaults } from "../helpers/matrix.ts"

t.jobs = 3

/** A role that may do what a relay does, and owns nothing. */
async function admitted(t: Test, db: Database): Promise<string> {
  const url = await role(t, db, "relayer")
  await db.query("select relay.admit_relay($1)", [new URL(url).username])
  return url
}

const reinstall: Pick<Fault, "mend"> = {
  async mend({ db }) {
    await install(db.url)
  },
}

const drop = (what: string): Fault => ({
  bring: ({ superuser }) => superuser(`set client_min_messages = error; drop table relay.${what} cascade`),
  problem:
    /^the changelog cannot be read: a part of the schema relay is missing .*: commitcast install makes it anew/,
  doctor: new RegExp(`^schema: it lacks relay\\.${what}\\b.* -> .*install makes it anew`, "m"),
  ...reinstall,
})

tryFaults(t, "The log", {
  "a table of the log is emptied": {
    bring: ({ db }) => db.query("truncate relay.change_0"),
    problem: undefined,
    doctor: undefined,
    labels: 'reason="lineage"',
  },
  "rows of `relay.lineage` are deleted": {
    bring: ({ db }) => db.query("delete from relay.lineage"),
    problem: undefined,
    doctor: undefined,
    labels: 'reason="lineage"',
  },
  "the table of the log that is in use is dropped": drop("change_0"),
  "another table of the log is dropped": drop("change_2"),
  "`relay.tracking` is dropped": {
    bring: ({ superuser }) => superuser("set client_min_messages = error; drop table relay.tracking cascade"),
    problem:
      /^the tracked tables cannot be looked at: a part of the schema relay is missing .*: commitcast install .* \(since /,
    doctor: /^schema: it lacks relay\.tracking/m,
    async mend({ db }) {
      await install(db.url)
      await track(db.url, "vote", {})
    },
  },
  "the row of `relay.horizon` is deleted": {
    bring: ({ db }) => db.query("delete from relay.horizon"),
    problem: /^the changelog cannot be read: the row of relay\.horizon is missing, or hidden/,
    doctor: /^schema: it lacks the row of relay\.horizon -> .*install makes it anew/m,
    ...reinstall,
  },
  "row level security hides `relay.horizon`": {
    runsAs: admitted,
    bring: ({ db }) => db.query("alter table relay.horizon enable row level security"),
    problem:
      /^the changelog cannot be read: the row of relay\.horizon is missing, or hidden by row level security/,
    doctor: /^log: row level security hides rows of relay\.horizon -> .*disable row level security/m,
    ...reinstall,
  },
  "row level security hides the log": {
    runsAs: admitted,
    bring: ({ db }) => db.query(onLogTables((log) => `alter table ${log} enable row level security`)),
    problem: /^the log does not show what the relay itself has written to it/,
    doctor: /^log: row level security hides rows of relay\.change_0/m,
    ...reinstall,
  },
  "a right of the relay's role is revoked": {
    runsAs: admitted,
    bring: ({ db }) => db.query(`revoke select on relay.change_0 from relayer_${db.name}`),
    problem: /^the changelog cannot be read: the relay's role lacks a right .*relay\.admit_relay/,
    doctor: /^rights: the role \w+ may not use relay\.change_0 -> .*relay\.admit_relay/m,
    mend: ({ db }) => db.query(`select relay.admit_relay('relayer_${db.name}')`),
  },
  "the log cannot be written": {
    bring: ({ db }) =>
      db.query(
        onLogTables((log) => `alter table ${log} add constraint full_disk check (what <> 3) not valid`),
      ),
    problem: /^the relay cannot write to the log: .*full_disk/,
    doctor: /^relay: the relay cannot write to the log/m,
    labels: 'result="failed"',
    mend: ({ db }) => db.query(onLogTables((log) => `alter table ${log} drop constraint full_disk`)),
  },
  "the log cannot be rotated": {
    bring: ({ db }) =>
      db.query(`alter function relay.rotate(interval, bigint) rename to rotate_as_it_was;
        create function relay.rotate(interval, bigint) returns smallint language plpgsql as $$
          begin raise exception 'could not extend file "base/1/2": No space left on device' using errcode = 'disk_full'; end $$`),
    problem: /^the log cannot be rotated: the server's disk is full .*relay\.pause\(\).* \(since /,
    doctor: /^relay: the log cannot be rotated: the server's disk is full/m,
    labels: 'chore="rotate"',
    mend: ({ db }) =>
      db.query(
        "drop function relay.rotate(interval, bigint); alter function relay.rotate_as_it_was(interval, bigint) rename to rotate",
      ),
  },
})

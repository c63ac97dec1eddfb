/** `commitcast demo`: several writers at once play a night, and its totals are checked. */

import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { PassThrough } from "node:stream"
import type { WriteStream } from "node:tty"
import t from "tap"
import { audit } from "../../cli/demo/audit.ts"
import { type Night, type NightOptions, play } from "../../cli/demo/night.ts"
import { showProgress } from "../../cli/demo/progress.ts"
import { Returns } from "../../cli/demo/returns.ts"
import { type Script, scriptOf } from "../../cli/demo/script.ts"
import { finish, run, workDirectory } from "../helpers/command.ts"
import { type Database, database } from "../helpers/database.ts"
import { election } from "../helpers/election.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { manyReturns, totalsOf } from "../helpers/returns.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 3

const HEADER = "office,district,candidate,party,precinct,votes"

/** What each candidate has, by election and name. */
async function totals(db: Database): Promise<Record<string, number>> {
  const rows = await db.query<{ name: string; votes: number }>(
    `select e.name || ': ' || c.name as name, sum(v.votes)::int as votes
     from vote v join candidate c on c.id = v.candidate_id join election e on e.id = v.election_id group by 1 order by 1`,
  )
  return Object.fromEntries(rows.map(({ name, votes }) => [name, votes]))
}

const playIn = (db: Database, script: Script, options: Partial<NightOptions> = {}): Promise<Night> =>
  play({
    databaseUrl: db.url,
    script,
    seconds: 2,
    reset: false,
    signal: new AbortController().signal,
    onBegin() {},
    ...options,
  })

t.test("a night of real returns ends with them in the tables, whatever its writers did", async (t) => {
  const db = await election(t)
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  const returns = manyReturns()
  const night = await playIn(db, scriptOf(returns))
  t.same(await totals(db), totalsOf(returns))
  t.equal(night.counts.entries, returns.entries)
  t.ok(night.counts.corrected > 0 && night.counts.withdrawn > 0 && night.counts.verified > 0)
  const notes: string[] = []
  const session = await db.session()
  const told = { url: `${relay.url}/ws`, token: token() }
  await audit(session, night, told, new AbortController().signal, (line) => notes.push(line.trim()))
  const votes = Object.values(totalsOf(returns)).reduce((a, b) => a + b)
  t.same(notes, [
    `Equal: ${votes.toLocaleString("en")} votes were counted, and are in the table, candidate by candidate.`,
    "Equal: the relay tells the results that the table has, candidate by candidate.",
  ])
  const [by] = await db.query<{ clerks: number; office: number; import: number }>(
    `select count(distinct entered_by) filter (where entered_by like 'Clerk _, night %')::int as clerks,
            count(*) filter (where entered_by like 'Office, night %')::int as office,
            count(*) filter (where entered_by like 'Import, night %')::int as import from vote`,
  )
  t.match(by, { clerks: 4, office: 480, import: 240 })
  const imported = new Set(
    (await db.query("select id from vote where entered_by like 'Import%'")).map(({ id }) => id),
  )
  await client.first("the import", ({ action }) => action === "bulk_load")
  const actions = new Set(client.messages.map(({ action }) => action))
  for (const action of ["create", "update", "delete"]) t.ok(actions.has(action), action)
  t.notOk(
    client.changes().some(({ key }) => imported.has(key?.id)),
    "no imported row is told",
  )
})

t.test(
  "another night adds to the first, and finds elections, candidates and committees by name",
  async (t) => {
    const db = await database(t)
    const returns = new Returns()
    for (const committee of ["Committee 1", "North"])
      for (const candidate of ["Jonas Berg", "Ann"]) returns.add("Board election", candidate, committee, 21)
    await db.query("insert into vote (election_id, committee_id, candidate_id, votes) values (1, 1, 2, 1000)")
    await playIn(db, scriptOf(returns), { seconds: 0.3 })
    const night = await playIn(db, scriptOf(returns), { seconds: 0.3 })
    t.same(await totals(db), { "Board election: Ann": 84, "Board election: Jonas Berg": 1084 })
    t.same(await db.query("select count(*)::int from committee"), [{ count: 13 }])
    t.same(await db.query("select count(*)::int from candidate"), [{ count: 5 }])
    await audit(await db.session(), night, undefined, new AbortController().signal, () => {})
  },
)

t.test("reset empties the demo's tables first", async (t) => {
  const db = await database(t)
  await db.query("insert into vote (votes) values (1); insert into guarantee default values")
  const returns = new Returns()
  returns.add("Mayor", "Ann", "North", 3)
  await playIn(db, scriptOf(returns), { seconds: 0.2, reset: true })
  t.same(await totals(db), { "Mayor: Ann": 3 })
  t.same(await db.query("select id, name from election"), [{ id: 1, name: "Mayor" }])
  t.same(await db.query("select from guarantee"), [])
})

t.test("a row that somebody else changed is found, and named", async (t) => {
  const db = await database(t)
  const returns = manyReturns()
  const night = await playIn(db, scriptOf(returns), { seconds: 0.5 })
  await db.query(
    `update vote set votes = votes + 1 where id = (select v.id from vote v join candidate c on c.id = v.candidate_id
       join election e on e.id = c.election_id where (e.name, c.name) = ('Office 3', 'Çelik') limit 1)`,
  )
  const notes: string[] = []
  const checked = audit(await db.session(), night, undefined, new AbortController().signal, (line) =>
    notes.push(line),
  )
  await t.rejects(checked, { message: "the totals differ" })
  const right = totalsOf(returns)["Office 3: Çelik"] as number
  t.same(notes, [`  Office 3, Çelik: ${right} were counted, ${right + 1} are in the table`])
})

t.test("a relay that tells other results is found, and one that refuses the token", async (t) => {
  const db = await election(t)
  await db.query(
    `create or replace function election_results() returns table (id integer, data json) language sql stable as
     $$ select 1, '{"candidates": [{"candidate_id": 1, "votes": 4}, {"candidate_id": 2, "votes": 9}]}'::json $$`,
  )
  const relay = await startRelay(t, db)
  const returns = new Returns()
  returns.add("Board election", "Amal Haddad", "North", 4)
  returns.add("Board election", "Jonas Berg", "North", 8)
  const night = await playIn(db, scriptOf(returns), { seconds: 0.2 })
  const notes: string[] = []
  const session = await db.session()
  const checkWith = (its: string) =>
    audit(session, night, { url: `${relay.url}/ws`, token: its }, new AbortController().signal, (line) =>
      notes.push(line),
    )
  await t.rejects(checkWith("nonsense"), { message: /4500/ })
  await t.rejects(checkWith(token()), { message: "the totals differ" })
  t.equal(notes.at(-1), "  Board election, Jonas Berg: 9 are told, 8 are in the table")
})

t.test("a night that is ended has counted what it wrote, and leaves no session", async (t) => {
  const db = await database(t)
  const ended = new AbortController()
  const script = scriptOf(manyReturns())
  const sessions = () =>
    db.query(
      "select from pg_stat_activity where datname = current_database() and application_name = 'commitcast'",
    )
  const night = await playIn(db, script, {
    seconds: 60,
    signal: ended.signal,
    onBegin(begun) {
      void until("some of it is written", () => begun.counts.entries > 50).then(() => ended.abort())
    },
  })
  t.ok(night.counts.entries < script.returns.entries)
  t.ok(night.part() < 1)
  await audit(await db.session(), night, undefined, ended.signal, () => {})
  t.same(await sessions(), [])
})

t.test("what fails ends the whole night, with one error", async (t) => {
  const db = await database(t)
  await db.query("alter table vote add constraint no_list check (entered_by not like 'Office%')")
  await t.rejects(playIn(db, scriptOf(manyReturns()), { seconds: 4 }), { message: /no_list/ })
})

t.test("progress is one line in place on a terminal, and lines elsewhere", async (t) => {
  const shown = async (terminal: object) => {
    const stream = Object.assign(new PassThrough(), terminal) as unknown as WriteStream
    const end = showProgress(stream, () => "a line that is too long")
    let text = ""
    if ("isTTY" in terminal) text = String((await stream[Symbol.asyncIterator]().next()).value)
    end()
    return text
  }
  t.equal(await shown({ isTTY: true, columns: 7 }), "\r\x1b[Ka line")
  t.equal(await shown({}), "")
})

t.test("from nothing: a night with a restart of the relay, checked, and over", async (t) => {
  const cwd = await workDirectory(t)
  const args = ["demo", "--seconds", "4", "--speed", "60", "--restart-relay", "--exit", "--port", "0"]
  const { code, err, out } = await finish(t, cwd, args)
  t.equal(code, 0, err)
  t.match(out, /"event":"ready"/)
  t.match(err, /02:00 100 %: (\d+) of \1 entries/)
  t.match(err, /Equal: .* are in the table/)
  t.match(err, /Equal: the relay tells/)
  t.equal(err.match(/"event":"feed_up"/g)?.length, 2, "the relay began twice")
})

t.test("into a commitcast that runs: a file is played, Ctrl-C ends it, and the relay goes on", async (t) => {
  const cwd = await workDirectory(t)
  const relay = run(t, cwd, ["start", "--port", "0"])
  await relay.prints("ready", /"event":"ready"/)
  const rows = Array.from({ length: 300 }, (_, n) => `Mayor,,Candidate ${n % 3},,"Precinct ${n}, Nörd",${n}`)
  await writeFile(join(cwd, "returns.csv"), [HEADER, ...rows, "Mayor,,Undervotes,,P,9"].join("\r\n"))
  const play = (...args: string[]) => run(t, cwd, ["demo", "--from-csv", "returns.csv", ...args])
  const whole = play("--speed", "100")
  t.equal(await whole.ended, 0, whole.err())
  t.match(whole.err(), /300 entries of 300 committees, for 3 candidates in 1 elections; 1 rows skipped/)
  t.match(whole.err(), /Equal: 44,850 votes were counted/)
  t.match(whole.err(), /Equal: the relay tells/)
  const counted = await finish(t, cwd, ["query", "select sum(votes) from vote"])
  t.equal(counted.out, '{"sum":"44850"}\n')

  const cut = play("--seconds", "600")
  await cut.prints("where it plays", /played into the running http/)
  await until(
    "it writes",
    async () => (await finish(t, cwd, ["query", "select from vote offset 300 limit 1"])).out !== "",
  )
  cut.child.kill("SIGINT")
  t.equal(await cut.ended, 0, cut.err())
  t.match(cut.err(), /Equal: .* votes were counted/)

  const refused = play("--restart-relay")
  t.equal(await refused.ended, 2)
  t.match(refused.err(), /commitcast: --restart-relay needs .* end process \d+ first\n$/)
  await writeFile(join(cwd, "returns.csv"), "office,votes\n")
  const wrong = play()
  t.equal(await wrong.ended, 2)
  t.match(
    wrong.err(),
    /^commitcast: returns\.csv, line 1: no column district, candidate, party, precinct; .*\n$/,
  )
  t.equal(relay.child.exitCode, null)
})

t.test("help says what it does", async (t) => {
  const { out, code } = await finish(t, await workDirectory(t), ["demo", "--help"])
  t.equal(code, 0)
  for (const word of [
    "--seconds",
    "--speed",
    "--from-csv",
    "--reset",
    "--restart-relay",
    "--exit",
    "COPY",
    "undervotes",
  ])
    t.match(out, word)
  t.notMatch(out, "--database-url")
})

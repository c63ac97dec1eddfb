/** The numbers on the page are the database's at every rest, whatever happened on the way. */

import t, { type Test } from "tap"
import { NO_BROWSER, visit } from "../helpers/browser.ts"
import type { Database } from "../helpers/database.ts"
import { election, showsTheTruth } from "../helpers/election.ts"
import { copyIn } from "../helpers/log.ts"
import { processOn } from "../helpers/process.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const WRITERS = 4
const ROUNDS = 12

/** What an election night is made of, by several at once. */
async function burst(db: Database): Promise<void> {
  const clerk = async (n: number) => {
    const session = await db.session(db.writerUrl)
    for (let round = 0; round < ROUNDS; round++) {
      const at = [1 + ((n + round) % 12), 1 + ((n * round) % 4), 10 * n + round]
      await session.query(
        "insert into vote (election_id, committee_id, candidate_id, votes) values (1, $1, $2, $3)",
        at,
      )
      await session.query("insert into attendance (election_id, committee_id) values (1, $1)", [at[0]])
      await session.query("insert into guarantee (committee_id) values ($1)", [at[0]])
      await session.query(
        "update vote set votes = votes + 7, status = 'verified' where id = (select id from vote order by random() limit 1 for update skip locked)",
      )
      if (round % 3 === 0)
        await session.query(
          "delete from vote where id = (select id from vote order by random() limit 1 for update skip locked)",
        )
    }
  }
  const office = async () => {
    const session = await db.session(db.writerUrl)
    const rows = Array.from({ length: 300 }, (_, n) => `1\t${1 + (n % 12)}\n`).join("")
    await copyIn(session, "copy attendance (election_id, committee_id) from stdin", rows)
    await session.query(`begin; set local relay.bulk_load = 'summary';
      insert into guarantee (committee_id, status) select 1 + n % 12, (array['pledged', 'confirmed', 'withdrawn'])[1 + n % 3] from generate_series(1, 2000) n; commit`)
    await session.query("update attendance set present = false where id % 10 = 0")
  }
  await Promise.all([...Array.from({ length: WRITERS }, (_, n) => clerk(n + 1)), office()])
}

/** Opens the page. @returns with it what says that it was not loaded again and has done nothing that it should not. */
async function open(t: Test, url: string, options = {}) {
  const { page, complaints, context } = await visit(t, `${url}/#token=${token()}`, options)
  await page.evaluate("window.mark = 1")
  const wellBehaved = async () => {
    t.equal(await page.evaluate("window.mark"), 1, "it is the page that was opened")
    t.same(complaints, [])
  }
  return { page, context, wellBehaved }
}

t.test(
  "after a burst of real writers all numbers are SQL's, and the order is that of the votes",
  {
    skip: NO_BROWSER,
  },
  async (t) => {
    const db = await election(t)
    const relay = await startRelay(t, db)
    const { page, wellBehaved } = await open(t, relay.url)
    await showsTheTruth(page, db)
    await burst(db)
    await showsTheTruth(page, db)
    await db.query(
      "insert into vote (election_id, committee_id, candidate_id, votes) values (1, 2, 4, 100000)",
    )
    await showsTheTruth(page, db)
    t.equal(await page.locator(".candidate bdi").first().textContent(), "Rosa Alvarez")
    t.match(await page.locator("#results-lead").textContent(), /^Rosa Alvarez leads by /)
    t.match(await page.locator("#board-announcer").textContent(), /of 12 committees have reported/)
    await db.query("truncate vote")
    await showsTheTruth(page, db)
    t.equal(await page.locator("#results-lead").textContent(), "No votes yet")
    await wellBehaved()
  },
)

t.test(
  "the relay is killed and comes back: the page says so, and is right again without a reload",
  {
    skip: NO_BROWSER,
  },
  async (t) => {
    const db = await election(t)
    const relay = await processOn(t, db.url)
    const first = await relay.start()
    const { page, wellBehaved } = await open(t, relay.url)
    await showsTheTruth(page, db)
    first.child.kill("SIGKILL")
    await page.getByText(/^Offline since [\d:]+\.$/).waitFor()
    t.match(await page.title(), /^Offline since/)
    await burst(db)
    await relay.start()
    await page.getByText("Live", { exact: true }).waitFor()
    await page.getByText(/^Connected again at [\d:]+; [\d,]+ changes caught up with$/).waitFor()
    await showsTheTruth(page, db)
    await wellBehaved()
  },
)

t.test("the network goes and comes back", { skip: NO_BROWSER }, async (t) => {
  const db = await election(t)
  const relay = await startRelay(t, db)
  const { page, context, wellBehaved } = await open(t, relay.url)
  await showsTheTruth(page, db)
  await context.setOffline(true)
  await page.getByText(/the browser is offline/).waitFor()
  await burst(db)
  await context.setOffline(false)
  await page.getByText(/^Connected again at/).waitFor()
  await showsTheTruth(page, db)
  await wellBehaved()
})

t.test(
  "a laptop is closed for an hour on a line that is dead when it opens",
  { skip: NO_BROWSER },
  async (t) => {
    const db = await election(t)
    const relay = await startRelay(t, db)
    const proxy = await startProxy(t, Number(new URL(relay.url).port))
    const { page, wellBehaved } = await open(t, `http://127.0.0.1:${proxy.port}`, { clock: true })
    await showsTheTruth(page, db)
    proxy.silence()
    await burst(db)
    await page.clock.fastForward("01:00:00")
    await page.getByText(/^Connected again at [\d:]+; [\d,]+ changes caught up with$/).waitFor()
    await showsTheTruth(page, db)
    await wellBehaved()
  },
)

t.test(
  "where what was missed cannot be told, the page says so, and its numbers are right",
  {
    skip: NO_BROWSER,
  },
  async (t) => {
    const db = await election(t)
    const relay = await startRelay(t, db)
    const { page, wellBehaved } = await open(t, relay.url)
    await showsTheTruth(page, db)
    await db.query("select relay.begin_lineage()")
    await page.getByText(/^Resynced at .* may be missing here; the totals are current$/).waitFor()
    await page
      .locator("#resynced")
      .getByText(/^resynced [\d:]+$/)
      .waitFor()
    await db.query("insert into vote (election_id, committee_id, candidate_id, votes) values (1, 2, 4, 5)")
    await showsTheTruth(page, db)
    await wellBehaved()
  },
)

t.test(
  "with several elections each has its own numbers, and committees that are many have no names",
  {
    skip: NO_BROWSER,
  },
  async (t) => {
    const db = await election(t)
    await db.query(`insert into election (name) values ('Second'); insert into candidate (election_id, name) values (2, 'Only');
    insert into committee (name) select 'Precinct ' || n from generate_series(1, 100) n;
    insert into vote (election_id, committee_id, candidate_id, votes) values (1, 1, 1, 3), (2, 50, 5, 8);
    insert into attendance (election_id) values (2), (2), (1)`)
    const relay = await startRelay(t, db)
    const { page, wellBehaved } = await open(t, relay.url)
    await page.locator("#turnout-present").getByText("1", { exact: true }).waitFor()
    await page.getByLabel("Election", { exact: true }).selectOption("Second")
    await page.locator("#turnout-present").getByText("2", { exact: true }).waitFor()
    t.same(await page.locator(".candidate bdi").allTextContents(), ["Only"])
    t.equal(await page.locator(".committee").count(), 112)
    t.same(await page.locator(".committee[data-reported=entered]").allTextContents(), ["Precinct 38 8 votes"])
    await db.query("insert into attendance (election_id) values (2)")
    await page.locator("#turnout-present").getByText("3", { exact: true }).waitFor()
    const followed = async () => Object.keys((await relay.relay.report()).connections.by_channel)
    await until("no other dashboard is followed", async () =>
      (await followed()).every((channel) => !channel.startsWith("dashboard") || channel === "dashboard:2"),
    )
    await wellBehaved()
  },
)

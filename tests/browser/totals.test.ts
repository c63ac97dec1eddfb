/** The numbers on the page are the database's at every rest. */

import t from "tap"
import { inventNight } from "../../cli/demo/invent.ts"
import { play } from "../../cli/demo/night.ts"
import { NO_BROWSER } from "../helpers/browser.ts"
import { burst, election, openElection, showsTheTruth } from "../helpers/election.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.test(
  "after a burst of real writers all numbers are SQL's, and the order is that of the votes",
  {
    skip: NO_BROWSER,
  },
  async (t) => {
    const db = await election(t)
    const relay = await startRelay(t, db)
    const { page, wellBehaved } = await openElection(t, relay.url)
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
  "after a night of the demo all numbers are SQL's, also those of what was imported in bulk",
  { skip: NO_BROWSER },
  async (t) => {
    const db = await election(t)
    const relay = await startRelay(t, db)
    const { page, wellBehaved } = await openElection(t, relay.url)
    const signal = new AbortController().signal
    await play({
      databaseUrl: db.url,
      script: inventNight(600),
      seconds: 4,
      reset: false,
      signal,
      onBegin() {},
    })
    const [imported] = await db.query<{ n: number }>(
      "select count(*)::int as n from vote where entered_by like 'Import%'",
    )
    t.ok(Number(imported?.n) > 0)
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
    const { page, wellBehaved } = await openElection(t, relay.url)
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
    const { page, wellBehaved } = await openElection(t, relay.url)
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

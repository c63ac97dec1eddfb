/** The stream of changes on the page: live rows, floods, and databases that have nothing but rows. */

import type { Page } from "playwright-core"
import t from "tap"
import { install } from "../../cli/schema/install.ts"
import { NO_BROWSER, visit } from "../helpers/browser.ts"
import { database } from "../helpers/database.ts"
import { election, openElection, rowsAre } from "../helpers/election.ts"
import { startRelay, token } from "../helpers/relay.ts"

/** What api/public/pages/dashboard/stream.js keeps in the page. */
const SHOWN = 300
const MANY = 5_000

const rows = (page: Page) => page.locator(".change")
const live = (page: Page) => page.locator("#state").getByText("Live", { exact: true }).waitFor()

t.test(
  "rows come as they are committed, those of a transaction together",
  { skip: NO_BROWSER },
  async (t) => {
    const db = await election(t)
    const relay = await startRelay(t, db)
    const { page, wellBehaved } = await openElection(t, relay.url)
    await live(page)
    await page.getByText("Waiting for the first change.").waitFor()
    await db.query(`begin; insert into vote (committee_id, votes, entered_by) values (7, 42, '<b>Nadia</b>');
    insert into guarantee (committee_id, voter_name) values (7, 'Karam'); update vote set votes = 43; commit`)
    await rows(page).nth(2).waitFor()
    t.same(await rows(page).locator(".badge").allTextContents(), ["voting", "guarantee", "voting"])
    t.match(await rows(page).first().textContent(), /update.*votes 42 → 43.*tx \d+ · 3 changes/)
    t.match(await rows(page).last().textContent(), /create.*entered_by <b>Nadia<\/b>/, "text, and no markup")
    await rows(page).first().locator("summary").click()
    await rows(page).first().getByText("committee_id").waitFor()
    await db.query("select relay.broadcast('election_updates', '{\"text\": \"Polls close in 30 minutes\"}')")
    await rows(page)
      .first()
      .getByText(/Polls close in 30 minutes/)
      .first()
      .waitFor()
    await wellBehaved()
  },
)

t.test("it can be filtered, paused and cleared", { skip: NO_BROWSER }, async (t) => {
  const db = await election(t)
  const relay = await startRelay(t, db)
  const { page, wellBehaved } = await openElection(t, relay.url)
  await live(page)
  await db.query(
    "insert into vote (votes) values (42); insert into guarantee (voter_name) values ('Karam'), ('Haddad')",
  )
  await rows(page).nth(2).waitFor()
  await page.getByRole("button", { name: /^guarantee 2$/ }).click()
  await rowsAre(page, 2)
  await page.getByLabel("Filter by text").fill("karam")
  await rowsAre(page, 1)
  await page.getByLabel("Filter by text").fill("nobody")
  await page.getByText("None of the changes matches the filter.").waitFor()
  await page.getByLabel("Filter by text").fill("")
  await page.getByRole("button", { name: /^All/ }).click()
  await page.getByRole("button", { name: "Pause" }).click()
  await db.query("insert into vote (votes) values (1), (2)")
  await page.getByText("Paused. 2 new changes waiting.").waitFor()
  t.equal(await rows(page).count(), 3)
  await page.getByRole("button", { name: "Resume" }).click()
  await rows(page).nth(4).waitFor()
  await page.getByRole("button", { name: "Clear" }).click()
  await page.getByText("Waiting for the next change.").waitFor()
  t.equal(await rows(page).count(), 0)
  await wellBehaved()
})

t.test(
  "thousands of rows at once are counted one by one, and drawn a few times",
  { skip: NO_BROWSER },
  async (t) => {
    const db = await election(t)
    const relay = await startRelay(t, db)
    const { page, wellBehaved } = await openElection(t, relay.url)
    await live(page)
    await page.evaluate(`
    const list = document.getElementById("changes")
    window.seen = { draws: 0, most: 0, longest: 0 }
    new MutationObserver(() => {
      seen.draws++
      seen.most = Math.max(seen.most, list.children.length)
    }).observe(list, { childList: true })
    new PerformanceObserver((entries) => {
      for (const { duration } of entries.getEntries()) seen.longest = Math.max(seen.longest, duration)
    }).observe({ type: "longtask" })`)
    const session = await db.session(db.writerUrl)
    for (let written = 0; written < MANY; written += 50)
      await session.query(
        "insert into vote (committee_id, votes) select 1 + n % 12, n from generate_series(1, 50) n",
      )
    await page.getByRole("button", { name: "All 5,000" }).waitFor()
    await page.getByText(/^The newest 300 are shown/).waitFor()
    const { draws, most, longest } = await page.evaluate<{ draws: number; most: number; longest: number }>(
      "seen",
    )
    t.comment(`${draws} draws, the longest task ${Math.round(longest)} ms`)
    t.ok(draws < MANY / 20, `${draws} draws`)
    t.ok(most <= SHOWN, `${most} rows at most in the page`)
    t.match(await rows(page).first().textContent(), /votes 50/)
    await page.getByRole("button", { name: "Pause" }).click()
    await page.getByText("Paused. Nothing new yet.").waitFor()
    await wellBehaved()
  },
)

t.test(
  "a database without the demo's schema has the stream alone, with numbers as PostgreSQL wrote them",
  {
    skip: NO_BROWSER,
  },
  async (t) => {
    const db = await database(t, { empty: true })
    await db.query("create table reading (id bigint primary key, value numeric, at timestamptz)")
    await install(db.url)
    await db.query("select relay.track('reading', type => 'reading_update')")
    const relay = await startRelay(t, db)
    const { page, complaints } = await visit(t, `${relay.url}/#token=${token()}`)
    await live(page)
    await db.query("insert into reading values (9007199254740993, 1.50, '2026-11-03 20:15Z')")
    await rows(page).waitFor()
    t.match(await rows(page).textContent(), /reading.*create.*id 9007199254740993.*value 1\.50/)
    t.notOk(await page.locator("#board").isVisible())
    t.same(complaints, [])
  },
)

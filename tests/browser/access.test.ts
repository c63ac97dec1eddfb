/** The page for everybody: by keyboard, for those who hear it, on a phone, from right to left. */

import t from "tap"
import { NO_BROWSER, seriousFindings, visit } from "../helpers/browser.ts"
import { burst, election, openElection, rowsAre, showsTheTruth } from "../helpers/election.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

/** Between two announcements, less what a timer of the page may be early. */
const QUIET_MS = 20_000 - 100
const PHONE = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }

t.test("everything can be done with the keyboard", { skip: NO_BROWSER }, async (t) => {
  const db = await election(t)
  const relay = await startRelay(t, db)
  const { page } = await visit(t, `${relay.url}/`)
  const focused = () =>
    page.evaluate<string>(
      "document.activeElement.id || document.activeElement.tagName + ' ' + document.activeElement.textContent",
    )
  const reach = async (wanted: RegExp) => {
    for (let n = 0; n < 20; n++) {
      await page.keyboard.press("Tab")
      if (wanted.test(await focused())) return
    }
    t.fail(`${wanted} is not reached, but ${await focused()}`)
  }
  await until("the field has the focus", async () => (await focused()) === "token")
  await page.keyboard.type(token())
  await page.keyboard.press("Enter")
  await showsTheTruth(page, db)
  t.equal(await focused(), "main", "the focus is where it goes on")
  await db.query(
    "insert into vote (committee_id, entered_by) values (7, 'Nadia'); insert into guarantee (voter_name) values ('Karam')",
  )
  await page.locator(".change").nth(1).waitFor()
  await reach(/^BUTTON guarantee/)
  await page.keyboard.press("Space")
  await rowsAre(page, 1)
  await page.keyboard.press("Space")
  await reach(/^filter$/)
  await page.keyboard.type("nadia")
  await rowsAre(page, 1)
  await reach(/^pause$/)
  await page.keyboard.press("Enter")
  await page.getByText("Paused. Nothing new yet.").waitFor()
  await reach(/^SUMMARY/)
  const outline = await page.evaluate<string>("getComputedStyle(document.activeElement).outlineStyle")
  t.equal(outline, "solid", "what has the focus is seen")
  await page.keyboard.press("Enter")
  await page.locator(".details").getByText("committee_id").waitFor()
})

t.test(
  "changes are not shouted: what is read out is the state, and who leads",
  { skip: NO_BROWSER },
  async (t) => {
    const db = await election(t)
    const relay = await startRelay(t, db)
    const { page, wellBehaved } = await openElection(t, relay.url)
    await showsTheTruth(page, db)
    await page.locator("#announcer").getByText("Live.").waitFor({ state: "attached" })
    await page.evaluate(`
    window.said = []
    new MutationObserver(() => said.push({ text: document.getElementById("board-announcer").textContent, at: Date.now() }))
      .observe(document.getElementById("board-announcer"), { childList: true })`)
    for (let n = 1; n <= 10; n++) {
      await db.query(
        "insert into vote (election_id, committee_id, candidate_id, votes) values (1, $1, 2, 10)",
        [n],
      )
      await showsTheTruth(page, db)
    }
    await until("it is said", async () => (await page.evaluate<string[]>("said")).length > 0)
    const said = await page.evaluate<{ text: string; at: number }[]>("said")
    t.match(said[0]?.text, /^Jonas Berg leads by \d+\. \d+ of 12 committees have reported\.$/)
    const early = said.filter(({ at }, n) => n > 0 && at - (said[n - 1]?.at ?? 0) < QUIET_MS)
    t.same(early, [], "once in twenty seconds, however much changes")
    await wellBehaved()
  },
)

t.test("on a phone nothing is cut off and nothing scrolls sideways", { skip: NO_BROWSER }, async (t) => {
  const db = await election(t)
  await burst(db)
  const relay = await startRelay(t, db)
  const { page, wellBehaved } = await openElection(t, relay.url, PHONE)
  await showsTheTruth(page, db)
  const width = () => page.evaluate<number>("document.documentElement.scrollWidth")
  t.equal(await width(), PHONE.viewport.width, "while it waits for the first change")
  await db.query("insert into vote (votes, entered_by) values (1, repeat('long', 60))")
  await page.locator(".change").first().waitFor()
  t.equal(await width(), PHONE.viewport.width)
  t.same(await seriousFindings(page), [])
  await wellBehaved()
})

t.test(
  "where the reader's language runs from right to left, so does the page, with its digits",
  { skip: NO_BROWSER },
  async (t) => {
    const db = await election(t)
    await db.query("insert into vote (election_id, committee_id, candidate_id, votes) values (1, 1, 2, 4567)")
    const relay = await startRelay(t, db)
    const { page, wellBehaved } = await openElection(t, relay.url, { locale: "ar-EG" })
    await page.locator(".votes").getByText("٤٬٥٦٧").waitFor()
    t.equal(await page.evaluate("document.dir"), "rtl")
    const bar = await page.locator(".candidate .fill").first().boundingBox()
    const card = await page.locator("#results").boundingBox()
    t.ok(
      bar !== null && card !== null && Math.abs(bar.x + bar.width - card.x - card.width) < 2,
      "bars begin at the right",
    )
    await wellBehaved()
  },
)

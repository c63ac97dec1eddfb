/** The operations page, in a real browser: it shows what the report says, and says when it cannot. */

import type { Page } from "playwright-core"
import t, { type Test } from "tap"
import { NO_BROWSER, seriousFindings, visit } from "../helpers/browser.ts"
import { type Database, database } from "../helpers/database.ts"
import { processOn } from "../helpers/process.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 3

const skip = { skip: NO_BROWSER }
const admin = () => token({ role: "admin" })
const REPORT = "**/api/utils/websocket/health/**"

interface Report {
  connections: { total: number; users: number; lanes: number; by_channel: Record<string, number> }
  totals: { changes: number; deliveries: number; connects: number }
}

async function report(url: string): Promise<Report> {
  const answer = await fetch(`${url}/api/utils/websocket/health/`, {
    headers: { authorization: `Bearer ${admin()}` },
  })
  return (await answer.json()) as Report
}

/** The page of a relay of its own, signed in by a link. */
async function operate(t: Test, options: Parameters<typeof visit>[2] = {}, db?: Database) {
  const relay = await startRelay(t, db ?? (await database(t)))
  const visited = await visit(t, `${relay.url}/operations#token=${admin()}`, options)
  await stands(visited.page, /^(Live|Degraded)$/)
  return { relay, ...visited }
}

/** Waits until the bar says so. */
const stands = (page: Page, text: string | RegExp) =>
  page.locator("#state").filter({ hasText: text }).waitFor()

const gauge = (page: Page, title: string) =>
  page.getByRole("article").filter({ has: page.getByRole("heading", { name: title, exact: true }) })

/** Waits until the row of a table that has this text says all of these. */
async function rowSays(t: Test, page: Page, region: string, text: string, cells: string[]) {
  const row = page.getByRole("region", { name: region }).getByRole("row").filter({ hasText: text }).first()
  await row.waitFor()
  const told = await row.getByRole("cell").allInnerTexts()
  for (const cell of cells) t.ok(told.includes(cell), `${cell} in ${told.join(" | ")}`)
}

t.test("a link signs in, and the token is gone from the address", skip, async (t) => {
  const { relay, page, complaints } = await operate(t)
  t.equal(page.url(), `${relay.url}/operations`)
  t.equal(await page.title(), "Operations · CommitCast")
  await page.reload()
  await stands(page, "Live")
  t.equal((await report(relay.url)).connections.total, 0, "it opens no socket")
  await page.getByRole("button", { name: "Sign out" }).click()
  await stands(page, "Not signed in")
  await page.reload()
  await stands(page, "Not signed in")
  t.same(complaints, [])
})

t.test("with the keyboard alone: a token pasted, and the figures as a table", skip, async (t) => {
  const relay = await startRelay(t, await database(t))
  const { page } = await visit(t, `${relay.url}/operations`)
  await stands(page, "Not signed in")
  await page.keyboard.insertText("not a token")
  await page.keyboard.press("Enter")
  await page.getByText("This is not a token").waitFor()
  await page.keyboard.press("ControlOrMeta+A")
  await page.keyboard.insertText(`  ${relay.url}/operations#token=${admin()} `)
  await page.keyboard.press("Enter")
  await stands(page, "Live")
  t.equal(
    await page.evaluate("document.activeElement.tagName"),
    "MAIN",
    "the focus is on what came in the form's place",
  )
  await page.keyboard.press("Tab")
  await page.keyboard.press("Enter")
  const table = page.getByRole("region", { name: "Figures as a table" })
  await table.getByRole("row").nth(1).waitFor()
  t.same(await table.getByRole("columnheader").allInnerTexts(), [
    "From",
    "Connections",
    "Changes read a second",
    "Deliveries a second",
    "Lag",
    "Connects a second",
    "Closes a second",
  ])
})

t.test("a link without a token says so, beside the report of whoever is signed in", skip, async (t) => {
  const { page } = await operate(t)
  await page.evaluate(`location.hash = "#token=nonsense"`)
  await page.getByText("This is not a token").waitFor()
  await page.waitForResponse(REPORT)
  await page.waitForResponse(REPORT)
  t.ok(await page.getByText("This is not a token").isVisible(), "the next report does not take it away")
  t.equal(await page.locator("#state").innerText(), "Live")
  t.equal(await page.evaluate("location.hash"), "")
})

t.test("a token that does not do is told why", skip, async (t) => {
  const relay = await startRelay(t, await database(t))
  const { page, complaints } = await visit(t, `${relay.url}/operations#token=${token()}`)
  await page.getByText("This token is not an admin's (403)").waitFor()
  await stands(page, "Not signed in")
  for (const [given, text] of [
    [token({ role: "admin", exp: 1 }), "The token has expired (401). Sign in with a new one."],
    [`${admin().slice(0, -8)}AAAAAAAA`, "The relay does not accept this token (401): token invalid."],
  ] as const) {
    await page.getByLabel("Token").fill(given)
    await page.getByRole("button", { name: "Open" }).click()
    await page.getByText(text).waitFor()
  }
  t.same(complaints, [])
})

t.test("it shows the numbers that the report has, as the reader writes them", skip, async (t) => {
  const db = await database(t)
  const { relay, page, complaints } = await operate(t, { locale: "de-DE" }, db)
  const clients = [
    await relay.connect({ sub: "7" }, "?channels=committee:1"),
    await relay.connect({ sub: "7" }, "?channels=committee:1"),
    await relay.connect({ sub: "8" }, "?channels=committee:1,committee:2"),
  ]
  await db.query("insert into vote (committee_id) select 1 from generate_series(1, 1500)")
  await db.query("alter table vote alter votes type bigint; alter table vote add column late int")
  for (const client of clients) await client.count(1_500)
  const { connections, totals } = await report(relay.url)
  t.match(
    { connections, totals },
    { connections: { total: 3, users: 2, lanes: 2 }, totals: { changes: 1_500 } },
  )
  await gauge(page, "Changes read").getByText("1.500 since the start").waitFor()
  await gauge(page, "Deliveries").getByText("4.500 since the start").waitFor()
  await gauge(page, "Connects").getByText("3 since the start").waitFor()
  await gauge(page, "Connections").getByText("2 users · 2 lanes").waitFor()
  t.equal(await gauge(page, "Connections").locator(".value").innerText(), "3")
  const named = (id: string) => page.locator(`#${id} li`).allInnerTexts()
  await until("the channels", async () => (await named("channels")).length === 2)
  t.same(await named("channels"), ["committee:1\n3", "committee:2\n1"])
  t.same(await named("users"), ["7\n2", "8\n1"])
  await until("the rate of the past seconds is shown, and falls again", async () => {
    const told = await gauge(page, "Deliveries").locator(".value").innerText()
    return told.startsWith("0 ")
  })
  const problem = "a captured column was renamed, retyped or dropped: track it again. Not captured: late."
  await rowSays(t, page, "Tracked tables", problem, ["public.vote", "voting_update", "row", problem])
  await rowSays(t, page, "Tracked tables", "public.guarantee", ["Complete."])
  t.same(complaints, [])
})

t.test("closes and refusals show up with their reason, and how many", skip, async (t) => {
  const { relay, page } = await operate(t)
  await page.getByText("Nothing has been closed or refused yet.").waitFor()
  await t.rejects(relay.open("/elsewhere"))
  await t.rejects(relay.open("/elsewhere"))
  await (await relay.open("/ws?token=x")).closed
  const client = await relay.connect()
  client.socket.close(1001)
  await client.closed
  await page.getByRole("region", { name: "The last" }).getByText("going away").waitFor()
  await rowSays(t, page, "The last", "wrong path", ["refused", "404", "2"])
  await rowSays(t, page, "The last", "invalid token", ["closed", "4500", "1"])
  await rowSays(t, page, "The last", "going away", ["left", "1001", "1"])
  t.same((await page.locator("#reasons li").allInnerTexts()).sort(), [
    "closed\ninvalid token\n1",
    "left\ngoing away\n1",
    "refused\nwrong path\n2",
  ])
  await gauge(page, "Closes").getByText("2 since the start · 2 refused at the door").waitFor()
})

t.test("a relay that is away is said to be, and one that was started anew as well", skip, async (t) => {
  const db = await database(t)
  const relay = await processOn(t, db.url)
  const first = await relay.start()
  const { page } = await visit(t, `${relay.url}/operations#token=${admin()}`)
  await stands(page, "Live")
  await db.query("insert into vote default values")
  await gauge(page, "Changes read").getByText("1 since the start").waitFor()
  first.child.kill("SIGKILL")
  await first.ended
  await stands(page, /^Away since/)
  const notice = page.getByRole("region", { name: /^No report since/ })
  await notice.getByText("The relay cannot be reached.").waitFor()
  await notice.getByText(/What is shown is .* old/).waitFor()
  t.ok(await gauge(page, "Changes read").isVisible(), "what was known stays in sight")
  await relay.start()
  await page
    .getByRole("button", { name: "Try now" })
    .click()
    // It may have come back by itself.
    .catch(() => {})
  await stands(page, "Live")
  await page.getByText("The relay was started anew at").waitFor()
  await gauge(page, "Changes read").getByText("0 since the start").waitFor()
  t.ok(await page.locator("#away").isHidden())
})

t.test("a report that gets old is said to be", skip, async (t) => {
  const { page } = await operate(t)
  await page.route(REPORT, () => {})
  await stands(page, "Stale")
  const notice = page.getByRole("region", { name: /^No report since/ })
  await notice.getByText("The relay takes long to answer.").waitFor()
  await notice.getByText(/What is shown is \d+s old\./).waitFor()
  await stands(page, /^Away since/)
  await page.getByText("there is no answer within 10 s").waitFor()
  await page.unroute(REPORT)
  await stands(page, "Live")
  await page.getByText(/There was no report from/).waitFor()
})

t.test("what a proxy says in the relay's place is no report", skip, async (t) => {
  const { page } = await operate(t)
  await page.route(REPORT, (route) => route.fulfill({ status: 502, body: "<h1>Bad Gateway</h1>" }))
  await page.getByText("it answers with status 502").waitFor()
  await page.unroute(REPORT)
  await page.route(REPORT, (route) => route.fulfill({ status: 200, body: "<h1>Sign in to the network</h1>" }))
  await page.getByText("it answers with status 200").waitFor()
})

t.test("nothing is asked while nobody looks", skip, async (t) => {
  const { page } = await operate(t)
  let asked = 0
  page.on("request", () => asked++)
  const hide = (hidden: boolean) =>
    page.evaluate(`Object.defineProperty(document, "hidden", { get: () => ${hidden}, configurable: true })
      document.dispatchEvent(new Event("visibilitychange"))`)
  await page.waitForRequest(REPORT)
  await hide(true)
  await page.waitForLoadState("networkidle")
  const before = asked
  await page.evaluate("new Promise((resolve) => setTimeout(resolve, 3_000))")
  t.equal(asked, before)
  const next = page.waitForRequest(REPORT)
  await hide(false)
  await next
  await stands(page, "Live")
})

for (const colorScheme of ["light", "dark"] as const)
  t.test(`nothing that axe finds serious, ${colorScheme}`, skip, async (t) => {
    const db = await database(t)
    await db.query(`
      create function share() returns json language sql as $$ select to_json(1 / (1 - count(*))) from vote $$;
      select relay.define_derived('share', 'share', '{vote}');
      insert into vote default values`)
    const { relay, page, complaints } = await operate(t, { colorScheme }, db)
    await t.rejects(relay.open("/elsewhere"))
    await relay.connect({ sub: "7" }, "?channels=committee:1")
    await page.getByRole("button", { name: "As a table" }).click()
    await page.getByRole("heading", { name: "Degraded" }).waitFor()
    await page.locator("#channels li").waitFor()
    t.same(await seriousFindings(page), [])
    await page.route(REPORT, (route) => route.abort())
    await stands(page, /^Away since/)
    t.same(await seriousFindings(page), [], "away")
    await page.getByRole("button", { name: "Sign out" }).click()
    t.same(await seriousFindings(page), [], "signed out")
    t.same(complaints, [])
  })

t.test("it fits a phone, and runs from right to left", skip, async (t) => {
  const { relay, page } = await operate(t, { viewport: { width: 360, height: 740 } })
  await relay.connect({ sub: "7" }, `?channels=committee:${"1".repeat(100)}`)
  await page.locator("#channels li").waitFor()
  const overflow = () => page.evaluate("document.documentElement.scrollWidth - innerWidth")
  t.equal(await overflow(), 0)
  await page.evaluate(`document.documentElement.dir = "rtl"`)
  t.equal(await overflow(), 0, "from right to left")
  const [first, second] = [gauge(page, "Connections"), gauge(page, "Changes read")]
  const [right, left] = [await first.boundingBox(), await second.boundingBox()]
  t.ok((right?.x ?? 0) > (left?.x ?? 0), "the first is on the right")
})

/** Signing in at the page, staying, and being sent away. */

import jwt from "jsonwebtoken"
import t, { type Test } from "tap"
import { NO_BROWSER, type VisitOptions, visit } from "../helpers/browser.ts"
import { database } from "../helpers/database.ts"
import { startRelay, token } from "../helpers/relay.ts"

async function open(t: Test, hash: string, options: VisitOptions = {}, settings = {}) {
  const db = await database(t)
  const relay = await startRelay(t, db, settings)
  const { page, complaints, context } = await visit(t, `${relay.url}/${hash}`, options)
  const state = (text: string | RegExp) => page.locator("#state").getByText(text, { exact: true }).waitFor()
  const paste = async (text: string) => {
    await page.getByLabel("Token", { exact: true }).fill(text)
    await page.getByRole("button", { name: "Connect" }).click()
  }
  return { db, relay, page, context, complaints, state, paste }
}

t.test("a link signs in, and the token is gone from the address", { skip: NO_BROWSER }, async (t) => {
  const { relay, page, complaints, state } = await open(t, `#token=${token()}`)
  await state("Live")
  t.equal(page.url(), `${relay.url}/`)
  t.match(
    await page.locator("#session").textContent(),
    /^User 7 · .*election_updates.* · token until \d\d:\d\d$/,
  )
  await page.reload()
  await state("Live")
  t.same(complaints, [])
})

t.test("a token is pasted, or the whole link", { skip: NO_BROWSER }, async (t) => {
  const { page, relay, state, paste, complaints } = await open(t, "")
  await state("Not signed in")
  await page.getByText("npm run -s commitcast -- token --user 1", { exact: true }).waitFor()
  await paste(`  ${token()}\n`)
  await state("Live")
  t.notOk(await page.getByLabel("Token", { exact: true }).isVisible())
  await page.getByRole("button", { name: "Sign out" }).click()
  await state("Not signed in")
  await paste(`${relay.url}/#token=${token({ sub: "8" })}`)
  await state("Live")
  await page.getByText(/^User 8 ·/).waitFor()
  t.same(complaints, [])
})

t.test("a wrong token is said to be one", { skip: NO_BROWSER }, async (t) => {
  const { page, state, paste } = await open(t, "#token=nonsense")
  const error = page.locator("#sign-in-error")
  await error.getByText("This is not a token: a token is three parts joined by dots.").waitFor()
  t.equal(await page.getByLabel("Token", { exact: true }).getAttribute("aria-invalid"), "true")
  await paste(jwt.sign({ sub: "7" }, "another secret, which is long enough too", { expiresIn: "1h" }))
  await error.getByText(/^The relay does not accept this token/).waitFor()
  await state("Not signed in")
  for (const wrong of ["nonsense", token({ committees: "7" })]) {
    await paste(wrong)
    await error
      .getByText(wrong === "nonsense" ? /^This is not a token/ : /^The relay does not accept/)
      .waitFor()
  }
  await paste(token())
  await state("Live")
  t.equal(await error.textContent(), "")
})

for (const claims of [{ committees: [7] }, { channels: ["committee:7"] }]) {
  const named = `whoever may not have the totals has the stream, and no refusal: ${Object.keys(claims)}`
  t.test(named, { skip: NO_BROWSER }, async (t) => {
    const { db, page, state, complaints } = await open(t, `#token=${token(claims)}`)
    await state("Live")
    await db.query("insert into vote (committee_id, votes) values (8, 1), (7, 42)")
    await page.locator(".change").getByText("42", { exact: true }).waitFor()
    t.equal(await page.locator(".change").count(), 1)
    t.equal(await page.locator(".note").count(), 0, "nothing was asked for in vain")
    t.notOk(await page.locator("#board").isVisible())
    t.same(complaints, [])
  })
}

t.test(
  "a token that has expired is asked for again, and the page goes on where it was",
  { skip: NO_BROWSER },
  async (t) => {
    const { db, page, state, paste } = await open(t, `#token=${token({}, { expiresIn: 10 })}`)
    await state("Live")
    await db.query("insert into vote (votes) values (1)")
    await page.locator(".change").waitFor()
    await page.getByText(/^The token has expired/).waitFor()
    await state("Not signed in")
    await db.query("insert into vote (votes) values (2), (3)")
    await paste(token())
    await state("Live")
    await page.getByText(/^Connected again at [\d:]+; 2 changes caught up with$/).waitFor()
    t.equal(await page.locator(".change").count(), 3)
  },
)

t.test(
  "before a token ends another is asked for, and taken on the open connection",
  { skip: NO_BROWSER },
  async (t) => {
    const { page, state } = await open(t, `#token=${token()}`, { clock: true }, { HEARTBEAT_SECONDS: "3600" })
    await state("Live")
    const sockets: unknown[] = []
    page.on("websocket", (socket) => sockets.push(socket))
    t.notOk(await page.locator("#renew").isVisible())
    await page.clock.fastForward("55:00")
    const another = page.getByLabel(/^The token ends at \d\d:\d\d\. Paste another to stay connected\.$/)
    await another.fill("nonsense")
    await another.press("Enter")
    await page
      .locator("#renew-error")
      .getByText(/^This is not a token/)
      .waitFor()
    await another.fill(token({}, { expiresIn: "12h" }))
    await another.press("Enter")
    await page.locator("#renew").waitFor({ state: "hidden" })
    await state("Live")
    t.same(sockets, [], "there was no other connection")
  },
)

t.test("a link for somebody else shows nothing of who was there before", { skip: NO_BROWSER }, async (t) => {
  const { db, page, relay, state } = await open(t, `#token=${token()}`)
  await state("Live")
  await db.query("insert into vote (votes) values (4711)")
  await page.locator(".change").waitFor()
  await page.goto(`${relay.url}/#token=${token({ sub: "8" })}`)
  await page.getByText(/^User 8 ·/).waitFor()
  await state("Live")
  t.equal(await page.locator(".change").count(), 0)
})

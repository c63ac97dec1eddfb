/** The page comes back by itself, from wherever it was, and is right again without a reload. */

import t from "tap"
import { NO_BROWSER } from "../helpers/browser.ts"
import { burst, election, openElection, showsTheTruth } from "../helpers/election.ts"
import { processOn } from "../helpers/process.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay } from "../helpers/relay.ts"

t.test(
  "the relay is killed and comes back: the page says so, and is right again without a reload",
  {
    skip: NO_BROWSER,
  },
  async (t) => {
    const db = await election(t)
    const relay = await processOn(t, db.url)
    const first = await relay.start()
    const { page, wellBehaved } = await openElection(t, relay.url)
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
  const { page, context, wellBehaved } = await openElection(t, relay.url)
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
    const { page, wellBehaved } = await openElection(t, `http://127.0.0.1:${proxy.port}`, { clock: true })
    await showsTheTruth(page, db)
    proxy.silence()
    await burst(db)
    proxy.refuse()
    await page.clock.fastForward("01:00:00")
    const since = page.locator("#offline-since").getByText(/^Offline since [\d:]+\.$/)
    const [, hours, minutes] = /(\d\d):(\d\d):/.exec((await since.textContent()) ?? "") ?? []
    const now = new Date()
    const ago = now.getUTCHours() * 60 + now.getUTCMinutes() - Number(hours) * 60 - Number(minutes)
    t.ok(
      (ago + 1_440) % 1_440 < 20,
      `since it was last heard, not since the lid was opened: ${ago} minutes ago`,
    )
    proxy.heal()
    await page.locator("#retry").dispatchEvent("click")
    await page.getByText(/^Connected again at [\d:]+; [\d,]+ changes caught up with$/).waitFor()
    await showsTheTruth(page, db)
    await wellBehaved()
  },
)

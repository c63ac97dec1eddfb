/** Signing in at the page, in a real browser. */

import t from "tap"
import { NO_BROWSER, seriousFindings, visit } from "../helpers/browser.ts"
import { database } from "../helpers/database.ts"
import { startRelay, token } from "../helpers/relay.ts"

t.test("a link signs in, and the token is gone from the address", { skip: NO_BROWSER }, async (t) => {
  const relay = await startRelay(t, await database(t))
  const { page, complaints } = await visit(t, `${relay.url}/#token=${token()}`)
  await page.getByText("Live", { exact: true }).waitFor()
  t.equal(page.url(), `${relay.url}/`)
  t.same(await seriousFindings(page), [])
  t.same(complaints, [])
})

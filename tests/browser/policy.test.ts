/** The page under its content policy: it works, asks for nothing that is forbidden, and is held to it. */

import t from "tap"
import { NO_BROWSER, visit } from "../helpers/browser.ts"
import { database } from "../helpers/database.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const BREACHES = {
  style: `document.head.append(Object.assign(document.createElement("style"), { textContent: "a{}" }))`,
  script: `document.head.append(Object.assign(document.createElement("script"), { src: "data:text/javascript,0" }))`,
  markup: `document.body.innerHTML = "<b>somebody else's</b>"`,
  evaluation: `new Function("return 1")()`,
}

t.test("the page shows changes in a browser that holds it to its policy", { skip: NO_BROWSER }, async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const { page, complaints } = await visit(t, `${relay.url}/#token=${token()}`)
  await page.locator("#state").getByText("Live", { exact: true }).waitFor()
  await db.query("insert into vote (votes) values (471147)")
  await page.getByText("471147").first().waitFor()
  t.same(complaints, [], "nothing was forbidden, nothing failed")
  for (const [name, script] of Object.entries(BREACHES)) {
    complaints.length = 0
    // Later than the evaluation itself, whose code is not the page's.
    await page.evaluate(`void setTimeout(() => { ${script} })`)
    await until(name, () => complaints.length > 0)
    t.match(complaints.join("\n"), /Content Security Policy|TrustedHTML|TrustedScript|forbids/, name)
  }
  t.notMatch(await page.locator("body").textContent(), "somebody else's")
})

/** No serious finding of axe, light and dark, in whatever state the page is. */

import t from "tap"
import { NO_BROWSER, seriousFindings, visit } from "../helpers/browser.ts"
import { election, showsTheTruth } from "../helpers/election.ts"
import { startRelay, token } from "../helpers/relay.ts"

/** Few rows, since axe takes its time for each, of every kind. */
const NIGHT = `
  insert into vote (election_id, committee_id, candidate_id, votes, status) select 1, n, 1 + n % 4, 10 * n, (array['entered', 'verified'])[1 + n % 2] from generate_series(1, 8) n;
  insert into guarantee (committee_id, status) select n, (array['pledged', 'confirmed', 'withdrawn'])[n] from generate_series(1, 3) n;
  insert into attendance (election_id, marked_at) values (1, now() - interval '2 hours'), (1, now());
  update vote set votes = 1 where id = 1; delete from vote where id = 2`

for (const colorScheme of ["light", "dark"] as const) {
  t.test(
    `${colorScheme}: no serious finding, signed out, live, and with the relay away`,
    { skip: NO_BROWSER },
    async (t) => {
      const db = await election(t)
      const relay = await startRelay(t, db)
      const { page, complaints } = await visit(t, `${relay.url}/#token=nonsense`, { colorScheme })
      await page.getByText(/^This is not a token/).waitFor()
      t.same(await seriousFindings(page), [])
      await page.getByLabel("Token", { exact: true }).fill(token())
      await page.keyboard.press("Enter")
      await showsTheTruth(page, db)
      await db.query(NIGHT)
      await showsTheTruth(page, db)
      await page.locator(".change summary").first().click()
      await page.locator(".details").waitFor()
      t.same(await seriousFindings(page), [])
      await relay.stop()
      await page.getByText(/^Offline since [\d:]+\.$/).waitFor()
      t.same(await seriousFindings(page), [])
      t.same(complaints, [])
    },
  )
}

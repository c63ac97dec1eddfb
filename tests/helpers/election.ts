/** The demo's election with its numbers, as SQL counts them and as the page shows them. */

import type { Page } from "playwright-core"
import type { Test } from "tap"
import { type Database, database } from "./database.ts"
import { until } from "./wait.ts"

/** The relay computes again ten seconds later at the latest, however slow the machine. Milliseconds. */
const DEADLINE_MS = 60_000

/** A database in which the demo's numbers are derived, as `commitcast install` leaves it. */
export async function election(t: Test): Promise<Database> {
  const db = await database(t)
  await db.query(`
    select relay.define_derived('dashboard_update', 'dashboard_statistics', '{guarantee,attendance,vote}');
    select relay.define_derived('voting_update', 'election_results', '{vote}', 'election', action => 'results')`)
  return db
}

/** What the page must show now. */
async function counted(db: Database): Promise<string[]> {
  const [row] = await db.query<{ lines: string[] }>(`
    select array(select name || ' ' || coalesce((select sum(votes) from vote v where v.candidate_id = c.id), 0) as line
                 from candidate c where election_id = 1
                 order by coalesce((select sum(votes) from vote v where v.candidate_id = c.id), 0) desc, id)
      || array[
        'votes ' || (select coalesce(sum(votes), 0) from vote where election_id = 1),
        'present ' || (select count(*) from attendance where present),
        'reported ' || (select count(distinct committee_id) from vote),
        'verified ' || (select count(*) from vote where status = 'verified'),
        'confirmed ' || (select count(*) from guarantee where status = 'confirmed'),
        'pledged ' || (select count(*) from guarantee where status = 'pledged'),
        'withdrawn ' || (select count(*) from guarantee where status = 'withdrawn')]
      || array(select name || ' ' || coalesce((select sum(votes)::text from vote where committee_id = c.id), '–') from committee c order by id) as lines`)
  return row?.lines ?? []
}

/** What it shows. */
async function shown(page: Page): Promise<string[]> {
  const texts = (selector: string) => page.locator(selector).allTextContents()
  const pairs = async (names: string, figures: string) => {
    const [of, each] = [await texts(names), await texts(figures)]
    return of.map((name, index) => `${name} ${each[index]}`)
  }
  const part = async (name: string) => `${name} ${await texts(`[data-part=${name}] dd`)}`
  const digits = (text: string | undefined) => text?.match(/[\d,]+/)?.[0]
  const lines = [
    ...(await pairs(".candidate bdi", ".candidate .votes")),
    `votes ${digits((await texts("#results-votes"))[0])}`,
    `present ${(await texts("#turnout-present"))[0]}`,
    `reported ${digits((await texts("#committees-told"))[0])}`,
    ...(await Promise.all(["verified", "confirmed", "pledged", "withdrawn"].map(part))),
    ...(await pairs(".committee .name", ".committee .report")),
  ]
  return lines.map((line) => line.replaceAll(",", ""))
}

/** Waits until every number on the page is SQL's. */
export async function showsTheTruth(page: Page, db: Database): Promise<void> {
  let [is, must]: string[][] = [[], []]
  await until(
    "the page's numbers are SQL's",
    async () => {
      is = await shown(page)
      must = await counted(db)
      return is.join() === must.join()
    },
    DEADLINE_MS,
  ).catch((error: Error) => {
    throw new Error(`${error.message}\n${is?.join(", ")}\n${must?.join(", ")}`)
  })
}

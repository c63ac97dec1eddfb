/** The demo's election with its numbers, as SQL counts them and as the page shows them. */

import type { Page } from "playwright-core"
import type { Test } from "tap"
import { type Visit, type VisitOptions, visit } from "./browser.ts"
import { type Database, database } from "./database.ts"
import { copyIn } from "./log.ts"
import { token } from "./relay.ts"
import { until } from "./wait.ts"

const WRITERS = 4
const ROUNDS = 12

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
  await until("the page's numbers are SQL's", async () => {
    is = await shown(page)
    must = await counted(db)
    return is.join() === must.join()
  }).catch((error: Error) => {
    throw new Error(`${error.message}\n${is?.join(", ")}\n${must?.join(", ")}`)
  })
}

/** Waits until so many changes are in the stream. */
export const rowsAre = (page: Page, wanted: number): Promise<void> =>
  until(`${wanted} rows`, async () => (await page.locator(".change").count()) === wanted)

/** What an election night is made of, by several at once. */
export async function burst(db: Database): Promise<void> {
  const clerk = async (n: number) => {
    const session = await db.session(db.writerUrl)
    for (let round = 0; round < ROUNDS; round++) {
      const at = [1 + ((n + round) % 12), 1 + ((n * round) % 4), 10 * n + round]
      await session.query(
        "insert into vote (election_id, committee_id, candidate_id, votes) values (1, $1, $2, $3)",
        at,
      )
      await session.query("insert into attendance (election_id, committee_id) values (1, $1)", [at[0]])
      await session.query("insert into guarantee (committee_id) values ($1)", [at[0]])
      await session.query(
        "update vote set votes = votes + 7, status = 'verified' where id = (select id from vote order by random() limit 1 for update skip locked)",
      )
      if (round % 3 === 0)
        await session.query(
          "delete from vote where id = (select id from vote order by random() limit 1 for update skip locked)",
        )
    }
  }
  const office = async () => {
    const session = await db.session(db.writerUrl)
    const rows = Array.from({ length: 300 }, (_, n) => `1\t${1 + (n % 12)}\n`).join("")
    await copyIn(session, "copy attendance (election_id, committee_id) from stdin", rows)
    await session.query(`begin; set local relay.bulk_load = 'summary';
      insert into guarantee (committee_id, status) select 1 + n % 12, (array['pledged', 'confirmed', 'withdrawn'])[1 + n % 3] from generate_series(1, 2000) n; commit`)
    await session.query("update attendance set present = false where id % 10 = 0")
  }
  await Promise.all([...Array.from({ length: WRITERS }, (_, n) => clerk(n + 1)), office()])
}

/** Opens the page. @returns with it what says that it was not loaded again and has done nothing that it should not. */
export async function openElection(
  t: Test,
  url: string,
  options: VisitOptions = {},
): Promise<Visit & { wellBehaved(): Promise<void> }> {
  const { page, complaints, context } = await visit(t, `${url}/#token=${token()}`, options)
  await page.evaluate("window.mark = 1")
  const wellBehaved = async () => {
    t.equal(await page.evaluate("window.mark"), 1, "it is the page that was opened")
    t.same(complaints, [])
  }
  return { page, context, complaints, wellBehaved }
}

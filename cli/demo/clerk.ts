/** A clerk: enters what comes, sheet by sheet, errs now and then, and puts it right. */

import type pg from "pg"
import { type Desk, inventVoter, isTime, placeOf } from "./desk.ts"
import { entriesOf, insert } from "./entry.ts"
import type { Task } from "./script.ts"

/** Of the sheets, how many have one entry typed wrong, one entered twice, and how many are verified later. */
const MISTYPED = 0.06
const DOUBLED = 0.03
const VERIFIED = 0.5
/** How long until somebody looks again, as a part of the night. */
const LOOKS_AGAIN = 0.04
const CONFIRMS = 0.4
const WITHDRAWS = 0.05

/** What is left to do about entries, at a part of the night. */
type Duty = { at: number; ids: string[] } & (
  | { kind: "verify" }
  | { kind: "correct"; candidate: number; typed: number; right: number }
  | { kind: "withdraw"; candidate: number; votes: number }
)

const ARRIVE =
  "insert into public.attendance (election_id, committee_id, voter_name, marked_at) values ($1, $2, $3, $4)"
const PLEDGE = "insert into public.guarantee (election_id, committee_id, voter_name) values ($1, $2, $3)"
const SETTLE = `update public.guarantee set status = $2, updated_at = now()
  where id = (select id from public.guarantee where status = 'pledged' and committee_id = $1 order by id limit 1 for update skip locked)`

/** Works until there are no tasks left, and nothing to put right. @param next the next task of all clerks. */
export async function work(
  client: pg.Client,
  desk: Desk,
  name: string,
  next: () => Task | undefined,
): Promise<void> {
  const duties: Duty[] = []
  for (let task = next(); task !== undefined; task = next()) {
    if (!(await isTime(desk, task.at))) return
    await perform(client, desk, name, task, duties)
    for (let duty = duties[0]; duty !== undefined && duty.at < desk.clock.now(); duty = duties[0]) {
      duties.shift()
      await look(client, desk, duty)
    }
  }
  for (const duty of duties) {
    if (!(await isTime(desk, Math.min(duty.at, 1)))) return
    await look(client, desk, duty)
  }
}

async function perform(
  client: pg.Client,
  desk: Desk,
  name: string,
  task: Task,
  duties: Duty[],
): Promise<void> {
  switch (task.kind) {
    case "sheet":
      return enter(client, desk, name, task, duties)
    case "arrival": {
      const { election, committee } = placeOf(desk, task)
      await client.query("begin")
      await client.query(ARRIVE, [election, committee, inventVoter(), desk.clock.at(task.at)])
      const confirms = Math.random() < CONFIRMS
      const settled = confirms ? await client.query(SETTLE, [committee, "confirmed"]) : undefined
      await client.query("commit")
      desk.counts.present++
      desk.counts.confirmed += settled?.rowCount ?? 0
      return
    }
    case "pledge": {
      const { election, committee } = placeOf(desk, task)
      await client.query(PLEDGE, [election, committee, inventVoter()])
      desk.counts.pledges++
      if (Math.random() < WITHDRAWS) await client.query(SETTLE, [committee, "withdrawn"])
    }
  }
}

/** A sheet is one transaction. */
async function enter(
  client: pg.Client,
  desk: Desk,
  name: string,
  task: Task & { kind: "sheet" },
  duties: Duty[],
): Promise<void> {
  const entries = entriesOf(desk, task)
  const mistyped = pick(entries, MISTYPED)
  const doubled = pick(entries, DOUBLED)
  const at = task.at + LOOKS_AGAIN * (0.5 + Math.random())
  const by = `${name}, ${desk.night}`
  const wrong: Duty[] = []
  await client.query("begin")
  const good = await insert(
    client,
    entries.filter((entry) => entry !== mistyped),
    by,
  )
  if (mistyped !== undefined) {
    const { candidate, votes: right } = mistyped
    const typed = Math.floor(right / 10)
    const ids = await insert(client, [{ ...mistyped, votes: typed }], by)
    wrong.push({ kind: "correct", at, ids, candidate, typed, right })
  }
  if (doubled !== undefined) {
    const { candidate, votes } = doubled
    wrong.push({ kind: "withdraw", at, ids: await insert(client, [doubled], by), candidate, votes })
  }
  await client.query("commit")
  for (const { candidate, votes } of entries) desk.tally.add(candidate, votes)
  for (const duty of wrong) {
    if (duty.kind === "correct") desk.tally.add(duty.candidate, duty.typed - duty.right)
    if (duty.kind === "withdraw") desk.tally.add(duty.candidate, duty.votes)
  }
  desk.counts.entries += entries.length
  duties.push(...wrong)
  if (Math.random() < VERIFIED) duties.push({ kind: "verify", at, ids: good })
}

async function look(client: pg.Client, { tally, counts }: Desk, duty: Duty): Promise<void> {
  switch (duty.kind) {
    case "verify": {
      const { rowCount } = await client.query(
        "update public.vote set status = 'verified' where id = any($1)",
        [duty.ids],
      )
      counts.verified += rowCount ?? 0
      return
    }
    case "correct": {
      const { rowCount } = await client.query(
        "update public.vote set votes = $2, status = 'corrected' where id = any($1)",
        [duty.ids, duty.right],
      )
      tally.add(duty.candidate, (rowCount ?? 0) * (duty.right - duty.typed))
      counts.corrected += rowCount ?? 0
      return
    }
    case "withdraw": {
      const { rowCount } = await client.query("delete from public.vote where id = any($1)", [duty.ids])
      tally.add(duty.candidate, (rowCount ?? 0) * -duty.votes)
      counts.withdrawn += rowCount ?? 0
    }
  }
}

const pick = <T>(of: readonly T[], probability: number): T | undefined =>
  Math.random() < probability ? of[Math.floor(Math.random() * of.length)] : undefined

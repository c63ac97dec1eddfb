/** Leases as tests make them: told of or not, and transactions that leave out the bell for one. */

import type pg from "pg"
import type { BellReport } from "../../relay/feed/bell.ts"
import type { Database } from "./database.ts"
import type { TestRelay } from "./relay.ts"
import { until } from "./wait.ts"

type Queries = Pick<Database, "query" | "session">

/** Waits until the relay's bell is in that mode. */
export const comesTo = (relay: TestRelay, mode: BellReport["mode"]): Promise<void> =>
  until(`the bell is ${mode}`, () => relay.relay.status().bell.mode === mode)

/** Waits for so many polls more, or for the end of polling. */
export async function pollsOn(relay: TestRelay, polls: number): Promise<void> {
  const from = relay.relay.status().bell.polls
  const bell = () => relay.relay.status().bell
  await until(`${polls} polls`, () => bell().polls >= from + polls || bell().mode === "quiet")
}

/**
 * Takes a lease as a relay does, when the relay is quiet, and waits until it is awake. Takes another where the machine was so
 * busy that the relay saw one only when it was over. @returns its end, in milliseconds since 1970.
 */
export async function wake(
  relay: TestRelay,
  db: Pick<Database, "query">,
  durationMs: number,
): Promise<number> {
  const mode = () => relay.relay.status().bell.mode
  for (;;) {
    await comesTo(relay, "quiet")
    const end = await takeLease(db, durationMs)
    await until("the lease is noticed", () => mode() !== "quiet")
    if (mode() === "awake") return end
  }
}

async function takeLease(db: Pick<Database, "query">, durationMs: number): Promise<number> {
  const [row] = await db.query<{ end: string }>("select relay.set_lease($1) as end", [durationMs])
  return Number(row?.end)
}

/** Whether a lease is in force. */
export async function leaseInForce(db: Pick<Database, "query">): Promise<boolean> {
  const [row] = await db.query<{ it: boolean }>(
    "select relay.state() & 4 <> 0 and relay.lease_in_force(pg_sequence_last_value('relay.lease')) as it",
  )
  return row?.it === true
}

/** Whether there is a lease, in force or over, so that triggers do not ring. */
export async function leaseStands(db: Pick<Database, "query">): Promise<boolean> {
  const [row] = await db.query<{ it: boolean }>("select relay.state() & 4 <> 0 as it")
  return row?.it === true
}

/** Has writers ring or not, and tells nobody. */
export const setPolled = (db: Pick<Database, "query">, polled: boolean) =>
  db.query(
    `with alone as materialized (select from relay.horizon for update)
     select relay.set_state(polled => $1) from alone`,
    [polled],
  )

/** Sets the end of the lease by the server's clock, and tells nobody. */
export async function placeLease(db: Pick<Database, "query">, aheadMs: number): Promise<void> {
  await db.query(
    "select setval('relay.lease', (extract(epoch from clock_timestamp()) * 1000)::bigint + $1::int)",
    [aheadMs],
  )
  await setPolled(db, true)
}

/**
 * A transaction that has written this vote while there was a lease, and is open. Where a lease ends before it has, it waits
 * for the next. @param take takes one, where nobody else does.
 */
export async function openSkipper(
  db: Queries,
  votes: number,
  take?: () => Promise<unknown>,
): Promise<pg.Client> {
  const session = await db.session()
  await until("a lease that outlasts an insert", async () => {
    await take?.()
    if (!(await leaseStands(db))) return false
    await session.query(`begin; insert into vote (votes) values (${votes})`)
    if (await leaseStands(db)) return true
    await session.query("rollback")
    return false
  })
  return session
}

/** The same for a lease that no relay knows of and that is over. */
export async function openForgotten(db: Queries, votes: number): Promise<pg.Client> {
  const session = await openSkipper(db, votes, () => placeLease(db, 4_000))
  await setPolled(db, false)
  return session
}

export interface Burst {
  committed(): number
  stop(): Promise<void>
}

/** Sessions that commit single votes as fast as they can, until stopped. */
export async function startBurst(db: Queries, sessions = 12, setup = ""): Promise<Burst> {
  let stopped = false
  let committed = 0
  const all = Array.from({ length: sessions }, async () => {
    const session = await db.session()
    await session.query(setup)
    while (!stopped) {
      await session.query("insert into vote (votes) values (0)")
      committed++
    }
  })
  return {
    committed: () => committed,
    async stop() {
      stopped = true
      await Promise.all(all)
    },
  }
}

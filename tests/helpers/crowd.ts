/**
 * A crowd of writers on the tables of the election, as bad as applications are: short and long transactions that overlap
 * and meet on rows, at all isolation levels, with savepoints, rollbacks and two-phase commits, through lost connections.
 */

import { setTimeout as sleep } from "node:timers/promises"
import pg from "pg"
import type { Test } from "tap"

export interface Crowd {
  /** Transactions that were committed so far, as far as the writers know. */
  committed(): number
  /** Ends the transactions that are open; resolves when nobody writes any more. */
  stop(): Promise<void>
}

const LEVELS = ["read committed", "repeatable read", "serializable"]
const ROWS = 100

interface Member {
  number: number
  long: boolean
  twoPhase: boolean
}

/** Starts it, to be stopped by the test or with it. @param options.twoPhase the server must allow prepared transactions. */
export async function startCrowd(
  t: Test,
  url: string,
  options: { short?: number; long?: number; twoPhase?: number } = {},
): Promise<Crowd> {
  const { short = 3, long = 1, twoPhase = 0 } = options
  let stopped = false
  let committed = 0
  const prepare = await connect(url)
  await prepare.query("insert into vote (votes) select 0 from generate_series(1, $1::int)", [ROWS])
  await prepare.end()

  async function transaction(
    session: pg.Client,
    { number, long, twoPhase }: Member,
    n: number,
  ): Promise<void> {
    const committee = 1 + (n % 3)
    await session.query(`begin isolation level ${LEVELS[n % 3]}`)
    await session.query("update vote set votes = votes + 1, committee_id = $2 where id = $1", [
      1 + Math.floor(Math.random() * ROWS),
      committee,
    ])
    await session.query("insert into guarantee (committee_id, voter_name) values ($1, $2)", [
      committee,
      `${number}/${n}`,
    ])
    if (long) await sleep(Math.random() * 400)
    await session.query(
      "savepoint s; insert into attendance (voter_name) values ('nobody'); rollback to s; savepoint s; insert into attendance (voter_name) values ('somebody'); release s",
    )
    if (n % 5 === 0)
      await session.query(
        "delete from guarantee where id = (select min(id) from guarantee for update skip locked)",
      )
    if (n % 7 === 6) return void (await session.query("rollback"))
    if (!twoPhase) await session.query("commit")
    else {
      const name = `'crowd ${number} ${n} ${process.pid} ${Math.random()}'`
      await session.query(`prepare transaction ${name}`)
      await sleep(Math.random() * 50)
      await session.query(`commit prepared ${name}`)
    }
    committed++
  }

  async function write(member: Member): Promise<void> {
    let session: pg.Client | undefined
    for (let n = member.number; !stopped; n++) {
      try {
        session ??= await connect(url, member.twoPhase ? "set relay.bell = 'off'" : "")
        await transaction(session, member, n)
      } catch {
        // Rows that meet, serialization, a server that is away: what is open is given up.
        const left = session
        session = await left?.query("rollback").then(
          () => left,
          () => undefined,
        )
        if (session === undefined) await sleep(20)
      }
    }
    await session?.end().catch(() => {})
  }

  const kinds = [
    ...Array.from({ length: short }, () => ({ long: false, twoPhase: false })),
    ...Array.from({ length: long }, () => ({ long: true, twoPhase: false })),
    ...Array.from({ length: twoPhase }, () => ({ long: false, twoPhase: true })),
  ]
  const all = kinds.map((kind, number) => write({ number, ...kind }))
  const stop = async () => {
    stopped = true
    await Promise.all(all)
  }
  t.teardown(stop)
  return { committed: () => committed, stop }
}

async function connect(url: string, first = ""): Promise<pg.Client> {
  const session = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: 2_000,
    query_timeout: 10_000,
  })
  session.on("error", () => {})
  await session.connect()
  await session.query(`set lock_timeout = '20ms'; ${first}`)
  return session
}

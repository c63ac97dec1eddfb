/** `commitcast demo`: several writers at once enter an election night into the embedded database. */

import { setTimeout as sleep } from "node:timers/promises"
import type pg from "pg"
import { connect } from "./database.ts"

export interface DemoOptions {
  databaseUrl: string
  /** How long the night lasts, in seconds. */
  seconds: number
  /** Changes a second, about. */
  speed: number
  signal: AbortSignal
  /** Told once a second. */
  progress(line: string): void
}

/** What each statement does, and how often it comes, in parts of the whole. */
const SCRIPT: ReadonlyArray<{ share: number; what: string; sql: string }> = [
  {
    share: 40,
    what: "attendance",
    sql: "insert into attendance (committee_id, election_id, voter_name) select 1 + floor(random() * 12), 1, 'Voter ' || floor(random() * 100000)",
  },
  {
    share: 20,
    what: "guarantees",
    sql: "insert into guarantee (committee_id, election_id, voter_name) select 1 + floor(random() * 12), 1, 'Voter ' || floor(random() * 100000)",
  },
  {
    share: 10,
    what: "confirmations",
    sql: "update guarantee set status = 'confirmed', updated_at = now() where id = (select id from guarantee where status = 'pledged' order by id limit 1 for update skip locked)",
  },
  {
    share: 20,
    what: "vote entries",
    sql: "insert into vote (election_id, committee_id, candidate_id, votes, entered_by) select 1, 1 + floor(random() * 12), 1 + floor(random() * 4), floor(random() * 120), 'clerk ' || floor(random() * 4)",
  },
  {
    share: 8,
    what: "corrections",
    sql: "update vote set votes = votes + floor(random() * 9)::int, status = 'corrected' where id = (select id from vote order by random() limit 1 for update skip locked)",
  },
  {
    share: 2,
    what: "withdrawn entries",
    sql: "delete from vote where id = (select id from vote order by random() limit 1 for update skip locked)",
  },
]
const BATCH =
  "insert into attendance (committee_id, election_id, voter_name) select 1 + n % 12, 1, 'Batch ' || n from generate_series(1, 120) n"
const IMPORT =
  "begin; set local relay.bulk_load = 'summary'; insert into guarantee (committee_id, election_id, voter_name) select 1 + n % 12, 1, 'Import ' || n from generate_series(1, 2000) n; commit"
const WRITERS = 4
/** A batch comes each quarter of the night, the import in the middle. */
const BATCHES = 4

/** Plays the night. Resolves when it is over or the signal comes. */
export async function play({ databaseUrl, seconds, speed, signal, progress }: DemoOptions): Promise<void> {
  const counts = new Map<string, number>()
  const began = Date.now()
  const ends = began + seconds * 1_000
  const over = () => signal.aborted || Date.now() >= ends
  const wait = (ms: number) =>
    sleep(Math.max(0, Math.min(ms, ends - Date.now())), undefined, { signal }).catch(() => {})
  const add = (what: string, rows: number) => counts.set(what, (counts.get(what) ?? 0) + rows)

  async function withSession(work: (client: pg.Client) => Promise<void>): Promise<void> {
    const client = await connect(databaseUrl)
    try {
      await work(client)
    } finally {
      await client.end()
    }
  }
  const clerk = () =>
    withSession(async (client) => {
      while (!over()) {
        const { what, sql } = pick(Math.random() * 100)
        add(what, (await client.query(sql)).rowCount ?? 0)
        await wait(((0.5 + Math.random()) * 1_000 * WRITERS) / speed)
      }
    })
  const office = () =>
    withSession(async (client) => {
      for (let batch = 1; batch <= BATCHES; batch++) {
        await wait((seconds * 1_000) / (BATCHES + 1))
        if (over()) return
        add("attendance", (await client.query(BATCH)).rowCount ?? 0)
        if (batch !== BATCHES / 2) continue
        await client.query(IMPORT)
        add("imported guarantees", 2_000)
      }
    })
  const clock = async () => {
    while (!over()) {
      await wait(1_000)
      const left = Math.max(0, Math.round((ends - Date.now()) / 1_000))
      progress(`${[...counts].map(([what, n]) => `${n} ${what}`).join(", ")}; ${left} s to go`)
    }
  }
  await Promise.all([...Array.from({ length: WRITERS }, clerk), office(), clock()])
}

function pick(at: number): (typeof SCRIPT)[number] {
  let sum = 0
  for (const entry of SCRIPT) {
    sum += entry.share
    if (at < sum) return entry
  }
  return SCRIPT[0] as (typeof SCRIPT)[number]
}

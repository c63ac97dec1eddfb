/** The audit: what a night has counted is held against the tables, and the tables against what the relay tells. */

import { setTimeout as sleep } from "node:timers/promises"
import type pg from "pg"
import type { Night } from "./night.ts"
import { count } from "./progress.ts"
import { followResults } from "./results.ts"
import { differing, readTotals, type Totals } from "./tally.ts"

export interface Relay {
  /** With the path of its WebSocket endpoint. */
  url: string
  /** One that sees everything. */
  token: string
}

/** The relay derives results at least each ten seconds, whatever it may have missed. */
const PATIENCE_MS = 30_000
const LOOK_MS = 250
/** How many candidates are named. */
const NAMED = 5

/**
 * Tells what is equal and what differs.
 * @param relay none: what it tells is left out.
 * @throws Error if anything differs, or the relay does not take the token.
 */
export async function audit(
  client: pg.Client,
  night: Night,
  relay: Relay | undefined,
  signal: AbortSignal,
  note: (line: string) => void,
): Promise<void> {
  const tables = await readTotals(client, night.name)
  const differences = await explain(client, tables, night.totals, "were counted")
  if (differences.length === 0)
    note(`  Equal: ${count(sum(tables))} votes were counted, and are in the table, candidate by candidate.`)
  if (relay !== undefined && !signal.aborted) {
    const told = await auditRelay(client, relay, signal)
    differences.push(...told)
    if (told.length === 0 && !signal.aborted)
      note("  Equal: the relay tells the results that the table has, candidate by candidate.")
  }
  if (differences.length === 0) return
  for (const line of differences) note(`  ${line}`)
  throw new Error("the totals differ")
}

/** Waits until the relay tells what the table has, also while others write. */
async function auditRelay(client: pg.Client, relay: Relay, signal: AbortSignal): Promise<string[]> {
  const results = followResults(relay.url, relay.token)
  try {
    const deadline = performance.now() + PATIENCE_MS
    for (;;) {
      const tables = await readTotals(client)
      if (signal.aborted || differing(tables, results.totals).length === 0) return []
      if (performance.now() > deadline) return await explain(client, tables, results.totals, "are told")
      await Promise.race([sleep(LOOK_MS), results.refused])
    }
  } finally {
    results.close()
  }
}

async function explain(client: pg.Client, tables: Totals, others: Totals, what: string): Promise<string[]> {
  const ids = differing(tables, others)
  const { rows } = await client.query<{ id: number; name: string }>(
    `select c.id, e.name || ', ' || c.name as name from public.candidate c join public.election e on e.id = c.election_id
     where c.id = any($1) order by c.id limit $2`,
    [ids, NAMED],
  )
  const lines = rows.map(
    ({ id, name }) => `${name}: ${others.get(id) ?? 0n} ${what}, ${tables.get(id)} are in the table`,
  )
  return ids.length > NAMED ? [...lines, `and so for ${ids.length - NAMED} candidates more`] : lines
}

const sum = (totals: Totals): bigint => [...totals.values()].reduce((a, b) => a + b, 0n)

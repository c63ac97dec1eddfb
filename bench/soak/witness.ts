/** A client of the library that keeps a copy of the table, as a dashboard would, and can be held against it. */

import type pg from "pg"
import { WebSocket } from "ws"
import { connect } from "../../client/client.ts"
import { tokenFor } from "../harness/server.ts"
import { openSession } from "../harness/session.ts"

type Copy = Map<string, number>

export interface Witness {
  /** How often it had to load its copy. */
  loads(): number
  live(): boolean
  /** @returns rows that are missing, left over or another than those of the table. */
  differences(table: Copy): number
  close(): Promise<void>
}

/** The table as it is now, and where that is in the log. */
export async function readTable(session: pg.Client): Promise<{ copy: Copy; cursor: string }> {
  await session.query("begin isolation level repeatable read read only")
  try {
    const { rows: at } = await session.query<{ cursor: string }>("select relay.cursor() as cursor")
    const { rows } = await session.query<{ id: string; votes: number }>("select id, votes from vote")
    return { copy: new Map(rows.map(({ id, votes }) => [id, votes])), cursor: at[0]?.cursor ?? "" }
  } finally {
    await session.query("rollback")
  }
}

/** Loads by a session of its own: one of before a crash is of no use. */
async function load(databaseUrl: string): Promise<{ copy: Copy; cursor: string }> {
  const session = await openSession(databaseUrl)
  try {
    return await readTable(session)
  } finally {
    await session.end()
  }
}

export function openWitness(url: string, databaseUrl: string): Witness {
  let copy: Copy = new Map()
  let loads = 0
  const feed = connect({
    url,
    token: tokenFor("witness"),
    WebSocket,
    page: {},
    async resync() {
      const loaded = await load(databaseUrl)
      copy = loaded.copy
      loads++
      return { cursor: loaded.cursor }
    },
  })
  feed.on("voting_update", (change) => {
    if (change.oversize) return
    if (change.action === "create" || change.action === "update")
      copy.set(String(change.data.id), Number(change.data.votes))
    else if (change.action === "delete") copy.delete(String(change.data.id))
    else if (change.action === "truncate") copy.clear()
  })
  return {
    loads: () => loads,
    live: () => feed.state.kind === "live",
    differences(table) {
      const wrong = [...table].filter(([id, votes]) => copy.get(id) !== votes).length
      return wrong + [...copy.keys()].filter((id) => !table.has(id)).length
    },
    async close() {
      feed.close()
    },
  }
}

/** The runner: reads the definitions and runs their functions in the database. */

import pg from "pg"
import { z } from "zod"
import type { Database } from "../lib/database.ts"
import { pinnedPool } from "../lib/pinned-client.ts"
import { reasonOf } from "../lib/refusal.ts"
import type { Log } from "../telemetry/log.ts"
import { Definition, ReturnedRow } from "./definition.ts"

export interface Runner {
  definitions(): Promise<Definition[]>
  /** Runs its function. @throws Error with a message that has nothing of the data in it. */
  run(definition: Definition): Promise<ReturnedRow[]>
  close(): Promise<void>
}

/** A function that takes longer is cancelled. Milliseconds. */
const TIMEOUT_MS = 5_000
/** How many values one function may return. */
const MAX_VALUES = 1_000

const DEFINITIONS = `
  select type, channel, action, function, tables, extract(epoch from min_interval) * 1000 as "minMs",
         extract(epoch from max_age) * 1000 as "maxMs", defined_at::text as "definedAt"
  from relay.derived`

/** Every name is qualified. */
const DERIVE =
  "select id, data from relay.derive($1::pg_catalog.text, $2::pg_catalog.text) limit $3::pg_catalog.int8"

/** Connects to the database when there is something to run. */
export function createRunner(database: Database, log: Log): Runner {
  const pool = pinnedPool(database, "commitcast derived", {
    // A slow function leaves room for the others.
    max: 2,
    query_timeout: TIMEOUT_MS * 2,
    connectionTimeoutMillis: TIMEOUT_MS * 2,
  })
  pool.on("error", (error) => log.debug({ event: "idle_connection_lost", error: error.message }))

  async function derive({ type, channel }: Definition): Promise<unknown[]> {
    const client = await pool.connect()
    // The running query rejects. Without a handler the same error would end the process: the pool handles idle clients only.
    const ignore = () => {}
    client.on("error", ignore)
    try {
      // The application's function finds its tables by the search_path that the role has by itself.
      await client.query(
        `begin transaction read only; set local statement_timeout = ${TIMEOUT_MS}; set local search_path to default`,
      )
      const { rows } = await client.query(DERIVE, [type, channel, MAX_VALUES + 1])
      await client.query("commit")
      client.release()
      return rows
    } catch (error) {
      client.release(true)
      throw error
    } finally {
      client.off("error", ignore)
    }
  }

  return {
    definitions: async () => Definition.array().parse((await pool.query(DEFINITIONS)).rows),
    async run(definition) {
      try {
        const returned = ReturnedRow.array().parse(await derive(definition))
        if (returned.length <= MAX_VALUES) return returned
      } catch (error) {
        throw new Error(failureOf(error), { cause: error })
      }
      throw new Error(`the function returned more than ${MAX_VALUES} values`)
    },
    close: () => pool.end(),
  }
}

/** Not the function has failed, but the way to it (classes 08, 28, 3D, 53 and 57 but for a cancelled statement). */
const isOfConnection = (code = ""): boolean => code !== "57014" && /^(08|28|3D|53|57)/.test(code)

/** In one line. PostgreSQL puts values of rows into some of its messages, and never into the code. */
function failureOf(error: unknown): string {
  if (error instanceof z.ZodError) return error.issues[0]?.message ?? "the function returned something else"
  if (!(error instanceof pg.DatabaseError) || isOfConnection(error.code)) return reasonOf(error)
  if (error.code === "57014") return `it took more than ${TIMEOUT_MS / 1_000} s`
  return `PostgreSQL refused it (${error.code}): run it in psql to see why`
}

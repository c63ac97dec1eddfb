/**
 * The client library with copies of the tables. It loads them together with their cursor, so that each change must fit
 * onto them exactly: one that is lost, repeated or out of order is a fault, and at rest the copies are the tables.
 */

import { isDeepStrictEqual } from "node:util"
import pg from "pg"
import type { Test } from "tap"
import type { Options } from "../../client/client.ts"
import { openFeed, type TestFeed } from "./feed.ts"
import { type Copy, differences, readState } from "./ledger.ts"
import { token } from "./relay.ts"

export interface Follower extends TestFeed {
  copy(): Copy
  /** What did not fit. */
  faults: string[]
  /** How often the tables were loaded. */
  loads(): number
  /** The copies are the tables: to be called when nobody writes any more. */
  isWhole(t: Test, what: string): Promise<void>
}

async function read(databaseUrl: string) {
  const session = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 2_000 })
  session.on("error", () => {})
  await session.connect()
  try {
    return await readState(session)
  } finally {
    await session.end()
  }
}

/** Follows a relay; closed with the test. @param databaseUrl where the tables are loaded from. */
export function follow(t: Test, url: string, databaseUrl: string, options: Partial<Options> = {}): Follower {
  let copy: Copy = new Map()
  let loads = 0
  const faults: string[] = []
  const test = openFeed(t, {
    url,
    token: token({}, { expiresIn: "30 days" }),
    resync: async () => {
      const state = await read(databaseUrl)
      copy = state.copy
      loads++
      return { cursor: state.cursor }
    },
    ...options,
  })
  test.feed.on("change", (change) => {
    const fault = (what: string) => faults.push(`${what}: ${JSON.stringify(change)}`)
    if (!("data" in change) || change.oversize) {
      fault("no row")
      return
    }
    const key = `${change.table} ${JSON.stringify(change.key)}`
    const held = copy.get(key)
    if (change.action === "create" ? held !== undefined : held === undefined)
      fault(held === undefined ? "the row is not there" : "the row is there")
    if (change.action === "update")
      for (const [name, value] of Object.entries(change.before))
        if (!isDeepStrictEqual(held?.[name], value)) fault(`${name} was ${held?.[name]}`)
    if (change.action === "delete") copy.delete(key)
    else copy.set(key, change.data)
  })
  return {
    ...test,
    copy: () => copy,
    faults,
    loads: () => loads,
    async isWhole(t, what) {
      const { copy: tables } = await read(databaseUrl)
      const isWhole = () => differences(copy, tables).length === 0
      await test
        .wait(`${what}: the copies are the tables`, isWhole)
        .catch((error: Error) =>
          t.fail(`${error.message}: ${differences(copy, tables).slice(0, 3).join("; ")}`),
        )
      t.same(faults.slice(0, 3), [], `${what}: each change fits`)
    },
  }
}

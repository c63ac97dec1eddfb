/** A client that behaves, and somebody who writes: what they get while another client does its worst. */

import { get } from "node:http"
import { setTimeout as sleep } from "node:timers/promises"
import type { Test } from "tap"
import type { Database } from "./database.ts"
import type { TestRelay } from "./relay.ts"
import { until } from "./wait.ts"

/** Between two rows that are written during an attack: some hundred a second would be one of their own. Milliseconds. */
const PACE_MS = 10

/** A limit that was reached, an origin that was refused; and the look at the tables, which may take long on a busy machine. */
const EXPECTED = new Set<unknown>(["limit_reached", "origin_refused", "chores_failed"])
/** A database that took longer than the relay waits for it, which a busy machine decides. */
const LATE = "Query read timeout"

export interface Witness {
  /**
   * Runs an attack while rows are written one after another, each only when the witness has seen the one before. Then proves
   * that nothing is left of it: the relay is live and ready and has warned of nothing but a limit, the witness got every row once and in
   * order, and the relay holds no socket, connection, channel or lane that it did not hold before.
   */
  through<T>(what: string, attack: () => Promise<T>): Promise<T>
}

/** Starts one on a relay that nobody else is connected to. */
export async function startWitness(t: Test, db: Database, relay: TestRelay): Promise<Witness> {
  const client = await relay.connect({ sub: "witness" })
  const writer = await db.session()
  const before = { hub: relay.relay.status().hub, sockets: await relay.sockets() }
  /** What it warned of before, such as a database that took long to answer at first, is of no attack. */
  const logged = relay.lines.length
  let written = 0
  let seen = 0

  async function write(): Promise<void> {
    written++
    await writer.query("insert into vote (votes) values ($1)", [written])
    await client.count(written)
  }

  const health = async () => ({ live: await statusOf(relay, "live"), ready: await statusOf(relay, "ready") })

  async function prove(what: string): Promise<void> {
    await write()
    const votes = client.changes().slice(seen)
    const wrong = votes.findIndex(({ data }, index) => data?.votes !== seen + index + 1)
    seen += votes.length
    const left = async () => ({ hub: relay.relay.status().hub, sockets: await relay.sockets() })
    await until(`nothing is left of ${what}`, async () => same(await left(), before)).catch(async (error) => {
      throw new Error(`${error.message}: ${JSON.stringify(await left())}`)
    })
    const warnings = relay.lines
      .slice(logged)
      .filter(({ level, event, error }) => Number(level) >= 40 && !EXPECTED.has(event) && error !== LATE)
    t.strictSame(
      { ...(await health()), wrong, seen, warnings },
      { live: 200, ready: 200, wrong: -1, seen: written, warnings: [] },
      `nobody else noticed: ${what}`,
    )
  }

  return {
    async through(what, attack) {
      let going = true
      const writing = (async () => {
        while (going) {
          await write()
          await sleep(PACE_MS)
        }
      })()
      // Its own failure says more than that of what follows from it.
      const result = await attack().finally(() => {
        going = false
      })
      await writing
      await prove(what)
      return result
    },
  }
}

const same = (a: object, b: object): boolean => JSON.stringify(a) === JSON.stringify(b)

/** On a connection of its own: those of fetch stay, and would count. */
function statusOf(relay: TestRelay, probe: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const request = get(`${relay.url}/health/${probe}`, { agent: false }, (response) => {
      response.resume()
      response.on("end", () => resolve(response.statusCode))
    })
    request.on("error", reject)
  })
}

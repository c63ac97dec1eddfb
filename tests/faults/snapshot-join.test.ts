/** Joining: state and cursor read in one transaction, then everything that follows, nothing missed and nothing twice. */

import t from "tap"
import { startCrowd } from "../helpers/crowd.ts"
import { database } from "../helpers/database.ts"
import { differences, Ledger, readState } from "../helpers/ledger.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const JOINS = 100
/** So many at a time. */
const AT_ONCE = 4

t.test("a hundred clients that join while writers write end with the tables as they are", async (t) => {
  const db = await database(t)
  // The second remembers next to nothing, so that it has to read the log for those who come.
  const relays = [await startRelay(t, db), await startRelay(t, db, { REPLAY_BUFFER_MB: "0.01" })]
  const writers = await startCrowd(t, db.url, { short: 4, long: 2 })
  const ledgers: Ledger[] = []
  t.teardown(() => {
    for (const ledger of ledgers) ledger.disconnect()
  })
  const join = async (first: number) => {
    const session = await db.session()
    for (let n = first; n < JOINS; n += AT_ONCE) {
      const ledger = new Ledger()
      ledgers.push(ledger)
      ledger.adopt(await readState(session))
      const success = await ledger.connect(relays[n % relays.length]?.url as string, ["election_updates"])
      if (success.recovered !== true) t.fail("told to load again", success)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, (_, n) => join(n)))
  await writers.stop()
  await db.query("select relay.broadcast('election_updates', '\"end\"')")
  await until("everybody has everything", () =>
    ledgers.every(({ messages, ended }) => messages.length > 0 || ended !== undefined),
  )
  const end = await readState(await db.session())
  let changes = 0
  for (const ledger of ledgers) {
    const [row] = await db.query<{ n: number }>(
      "select count(*)::int as n from relay.change where not pg_visible_in_snapshot(xid, $1::pg_snapshot)",
      [ledger.base.slice(ledger.base.indexOf(":") + 1)],
    )
    changes += ledger.counts.changes
    const faults = [...ledger.misfits, ...differences(ledger.copy, end.copy)]
    if (ledger.ended !== undefined || ledger.counts.repeats > 0 || ledger.counts.changes !== row?.n)
      faults.push(`${JSON.stringify(ledger.ended)} ${JSON.stringify(ledger.counts)} of ${row?.n}`)
    if (faults.length > 0) t.fail("a copy that is not the table", { faults: faults.slice(0, 10) })
  }
  t.comment(`${writers.committed()} transactions, ${changes} changes to ${ledgers.length} clients`)
  t.equal(ledgers.length, JOINS)
  t.ok(changes > JOINS)
})

/** The limits on clients, with a clock that the test sets. */

import t from "tap"
import { readSettings } from "../../relay/config.ts"
import type { Connection } from "../../relay/fanout/connection.ts"
import { createLimits } from "../../relay/gateway/limits.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"
import { fakeConnection, identityOf, quietLog } from "../helpers/neighbours.ts"

const PING = "opcode 9"

function start(settings: Record<string, string>) {
  let now = 1_000
  const limits = createLimits({
    settings: readSettings({ JWT_SECRET: "a secret of the tests, which is long enough", ...settings }),
    trust: () => false,
    log: quietLog,
    metrics: createMetrics(),
    clock: () => now,
  })
  return {
    limits,
    pass(ms: number) {
      now += ms
    },
    /** A connection of user 7, whose upgrade was now. */
    open(): { connection: Connection; sent: string[] } {
      const client = fakeConnection()
      client.connection.identity = identityOf("7")
      client.connection.lastHeardAt = now
      return client
    },
    hear({ connection }: { connection: Connection }) {
      connection.lastHeardAt = now
    },
  }
}

t.test("of a user's connections only one that was asked and gave no sign of life gives way", async (t) => {
  const { limits, pass, open, hear } = start({ MAX_CONNECTIONS_PER_USER: "3" })
  const [leaving, alive, dead, late] = [open(), open(), open(), open()]
  for (const { connection } of [leaving, alive, dead]) limits.addConnection(connection)
  pass(1_000)
  t.notOk(limits.addConnection(open().connection))
  t.same([alive.sent, dead.sent], [[PING], [PING]])
  hear(alive)
  limits.removeConnection(leaving.connection)
  t.ok(limits.addConnection(late.connection), "whose token was checked for so long")
  pass(9_999)
  t.notOk(limits.addConnection(open().connection))
  t.same([alive.sent, dead.sent], [[PING], [PING]], "asked once in ten seconds")
  pass(1)
  t.ok(limits.addConnection(open().connection))
  t.same(dead.sent, [PING, "closed 4012 no pong"])
  limits.removeConnection(dead.connection)
  t.notOk(limits.addConnection(open().connection))
  t.notOk(alive.connection.closing)
  t.notOk(late.connection.closing, "it was not asked, and browsers say nothing by themselves")
})

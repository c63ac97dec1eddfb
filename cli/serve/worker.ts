/** A worker process: serves the clients that it is dealt, with what the primary reads. Configured by its environment. */

import { Socket } from "node:net"
import { readSettings } from "../../relay/config.ts"
import { createRelay } from "../../relay/relay.ts"
import { totalsOf } from "../../relay/telemetry/counts.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { LogOutput } from "../../relay/telemetry/log-output.ts"
import { receiveDeals } from "../../relay/workers/socket-dealer.ts"
import { createUpstream } from "../../relay/workers/upstream.ts"
import { packageVersion } from "../version.ts"
import { createHttpServer } from "./server.ts"
import { IPC_FD } from "./workers.ts"

const settings = readSettings(process.env)
const logOutput = new LogOutput()
const log = createLog(settings, logOutput).child({ worker: process.pid })

// A terminal sends them to all processes: it is the first one that ends the others, in order.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => {})
process.on("disconnect", () => process.exit(1))

const upstream = createUpstream({
  stream: new Socket({ fd: IPC_FD }),
  async onQuestion(question) {
    switch (question) {
      case "hub":
      case "keys":
      case "limits":
      case "disconnects":
        return relay.status()[question]
      case "totals":
        return totalsOf(relay.metrics)
      case "metrics":
        return relay.metrics.registry.getMetricsAsJSON()
      case "refresh":
      case "report":
        return null
    }
  },
  onStop: () => void relay.stop().then(() => process.exit(0)),
  onClosed(error) {
    if (error !== undefined)
      log.error({ event: "worker_lost", error: error.message }, "the feed of this worker is broken")
    process.exit(1)
  },
})
const relay = createRelay({
  settings,
  databaseUrl: settings.DATABASE_URL as string,
  version: packageVersion(),
  log,
  logOutput,
  upstream,
})
receiveDeals(createHttpServer(relay, settings))
relay.start()
await relay.whenReady()
upstream.send({ kind: "ready" })

/** A relay with its API on a free port, in the test's own process, as `commitcast start` wires it. */

import type { AddressInfo } from "node:net"
import jwt from "jsonwebtoken"
import type { Test } from "tap"
import { createHttpServer } from "../../cli/serve/server.ts"
import { readSettings } from "../../relay/config.ts"
import { createRelay, type Relay, type RelayDeps } from "../../relay/relay.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { type Client, openClient } from "./client.ts"
import type { Database } from "./database.ts"

export const SECRET = "a secret of the tests, which is long enough"

/** The longest that a timer can wait: what neither a bell nor a lease makes this relay read never comes. */
export const NO_FLOOR = { floorMs: 2 ** 31 - 1 }
/** Settings of a relay that sets nobody who floods it any limit by number or rate. */
export const NO_LIMITS = {
  MAX_CONNECTIONS: "0",
  MAX_CONNECTIONS_PER_ADDRESS: "0",
  MAX_CONNECTIONS_PER_USER: "0",
  MAX_UPGRADE_RATE: "0",
  MAX_UPGRADE_RATE_PER_ADDRESS: "0",
  MAX_FRAME_RATE: "0",
  MAX_FRAME_RATE_PER_USER: "0",
}

export interface TestRelay {
  relay: Relay
  url: string
  /** Lines of the log, parsed. */
  lines: Array<Record<string, unknown>>
  /** Connects with a token in the header and waits for connection_success. */
  connect(claims?: Record<string, unknown>, query?: string): Promise<Client>
  /** Connects as told, and waits for nothing but the socket. */
  open(path: string, options?: Parameters<typeof openClient>[2]): Promise<Client>
  /** How many sockets it holds, upgraded or not. */
  sockets(): Promise<number>
  stop(): Promise<void>
}

/** A token that the test relay accepts. */
export const token = (claims: Record<string, unknown> = {}, options: jwt.SignOptions = {}): string =>
  jwt.sign({ sub: "7", ...claims }, SECRET, { ...("exp" in claims ? {} : { expiresIn: "1h" }), ...options })

/** Starts one and waits until it is ready; stopped with the test. */
export async function startRelay(
  t: Test,
  db: Pick<Database, "url">,
  settings: Record<string, string> = {},
  deps: Pick<RelayDeps, "floorMs" | "slowMs" | "clock"> = {},
): Promise<TestRelay> {
  const started = await launchRelay(t, db, settings, deps)
  await started.relay.whenReady()
  return started
}

/** One that lets clients be that read nothing, however long a test takes for what it does meanwhile. */
export const startPatientRelay = (
  t: Test,
  db: Pick<Database, "url">,
  settings: Record<string, string> = {},
): Promise<TestRelay> =>
  startRelay(t, db, { HEARTBEAT_SECONDS: "3600", ...settings }, { slowMs: Number.POSITIVE_INFINITY })

/** One without waiting, where the database is not one to become ready on. */
export async function launchRelay(
  t: Test,
  db: Pick<Database, "url">,
  settings: Record<string, string> = {},
  deps: Pick<RelayDeps, "floorMs" | "slowMs" | "clock"> = {},
): Promise<TestRelay> {
  const lines: Array<Record<string, unknown>> = []
  const read = readSettings({
    JWT_SECRET: SECRET,
    LOG_LEVEL: "debug",
    DRAIN_TIMEOUT_SECONDS: "1",
    // Tests count what is in the log.
    CANARY_SECONDS: "0",
    ...settings,
  })
  const log = createLog(read, { write: (line) => lines.push(JSON.parse(line)) })
  const relay = createRelay({ settings: read, databaseUrl: db.url, version: "0.0.0-test", log, ...deps })
  const server = createHttpServer(relay, read)
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const stop = async () => {
    await relay.stop()
    server.closeAllConnections()
    server.close()
  }
  t.teardown(stop)
  relay.start()
  const open: TestRelay["open"] = (path, options) => openClient(t, url.replace("http", "ws") + path, options)
  return {
    relay,
    url,
    lines,
    stop,
    open,
    sockets: () => new Promise((resolve) => server.getConnections((_error, count) => resolve(count))),
    async connect(claims = {}, query = "") {
      const client = await open(`/ws${query}`, { headers: { authorization: `Bearer ${token(claims)}` } })
      await client.first("connection_success", (message) => message.type === "connection_success")
      return client
    },
  }
}

/** The close codes that the relay has used, which all begin at 0. */
export const closesOf = async ({ relay }: TestRelay) =>
  (await relay.metrics.closes.get()).values.filter(({ value }) => value > 0)

/** The value of a counter now; 0 if it has not counted. @param labels as they stand in the exposition, if there are any. */
export async function metricOf(relay: TestRelay, name: string, labels = ""): Promise<number> {
  const text = await relay.relay.metrics.registry.metrics()
  const series = labels === "" ? name : `${name}{${labels}}`
  const line = text.split("\n").find((each) => each.startsWith(`${series} `))
  return Number(line?.split(" ").at(-1) ?? 0)
}

/**
 * How fast clients that return are brought to the present: one from memory, one from the log, and many at once after the
 * relay was restarted. In ratios to a plain SELECT of the same rows in the same run; absolute figures drift with the machine.
 *
 *   npm run bench:replay -- [changes] [clients]
 */

import { type ChildProcess, spawn } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import pg from "pg"
import { signToken } from "../cli/token.ts"
import { readSettings } from "../relay/config.ts"

const [CHANGES = 100_000, CLIENTS = 1_000] = process.argv.slice(2).map(Number)
const ROOT = fileURLToPath(new URL("..", import.meta.url))
const SECRET = "a secret of the bench, which is long enough"
const token = signToken(SECRET, readSettings({ JWT_SECRET: SECRET }), {
  user: "1",
  admin: true,
  expires: "1h",
})
const home = await mkdtemp(join(tmpdir(), "commitcast-bench-"))

interface Relay {
  url: string
  databaseUrl: string
  stop(): Promise<void>
}

async function start(bufferMb: number): Promise<Relay> {
  const child: ChildProcess = spawn(process.execPath, ["--import", "tsx", "cli/main.ts", "start"], {
    cwd: ROOT,
    env: {
      ...process.env,
      COMMITCAST_DIR: join(home, "data"),
      PORT: "0",
      JWT_SECRET: SECRET,
      REPLAY_BUFFER_MB: String(bufferMb),
    },
    stdio: ["ignore", "pipe", "ignore"],
  })
  if (child.stdout === null) throw new Error("no standard output")
  for await (const line of createInterface({ input: child.stdout })) {
    const { url, database_url: databaseUrl } = JSON.parse(line)
    const stop = () =>
      new Promise<void>((resolve) => {
        child.once("exit", () => resolve())
        child.kill("SIGTERM")
      })
    return { url, databaseUrl, stop }
  }
  throw new Error("the relay did not start")
}

interface Return {
  /** From the connection to the end of the replay. Milliseconds. */
  ms: number
  changes: number
  recovered: boolean
}

/** A client that only looks at the beginning and the end, so that it is the relay that is measured. */
function comeBack(url: string, cursor: string): Promise<Return> {
  const began = performance.now()
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  socket.write(
    `GET /ws?cursor=${cursor} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer ${token}\r\n\r\n`,
  )
  let tail = ""
  let recovered = false
  return new Promise((resolve, reject) => {
    socket.on("error", reject)
    socket.on("close", () => reject(new Error("the relay hung up")))
    socket.on("data", (data) => {
      const text = tail + data.toString("latin1", Math.max(0, data.length - 600))
      if (!recovered && data.includes('"recovered":true')) recovered = true
      const replayed = /"replayed":(\d+)\}/.exec(text)?.[1]
      tail = text.slice(-300)
      if (replayed === undefined) return
      resolve({ ms: performance.now() - began, changes: Number(replayed), recovered })
      socket.destroy()
    })
  })
}

/** Asks for the health of the relay all the time. @returns what the slowest answers took, in milliseconds. */
function watch(url: string): { stop(): Promise<{ p50: number; p99: number; max: number }> } {
  const took: number[] = []
  let watching = true
  const run = (async () => {
    while (watching) {
      const began = performance.now()
      await (await fetch(`${url}/health/live`)).text()
      took.push(performance.now() - began)
      await sleep(10)
    }
  })()
  return {
    async stop() {
      watching = false
      await run
      took.sort((a, b) => a - b)
      const at = (share: number) => took[Math.min(took.length - 1, Math.floor(took.length * share))] ?? 0
      return { p50: at(0.5), p99: at(0.99), max: at(1) }
    },
  }
}

async function metric(url: string, name: string): Promise<string> {
  const text = await (await fetch(`${url}/metrics`)).text()
  return text
    .split("\n")
    .filter((line) => line.startsWith(`${name}{`))
    .map((line) => line.slice(name.length))
    .join(" ")
}

const perSecond = ({ changes, ms }: Return) =>
  `${Math.round((changes / ms) * 1_000).toLocaleString("en")} changes/s`
const round = (ms: number) => `${Math.round(ms).toLocaleString("en")} ms`

let relay = await start(4_096)
const db = new pg.Client({ connectionString: relay.databaseUrl })
db.on("error", () => {})
await db.connect()
const cursorOf = async () => (await db.query("select relay.cursor() as it")).rows[0].it as string

const cursor = await cursorOf()
for (let i = 0; i < CHANGES; i += 100)
  await db.query(
    "insert into vote (election_id, committee_id, votes) select 1, 1 + g % 5, g from generate_series(1, 100) g",
  )
const late = await cursorOf()
await db.query(
  "insert into vote (election_id, committee_id, votes) select 1, 1, g from generate_series(1, 1000) g",
)

const plainBegan = performance.now()
await db.query("select seq::text, xid::text, old, new, meta from relay.change order by seq")
const plain = performance.now() - plainBegan
console.log(`plain SELECT of the log by node-postgres    ${round(plain)}`)

const report = async (
  what: string,
  came: Return,
  health: Awaited<ReturnType<ReturnType<typeof watch>["stop"]>>,
) =>
  console.log(
    `${what.padEnd(44)}${round(came.ms)}, ${perSecond(came)}, ${(came.ms / plain).toFixed(2)} of the SELECT; health meanwhile p50 ${round(health.p50)}, p99 ${round(health.p99)}, max ${round(health.max)}; recovered ${came.recovered}`,
  )

let health = watch(relay.url)
await report(
  `${CHANGES.toLocaleString("en")} changes from memory`,
  await comeBack(relay.url, cursor),
  await health.stop(),
)
await db.end()
await relay.stop()

relay = await start(1)
health = watch(relay.url)
await report(
  `${CHANGES.toLocaleString("en")} changes from the log`,
  await comeBack(relay.url, cursor),
  await health.stop(),
)
await relay.stop()

relay = await start(64)
health = watch(relay.url)
const began = performance.now()
const all = await Promise.all(Array.from({ length: CLIENTS }, () => comeBack(relay.url, late)))
const total = performance.now() - began
const seen = all.reduce((sum, { changes }) => sum + changes, 0)
const last = await health.stop()
console.log(
  `${CLIENTS.toLocaleString("en")} clients at once, 1,000 changes each`.padEnd(44) +
    `${round(total)}, ${Math.round((seen / total) * 1_000).toLocaleString("en")} deliveries/s; ${all.every(({ recovered, changes }) => recovered && changes === 1_000) ? "all complete" : "NOT COMPLETE"}; health meanwhile p50 ${round(last.p50)}, p99 ${round(last.p99)}, max ${round(last.max)}; reads of the log ${await metric(relay.url, "relay_history_reads_total")}; resumed ${await metric(relay.url, "relay_resume_total")}`,
)
await relay.stop()
await rm(home, { recursive: true, force: true })

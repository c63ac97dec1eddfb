/** A process with few file descriptors: clients get what is left of them, and the relay keeps what it needs itself. */

import t from "tap"
import { z } from "zod"
import { type Client, openClient } from "../helpers/client.ts"
import { run, workDirectory } from "../helpers/command.ts"
import { database } from "../helpers/database.ts"
import { openRaw } from "../helpers/raw.ts"
import { SECRET, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const DESCRIPTORS = 200
const CROWD = 150

t.test("clients that come on and on leave the relay its sessions, and are counted", async (t) => {
  const db = await database(t)
  const env = { DATABASE_URL: db.url, PORT: "0", JWT_SECRET: SECRET, DRAIN_TIMEOUT_SECONDS: "1" }
  const child = run(t, await workDirectory(t), ["start", "--max-connections-per-user", "0"], env, DESCRIPTORS)
  const [line] = await child.prints("ready", /^\{"event":"ready".*\}$/m)
  const { url } = z.object({ url: z.string() }).parse(JSON.parse(line))
  t.match(child.err(), /connections_bounded.*"max_connections":104/)

  const path = `${url.replace("http", "ws")}/ws?token=${token()}`
  const clients: Client[] = []
  let refused = 0
  for (let n = 0; n < CROWD; n++)
    await openClient(t, path).then(
      (client) => clients.push(client),
      (error: Error) => {
        if (!error.message.includes("503")) throw error
        refused++
      },
    )
  t.equal(clients.length, 104)
  t.equal(refused, CROWD - 104)
  // Sockets that say nothing take what is left for requests.
  for (let n = 0; n < CROWD; n++) await openRaw(t, url).catch(() => {})

  await db.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name ~ '^commitcast'",
  )
  await db.query("insert into vote (votes) values (1)")
  await Promise.all(clients.map((client) => client.count(1)))
  t.pass("all of them are sent what comes after new sessions were made")
  // Those that say nothing are cut.
  const metrics = async () =>
    fetch(`${url}/metrics`).then(
      (answer) => answer.text(),
      () => "",
    )
  await until("metrics answer", async () => (await metrics()) !== "")
  const text = await metrics()
  t.match(text, /^relay_limits_reached_total\{limit="connections"\} 46$/m)
  t.match(text, /^relay_limits_reached_total\{limit="descriptors"\} [1-9]/m)
  t.match(text, /^relay_ready 1$/m)
  t.match(child.err(), /limit_reached.*descriptors.*ulimit -n/)
})

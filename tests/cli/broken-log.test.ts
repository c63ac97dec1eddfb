/** A relay whose log cannot be written, on a full disk and to a reader that is gone. */

import { spawn } from "node:child_process"
import { createRequire } from "node:module"
import { fileURLToPath, pathToFileURL } from "node:url"
import t, { type Test } from "tap"
import { freePort } from "../../cli/embedded/port.ts"
import { workDirectory } from "../helpers/command.ts"
import { type Database, database } from "../helpers/database.ts"
import { SECRET, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const MAIN = fileURLToPath(new URL("../../cli/main.ts", import.meta.url))
const TSX = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href

/** Starts a relay by a shell, which gives it its standard output and error. */
async function start(t: Test, db: Database, redirection: string, more: Record<string, string> = {}) {
  const port = await freePort()
  const child = spawn(
    "bash",
    ["-c", `exec "$0" "$@" ${redirection}`, process.execPath, "--import", TSX, MAIN, "start"],
    {
      cwd: await workDirectory(t),
      env: {
        PATH: process.env.PATH ?? "",
        DATABASE_URL: db.url,
        JWT_SECRET: SECRET,
        PORT: String(port),
        LOG_LEVEL: "trace",
        DRAIN_TIMEOUT_SECONDS: "1",
        ...more,
      },
      stdio: ["ignore", "pipe", "pipe"],
    },
  )
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve))
  t.teardown(async () => {
    child.kill("SIGKILL")
    await ended
  })
  const get = async (path: string) => {
    const headers = { authorization: `Bearer ${token({ role: "admin" })}` }
    return fetch(`http://127.0.0.1:${port}${path}`, { headers })
  }
  await until("the relay is ready", async () => {
    if (child.exitCode !== null) throw new Error(`it has ended with ${child.exitCode}`)
    return (await get("/health/ready").catch(() => undefined))?.status === 200
  })
  return {
    child,
    get,
    lost: async () =>
      Number(/^relay_log_lines_lost_total (\d+)/m.exec(await (await get("/metrics")).text())?.[1]),
    problems: async () => {
      const report = (await (await get("/api/utils/websocket/health/")).json()) as { problems: string[] }
      return report.problems.join()
    },
    async stop() {
      child.kill("SIGTERM")
      return ended
    },
  }
}

for (const workers of ["1", "2"])
  t.test(
    `on a full disk lines are lost and counted, and the relay runs, with ${workers} processes`,
    async (t) => {
      const db = await database(t)
      const relay = await start(t, db, ">/dev/full 2>/dev/full", { WORKERS: workers })
      t.ok((await relay.lost()) > 0)
      t.match(await relay.problems(), /log lines cannot be written: ENOSPC/)
      t.equal(await relay.stop(), 0)
    },
  )

t.test("a reader that is gone stops nobody", async (t) => {
  const db = await database(t)
  const relay = await start(t, db, "> >(exec head -c 0) 2> >(exec head -c 0)", { AUDIT_LOG: "stdout" })
  await until("lines are lost", async () => (await relay.lost()) > 0)
  t.match(await relay.problems(), /log lines cannot be written: EPIPE/)
  t.equal(await relay.stop(), 0)
})

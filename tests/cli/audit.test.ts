/** The audit log of processes: a setting that cannot be, standard output, and several that write to one file. */

import { readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import t, { type Test } from "tap"
import { AuditLine } from "../../relay/gateway/audit-line.ts"
import { openClient } from "../helpers/client.ts"
import { finish, run, workDirectory } from "../helpers/command.ts"
import { database } from "../helpers/database.ts"
import { SECRET, token } from "../helpers/relay.ts"

const read = (text: string): AuditLine[] =>
  text
    .split("\n")
    .slice(0, -1)
    .map((line) => AuditLine.parse(JSON.parse(line)))

async function start(t: Test, settings: Record<string, string>) {
  const db = await database(t)
  const relay = run(t, await workDirectory(t), ["start"], {
    DATABASE_URL: db.url,
    PORT: "0",
    JWT_SECRET: SECRET,
    DRAIN_TIMEOUT_SECONDS: "1",
    ...settings,
  })
  const [line] = await relay.prints("ready", /^\{"event":"ready".*\}$/m)
  const { url } = JSON.parse(line) as { url: string }
  return {
    ...relay,
    /** So many users come at once, join a channel and leave. */
    crowd: (users: number) =>
      Promise.all(
        Array.from({ length: users }, async (_, n) => {
          const client = await openClient(t, `${url.replace("http", "ws")}/ws`, {
            headers: { authorization: `Bearer ${token({ sub: `${n}` })}` },
          })
          await client.first("connection_success", ({ type }) => type === "connection_success")
          client.send({ type: "subscribe", channels: ["committee:7"] })
          await client.first("subscribed", ({ type }) => type === "subscribed")
          client.socket.close(1000)
          await client.closed
        }),
      ),
    async stop() {
      relay.child.kill("SIGTERM")
      return relay.ended
    },
  }
}

/** How many lines of each event there are. */
function tally(lines: AuditLine[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { event } of lines) counts[event] = (counts[event] ?? 0) + 1
  return counts
}

const USERS = 120

t.test("workers write whole lines to one file, which is for its owner alone", async (t) => {
  const path = join(await workDirectory(t), "audit.log")
  const relay = await start(t, { WORKERS: "3", AUDIT_LOG: path })
  await relay.crowd(USERS)
  t.equal(await relay.stop(), 0)
  const lines = read(readFileSync(path, "utf8"))
  t.same(tally(lines), { connected: USERS, subscribed: USERS, closed: USERS })
  t.equal(new Set(lines.flatMap((line) => ("user" in line ? [line.user] : []))).size, USERS)
  t.equal(statSync(path).mode & 0o777, 0o600)
})

t.test("on standard output the lines stand beside the one that says ready", async (t) => {
  const relay = await start(t, { AUDIT_LOG: "stdout" })
  await relay.crowd(3)
  t.equal(await relay.stop(), 0)
  const lines = relay.out().split("\n")
  t.same(tally(read(lines.filter((line) => !line.includes('"event":"ready"')).join("\n"))), {
    connected: 3,
    subscribed: 3,
    closed: 3,
  })
  t.equal(lines.filter((line) => line.includes('"event":"ready"')).length, 1)
})

t.test("a file that cannot be written ends the start with exit code 2, also with workers", async (t) => {
  const cwd = await workDirectory(t)
  for (const workers of ["1", "2"])
    t.match(
      await finish(t, cwd, ["start", "--workers", workers, "--audit-log", "nowhere/audit.log"], {
        DATABASE_URL: "postgres://nobody@127.0.0.1:1/none",
        JWT_SECRET: SECRET,
      }),
      { code: 2, out: "", err: /^commitcast: AUDIT_LOG \(--audit-log\) cannot be written: ENOENT nowhere/ },
      workers,
    )
})

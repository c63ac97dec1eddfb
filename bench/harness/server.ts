/** A server under test, a process of its own: ours, or one that people would write or run instead. */

import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { z } from "zod"
import { signToken } from "../../cli/commands/token.ts"
import { readSettings } from "../../relay/config.ts"
import type { Target } from "../clients/target.ts"
import { COPY_TABLE, OWN_TABLE } from "./session.ts"
import { isAlive } from "./usage.ts"

export const SERVERS = ["ours", "plain ws", "Socket.IO", "nchan"] as const
export type ServerName = (typeof SERVERS)[number]

export interface Server {
  name: ServerName
  /** The process whose CPU and memory count: it alone holds the sockets. */
  pid: number
  url: string
  /** Where to write what its clients are to receive. */
  table: string
  target: Target
  alive(): boolean
  stop(): Promise<void>
}

/** Something that this machine does not have; the rows that need it say so. */
export class AbsentError extends Error {
  override name = "AbsentError"
}

const ROOT = fileURLToPath(new URL("../..", import.meta.url))
const SECRET = "a secret of the bench, which is long enough"
const Ready = z.object({ event: z.literal("ready"), url: z.string(), pid: z.number().optional() })

/** As PostgreSQL writes JSON. */
const NOTIFIED = '{"type" : "voting_update"'

const RIVALS: Record<
  Exclude<ServerName, "ours">,
  { script: string; target: Omit<Target, "host" | "port"> }
> = {
  "plain ws": {
    script: "bench/rivals/plain.ts",
    target: { paths: ["/"], headers: {}, event: NOTIFIED },
  },
  "Socket.IO": {
    script: "bench/rivals/socketio.ts",
    target: {
      paths: ["/socket.io/?EIO=4&transport=websocket"],
      headers: {},
      ready: "40",
      event: '42["voting_update"',
      // Engine.IO's greeting and its ping (Engine.IO protocol, revision 4).
      answers: [
        { to: "0{", say: "40" },
        { to: "2", say: "3" },
      ],
    },
  },
  nchan: {
    script: "bench/rivals/nchan.ts",
    target: { paths: ["/subscribe"], headers: {}, event: NOTIFIED },
  },
}

/**
 * Starts one on the database and waits until it is ready.
 * @param settings of ours, by their environment names.
 * @throws AbsentError if this machine cannot run it.
 */
export async function startServer(
  name: ServerName,
  databaseUrl: string,
  settings: Record<string, string> = {},
): Promise<Server> {
  if (name !== "ours") {
    const { script, target } = RIVALS[name]
    const running = await run(["--import", "tsx", script], { DATABASE_URL: databaseUrl })
    const { hostname: host, port } = new URL(running.url)
    return { ...running, name, table: COPY_TABLE, target: { ...target, host, port: Number(port) } }
  }
  if (!existsSync(`${ROOT}dist/cli/main.js`)) throw new Error("run npm run build first: the bench runs dist/")
  const running = await run(["dist/cli/main.js", "start"], {
    DATABASE_URL: databaseUrl,
    PORT: "0",
    JWT_SECRET: SECRET,
    LOG_LEVEL: "warn",
    // The whole audience is one user at one address.
    MAX_CONNECTIONS_PER_ADDRESS: "0",
    MAX_CONNECTIONS_PER_USER: "0",
    MAX_FRAME_RATE_PER_USER: "0",
    MAX_UPGRADE_RATE: "0",
    MAX_UPGRADE_RATE_PER_ADDRESS: "0",
    ...settings,
  })
  const { hostname: host, port } = new URL(running.url)
  const target = {
    host,
    port: Number(port),
    paths: ["/ws"],
    headers: { Authorization: `Bearer ${tokenFor("1")}` },
    ready: '{"type":"connection_success"',
    // Not the results that are made of them: how many of those come is a matter of time.
    event: '{"type":"voting_update","action":"create"',
  }
  return { ...running, name, table: OWN_TABLE, target }
}

/** A token that our server accepts. */
export const tokenFor = (user: string): string =>
  signToken(SECRET, readSettings({ JWT_SECRET: SECRET }), { user, admin: true, expires: "12h" })

const STOP_MS = 15_000

async function run(args: string[], env: Record<string, string>) {
  const child = spawn(process.execPath, args, {
    cwd: ROOT,
    env: { ...process.env, NODE_ENV: "production", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  })
  let complaint = ""
  child.stderr.on("data", (data: Buffer) => {
    complaint = (complaint + data).slice(-2_000)
  })
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve))
  process.once("exit", () => child.kill("SIGTERM"))
  const stop = async () => {
    child.kill("SIGTERM")
    const late = setTimeout(() => child.kill("SIGKILL"), STOP_MS)
    await exited
    clearTimeout(late)
  }
  const { value: line } = await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next()
  if (line === undefined) {
    const code = await exited
    if (code === ABSENT) throw new AbsentError(complaint.trim())
    throw new Error(`${args.at(-1)} did not start: ${complaint.trim()}`)
  }
  child.stdout.resume()
  const { url, pid = child.pid as number } = Ready.parse(JSON.parse(line))
  return { url, pid, stop, alive: () => child.exitCode === null && isAlive(pid) }
}

/** The exit code with which a rival says that what it needs is not installed. */
export const ABSENT = 3

/** The server: what stands between a commit and the relay there. */

import { randomBytes } from "node:crypto"
import { connect } from "../schema/database.ts"
import { type Check, type Finding, failure, ok, orOk, warning } from "./finding.ts"

const BELL_MS = 5_000
/** What tokens and revocations can bear. Milliseconds. */
const CLOCK_MS = 1_000
const QUEUE = { warning: 0.05, failure: 0.5 }
const FULL = 0.9

export const checkVersion: Check = async ({ client }) => {
  const { rows } = await client.query<{ it: string }>("select current_setting('server_version') as it")
  return [ok("database", `PostgreSQL ${rows[0]?.it}, a primary, and no pooler in transaction mode between`)]
}

/** A notification from one session to another, on a channel that nobody else hears. */
export const checkBell: Check = async ({ client, databaseUrl }) => {
  const listener = await connect(databaseUrl)
  const channel = `commitcast_doctor_${randomBytes(8).toString("hex")}`
  let timer: NodeJS.Timeout | undefined
  try {
    const heard = new Promise<boolean>((resolve) => {
      listener.on("notification", (notification) => resolve(notification.channel === channel))
      timer = setTimeout(() => resolve(false), BELL_MS)
    })
    await listener.query(`listen ${channel}`)
    const began = performance.now()
    await client.query("select pg_notify($1, '')", [channel])
    if (await heard)
      return [ok("bell", `a notification came back after ${Math.ceil(performance.now() - began)} ms`)]
    return [
      failure(
        "bell",
        `a notification did not come back within ${BELL_MS / 1_000} s`,
        "Something between here and the server drops LISTEN: connect to PostgreSQL directly, and look at the server's log.",
      ),
    ]
  } finally {
    clearTimeout(timer)
    await listener.end()
  }
}

export const checkClock: Check = async ({ client }) => {
  const before = Date.now()
  const { rows } = await client.query<{ it: number }>(
    "select (date_part('epoch', clock_timestamp()) * 1000)::float8 as it",
  )
  const after = Date.now()
  const offset = Number(rows[0]?.it) - (before + after) / 2
  const apart = `${(Math.abs(offset) / 1_000).toFixed(1)} s`
  if (Math.abs(offset) - (after - before) / 2 <= CLOCK_MS)
    return [ok("clock", "this machine's and the server's agree within a second")]
  return [
    warning(
      "clock",
      `the server's clock is ${apart} ${offset > 0 ? "ahead of" : "behind"} this machine's`,
      "Let both keep time (NTP): tokens end by this machine's clock, revocations begin by the server's.",
    ),
  ]
}

export const checkQueue: Check = async ({ client }) => {
  const { rows } = await client.query<{ usage: number }>("select pg_notification_queue_usage() as usage")
  const usage = Number(rows[0]?.usage)
  const text = `${(100 * usage).toFixed(1)} % of the notification queue is used`
  if (usage < QUEUE.warning) return [ok("queue", text)]
  const remedy =
    "Some session listens and sits in an open transaction; when the queue is full commits with a bell fail. End it: select pid, usename, state, xact_start from pg_catalog.pg_stat_activity where state in ('idle in transaction', 'idle in transaction (aborted)') order by xact_start."
  return [(usage < QUEUE.failure ? warning : failure)("queue", text, remedy)]
}

export const checkSessions: Check = async ({ client }) => {
  const { rows } = await client.query<{ used: number; most: number }>(
    "select sum(numbackends)::int as used, current_setting('max_connections')::int as most from pg_stat_database",
  )
  const { used = 0, most = 1 } = rows[0] ?? {}
  const text = `${used} of ${most} connections to the server are used`
  if (used < FULL * most) return [ok("sessions", text)]
  return [
    warning(
      "sessions",
      text,
      "Raise max_connections or use fewer: the relay needs up to eight, and cannot come back without.",
    ),
  ]
}

/** What keeps a partition of the log from being emptied, and positions from becoming short. */
export const checkTransactions: Check = async ({ client, longSeconds }) => {
  const open = await client.query<{ pid: number; who: string | null; since: string }>(
    `select pid, usename as who, to_char(xact_start, 'YYYY-MM-DD HH24:MI:SS') as since from pg_stat_activity
     where xact_start < now() - make_interval(secs => $1) and backend_xid is not null and pid <> pg_backend_pid()
     order by xact_start limit 3`,
    [longSeconds],
  )
  const prepared = await client.query<{ gid: string; since: string }>(
    `select gid, to_char(prepared, 'YYYY-MM-DD HH24:MI:SS') as since from pg_prepared_xacts
     where prepared < now() - make_interval(secs => $1) and database = current_database() order by prepared limit 3`,
    [longSeconds],
  )
  const findings: Finding[] = [
    ...open.rows.map(({ pid, who, since }) =>
      warning(
        "transactions",
        `session ${pid} of ${who ?? "somebody"} has written, and is in a transaction since ${since}`,
        `The log may grow until it ends: select pg_catalog.pg_terminate_backend(${pid}), and set idle_in_transaction_session_timeout.`,
      ),
    ),
    ...prepared.rows.map(({ gid, since }) =>
      warning(
        "transactions",
        `'${gid}' is prepared since ${since}, and neither committed nor rolled back`,
        `The log may grow until it is: commit prepared '${gid}', or rollback prepared.`,
      ),
    ),
  ]
  const { rows } = await client.query<{ all: boolean }>(
    "select pg_has_role('pg_read_all_stats', 'usage') as all",
  )
  const known = rows[0]?.all === true ? "" : ", of those that this role may see: pg_read_all_stats shows all"
  return orOk(findings, "transactions", `none that has written is open for long${known}`)
}

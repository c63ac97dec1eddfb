/** What goes wrong in a long night, one thing after another. */

import { setTimeout as sleep } from "node:timers/promises"
import { openSession } from "../harness/session.ts"
import type { Crowd } from "./crowd.ts"

export interface Scene {
  databaseUrl: string
  /** The relay's process. */
  pid: number
  crowd: Crowd
}

export type Fault = (scene: Scene) => Promise<void>

async function inDatabase(databaseUrl: string, sql: string): Promise<void> {
  const session = await openSession(databaseUrl)
  try {
    await session.query(sql)
  } finally {
    await session.end()
  }
}

const terminate =
  (application: string): Fault =>
  ({ databaseUrl }) =>
    inDatabase(
      databaseUrl,
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = '${application}'`,
    )

/** In this order, again and again. */
export const FAULTS: Record<string, Fault> = {
  "the reading session is terminated": terminate("commitcast feed"),
  "the listening session is terminated": terminate("commitcast listener"),
  "all lines are cut": async ({ crowd }) => crowd.cut(),
  "the log is locked for 3 s": ({ databaseUrl }) =>
    inDatabase(
      databaseUrl,
      "begin; lock table relay.change_0, relay.change_1, relay.change_2 in access exclusive mode; select pg_sleep(3); commit",
    ),
  "the relay stands still for 3 s": async ({ pid }) => {
    process.kill(pid, "SIGSTOP")
    await sleep(3_000)
    process.kill(pid, "SIGCONT")
  },
  "some stop reading": async ({ crowd }) => crowd.stall(),
  "a server process is killed, and the database recovers": async ({ databaseUrl }) => {
    const session = await openSession(databaseUrl)
    const { rows } = await session.query<{ pid: number }>("select pg_backend_pid() as pid")
    const lost = new Promise((resolve) => session.once("end", resolve))
    process.kill(rows[0]?.pid as number, "SIGKILL")
    await lost
  },
}

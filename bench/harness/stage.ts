/** Where a group plays: its own database, the servers and audiences that it starts, all gone when it is over. */

import { chmod, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type pg from "pg"
import { type Audience, startAudience } from "../clients/audience.ts"
import type { Deafness, DeafOrder } from "../clients/deaf.ts"
import { type Helper, startHelper } from "../clients/subprocess.ts"
import type { Watched, WatchOrder } from "../clients/watch.ts"
import { openDatabase } from "./database.ts"
import type { Cell, Outcome, Row } from "./row.ts"
import { AbsentError, SERVERS, type Server, type ServerName, startServer, tokenFor } from "./server.ts"
import { openSession } from "./session.ts"

/** What was chosen on the command line; a group takes its own values where nothing was. */
export interface Choice {
  quick: boolean
  clients?: number[] | undefined
  burst?: number[] | undefined
  window?: number | undefined
  series?: string[] | undefined
  servers?: ServerName[] | undefined
  changes?: number | undefined
  churn?: number | undefined
  waits?: boolean | undefined
}

/** Measures something and yields a row for each run. */
export type Group = (stage: Stage) => AsyncGenerator<Row>

/** The one user who is all that are deaf, and nobody else. */
export const DEAF_USER = "2"

/** Clients that stop reading once they are in. */
export interface Deaf {
  /** @param again whoever is cut comes back at once. @param path instead of the first of the server. */
  connect(count: number, again: boolean, path?: string): Promise<void>
  /** All of them go. */
  leave(): Promise<Deafness>
}

export interface Stage {
  readonly choice: Choice
  readonly databaseUrl: string
  /** The version of the database. */
  readonly postgresql: string
  readonly servers: readonly ServerName[]
  session(): Promise<pg.Client>
  /** @throws AbsentError */
  server(name: ServerName, settings?: Record<string, string>): Promise<Server>
  /** @param paths in the place of the server's own. */
  audience(server: Server, paths?: string[]): Audience
  /** With nobody yet. */
  deaf(server: Server): Deaf
  /** Asks for the server's health until it is told to stop. @returns how long the answers took. Milliseconds. */
  watch(server: Server): Promise<{ stop(): Promise<Watched> }>
  /** Says how far it is. */
  note(line: string): void
  /** Ends what was started so far, except the database. */
  clear(): Promise<void>
  close(): Promise<void>
}

export async function openStage(choice: Choice, note: (line: string) => void): Promise<Stage> {
  const home = await mkdtemp(join(tmpdir(), "commitcast-bench-"))
  await chmod(home, 0o711) // as root, PostgreSQL runs as another user: it may pass, so that all of it is in here
  const database = await openDatabase(join(home, "database"))
  const { databaseUrl } = database
  const postgresql = await versionOf(databaseUrl)
  let stops: Array<() => Promise<void>> = []
  const clear = async () => {
    const all = stops.reverse()
    stops = []
    for (const stop of all) await stop()
  }
  return {
    choice,
    databaseUrl,
    postgresql,
    servers: choice.servers ?? SERVERS,
    note,
    clear,
    async session() {
      const session = await openSession(databaseUrl)
      stops.push(() => session.end())
      return session
    },
    async server(name, settings) {
      const server = await startServer(name, databaseUrl, settings)
      stops.push(server.stop)
      return server
    },
    audience(server, paths = server.target.paths) {
      const audience = startAudience({ ...server.target, paths })
      stops.push(audience.stop)
      return audience
    },
    deaf(server) {
      const target = { ...server.target, headers: { Authorization: `Bearer ${tokenFor(DEAF_USER)}` } }
      const helper: Helper<DeafOrder> = startHelper("deaf.ts")
      stops.push(helper.stop)
      return {
        connect: (count, again, path) => helper.ask({ kind: "connect", target, count, again, path }),
        leave: () => helper.ask<Deafness>({ kind: "leave" }),
      }
    },
    async watch({ url }) {
      const helper: Helper<WatchOrder> = startHelper("watch.ts")
      stops.push(helper.stop)
      await helper.ask({ kind: "watch", url })
      return { stop: () => helper.ask<Watched>({ kind: "tell" }) }
    },
    async close() {
      await clear()
      await database.stop()
      await rm(home, { recursive: true, force: true })
    },
  }
}

async function versionOf(databaseUrl: string): Promise<string> {
  const session = await openSession(databaseUrl)
  const { rows } = await session.query("show server_version")
  await session.end()
  return rows[0].server_version
}

/**
 * Runs cells on a server that has the stage for itself. What cannot be measured has its reason in its rows, and the
 * run goes on.
 * @param measure yields an outcome for each cell.
 */
export async function play(
  stage: Stage,
  subject: ServerName,
  cells: Cell[],
  measure: (server: Server) => AsyncIterable<Outcome>,
  settings?: Record<string, string>,
): Promise<Row[]> {
  const rows: Row[] = []
  const add = (outcome: Outcome) => {
    const cell = cells[rows.length]
    if (cell !== undefined) rows.push({ ...cell, subject, outcome })
  }
  try {
    stage.note(`${subject}: ${cells.map(({ group, name }) => `${group}, ${name}`).join("; ")}`)
    const server = await stage.server(subject, settings)
    for await (const outcome of measure(server)) add(outcome)
  } catch (error) {
    const kind = error instanceof AbsentError ? "absent" : "invalid"
    while (rows.length < cells.length) add({ kind, reason: (error as Error).message })
  } finally {
    await stage.clear()
  }
  return rows
}

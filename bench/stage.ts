/** Where a group plays: its own database, the servers and audiences that it starts, all gone when it is over. */

import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type pg from "pg"
import { type Audience, startAudience } from "./audience.ts"
import { openDatabase } from "./database.ts"
import type { Row } from "./row.ts"
import { SERVERS, type Server, type ServerName, startServer } from "./server.ts"
import { openSession } from "./session.ts"

/** What was chosen on the command line; a group takes its own values where nothing was. */
export interface Choice {
  quick: boolean
  clients?: number[] | undefined
  burst?: number[] | undefined
  servers?: ServerName[] | undefined
  changes?: number | undefined
}

/** Measures something and yields a row for each run. */
export type Group = (stage: Stage) => AsyncGenerator<Row>

export interface Stage {
  readonly choice: Choice
  readonly databaseUrl: string
  readonly servers: readonly ServerName[]
  session(): Promise<pg.Client>
  /** @throws AbsentError */
  server(name: ServerName, settings?: Record<string, string>): Promise<Server>
  /** @param paths in the place of the server's own. */
  audience(server: Server, paths?: string[]): Audience
  /** Says how far it is. */
  note(line: string): void
  /** Ends what was started so far, except the database. */
  clear(): Promise<void>
  close(): Promise<void>
}

export async function openStage(choice: Choice, note: (line: string) => void): Promise<Stage> {
  const home = await mkdtemp(join(tmpdir(), "commitcast-bench-"))
  const database = await openDatabase(join(home, "database"))
  const { databaseUrl } = database
  let stops: Array<() => Promise<void>> = []
  const clear = async () => {
    const all = stops.reverse()
    stops = []
    for (const stop of all) await stop()
  }
  return {
    choice,
    databaseUrl,
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
    async close() {
      await clear()
      await database.stop()
      await rm(home, { recursive: true, force: true })
    },
  }
}

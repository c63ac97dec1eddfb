/**
 * Sessions that find nothing but PostgreSQL's own functions, operators and types: whoever may create some in a schema of
 * the role's search_path would otherwise have them run with the role's rights, by making one that fits a call better.
 */

import pg from "pg"
import { BoundClient } from "./bound-client.ts"
import type { Database } from "./database.ts"

/** The first statement of each of our sessions. Written into the startup packet, poolers would refuse it. */
export const PIN = "set search_path = pg_catalog, pg_temp"

/** Begins a transaction with the same, for a session that may be another's afterwards. */
export const PIN_TRANSACTION = "begin; set local search_path = pg_catalog, pg_temp"

/** Tells one server from another, and from itself before a restart, however it is reached. */
const SERVER = "select pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())"

/** A client whose first statement is PIN, before its connect() resolves. The database knows by then which server it is on. */
export class PinnedClient extends BoundClient {
  constructor(config: pg.ClientConfig, database?: Database) {
    super(config)
    const { connection } = this
    pinFirst(connection, (server) => {
      const ended = database?.begun(server, (why) => connection.stream.destroy(why))
      if (ended !== undefined) connection.once("end", ended)
    })
  }
}

/** What pg-listen hands on to the client that it makes: a connection whose first statement is PIN. */
export function pinnedConnection(database: Database, config: pg.ClientConfig): { connection: pg.Connection } {
  return { connection: new PinnedClient(config, database).connection }
}

/** A pool of pinned clients, each of which dials anew. */
export function pinnedPool(database: Database, name: string, config: pg.PoolConfig): pg.Pool {
  class DiallingClient extends PinnedClient {
    // The pool gives it its own configuration.
    constructor(given?: pg.ClientConfig) {
      super(given ?? {}, database)
    }

    override connect(): Promise<pg.Client>
    override connect(callback: (error: Error) => void): void
    override connect(callback?: (error: Error) => void): Promise<pg.Client> | undefined {
      if (callback === undefined) return this.#dial().then(() => super.connect())
      this.#dial().then(() => super.connect(callback), callback)
      return undefined
    }

    async #dial(): Promise<void> {
      const { host, port, password, stream } = await database.dial(name)
      const socket = stream()
      // The pool has given up meanwhile.
      if (this.connection.stream.destroyed) {
        socket.destroy()
        throw new Error("timeout expired")
      }
      Object.assign(this, { host, port, password })
      Object.assign(this.connection, { stream: socket })
    }
  }
  return new pg.Pool({ ...config, ...database.greeting(name), Client: DiallingClient })
}

/** Puts two statements between the greeting and the client, which hears of neither them nor their answers unless one is an error. */
function pinFirst(connection: pg.Connection, onServer: (server: string) => void): void {
  const emit = connection.emit.bind(connection)
  const statements = [PIN, SERVER]
  let refused = false
  connection.emit = (event, ...values) => {
    switch (event) {
      case "readyForQuery": {
        const next = refused ? undefined : statements.shift()
        if (next !== undefined) {
          connection.query(next)
          return true
        }
        connection.emit = emit
        return refused || emit(event, ...values)
      }
      case "dataRow":
        onServer(String(values[0].fields[0]))
        return true
      case "rowDescription":
      case "commandComplete":
        return true
      case "errorMessage":
        refused = statements.length < 2
    }
    return emit(event, ...values)
  }
}

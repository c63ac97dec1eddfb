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

/** A client whose first statement is PIN, before its connect() resolves. */
export class PinnedClient extends BoundClient {
  constructor(config: pg.ClientConfig) {
    super(config)
    pinFirst(this.connection)
  }
}

/** What pg-listen hands on to the client that it makes: a connection whose first statement is PIN. */
export function pinnedConnection(config: pg.ClientConfig): { connection: pg.Connection } {
  return { connection: new PinnedClient(config).connection }
}

/** A pool of pinned clients, each of which dials anew. */
export function pinnedPool(database: Database, name: string, config: pg.PoolConfig): pg.Pool {
  class DiallingClient extends PinnedClient {
    // The pool gives it its own configuration.
    constructor(given?: pg.ClientConfig) {
      super(given ?? {})
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

/** Puts the statement between the greeting and the client, which hears of neither it nor its answer unless that is an error. */
function pinFirst(connection: pg.Connection): void {
  const emit = connection.emit.bind(connection)
  let sent = false
  let refused = false
  connection.emit = (event, ...values) => {
    switch (event) {
      case "readyForQuery":
        if (sent) {
          connection.emit = emit
          return refused || emit(event, ...values)
        }
        sent = true
        connection.query(PIN)
        return true
      case "commandComplete":
        return true
      case "errorMessage":
        refused = sent
    }
    return emit(event, ...values)
  }
}

/**
 * Sessions that find nothing but PostgreSQL's own functions, operators and types: whoever may create some in a schema of
 * the role's search_path would otherwise have them run with the role's rights, by making one that fits a call better.
 */

import pg from "pg"

/** The first statement of each of our sessions. Written into the startup packet, poolers would refuse it. */
export const PIN = "set search_path = pg_catalog, pg_temp"

/** Begins a transaction with the same, for a session that may be another's afterwards. */
export const PIN_TRANSACTION = "begin; set local search_path = pg_catalog, pg_temp"

/** A client whose first statement is PIN, before its connect() resolves. */
export class PinnedClient extends pg.Client {
  constructor(config?: string | pg.ClientConfig) {
    super(config)
    pinFirst(this.connection)
  }
}

/** What pg-listen hands on to the client that it makes: a connection whose first statement is PIN. */
export function pinnedConnection(config: pg.ClientConfig): { connection: pg.Connection } {
  return { connection: new PinnedClient(config).connection }
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

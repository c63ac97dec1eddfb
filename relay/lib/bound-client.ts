/** A client that keeps `channel_binding=require`: it logs in on its own encrypted line, or not at all. */

import pg from "pg"

/** The mechanism that binds a login to its encrypted line. */
const BOUND = "SCRAM-SHA-256-PLUS"
const UNBOUND = "channel_binding=require, but the server does not bind the login to the line"

/** pg itself binds a login only if the server offers it, and tells a server that asks for the password the password. */
export class BoundClient extends pg.Client {
  constructor(config: pg.ClientConfig) {
    super(config)
    if (config.enableChannelBinding === true) requireBinding(this.connection)
  }
}

/** Makes an error of every other way to log in, before anything is answered. */
function requireBinding(connection: pg.Connection): void {
  const emit = connection.emit.bind(connection)
  let bound = false
  connection.emit = (event, ...values) => {
    switch (event) {
      case "authenticationSASLFinal":
        bound = true
        break
      case "authenticationSASL":
        if (!bound && !values[0].mechanisms.includes(BOUND)) return emit("error", new Error(UNBOUND))
        break
      case "authenticationOk":
      case "authenticationCleartextPassword":
      case "authenticationMD5Password":
        if (!bound) return emit("error", new Error(UNBOUND))
    }
    return emit(event, ...values)
  }
}

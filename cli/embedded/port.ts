/** Owns the search for a port that nobody listens on. */

import { createServer } from "node:net"

/** A free port of 127.0.0.1; fails when the wanted one is not. */
export function freePort(wanted = 0): Promise<number> {
  const server = createServer()
  return new Promise((resolve, reject) => {
    server.once("error", reject)
    server.listen(wanted, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => resolve(typeof address === "object" && address ? address.port : wanted))
    })
  })
}

/** The HTTP server of a process, and listening. */

import { createServer, type Server } from "node:http"
import type { AddressInfo, Server as NetServer } from "node:net"
import { createApp } from "../api/app.ts"
import { ConfigError, type Settings } from "../relay/config.ts"
import type { Relay } from "../relay/relay.ts"

/** Something that serves clients: this process, or several. */
export interface Service {
  /** Begins to listen. @returns the URL. @throws ConfigError if it cannot. */
  listen(): Promise<string>
  /** Begins to relay. */
  start(): void
  /** Resolves once clients can connect and changes arrive. */
  whenReady(): Promise<void>
  /** Closes clients, then the database. */
  stop(): Promise<void>
}

/** Puts a relay and its API behind an HTTP server, which does not listen yet. */
export function createHttpServer(relay: Relay, settings: Readonly<Settings>): Server {
  const app = createApp(relay, { trustProxy: settings.TRUST_PROXY, wsPath: settings.WS_PATH })
  const server = createServer({ maxHeaderSize: 16_384 }, app)
  relay.attach(server)
  return server
}

/** A relay that serves clients from this process. */
export function openServer(relay: Relay, settings: Readonly<Settings>): Service {
  const server = createHttpServer(relay, settings)
  return {
    listen: () => listen(server, settings),
    start: relay.start,
    whenReady: relay.whenReady,
    async stop() {
      await relay.stop()
      server.close()
      server.closeAllConnections()
    },
  }
}

/** @throws ConfigError if the settings name a place where nobody can listen. */
export async function listen(server: NetServer, { HOST, PORT }: Readonly<Settings>): Promise<string> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EADDRINUSE")
        reject(new ConfigError(`PORT (--port) ${PORT} is taken: choose another, or 0 for a free one`))
      else if (error.code === "EACCES")
        reject(new ConfigError(`PORT (--port) ${PORT} may not be used by this user: choose one above 1023`))
      else if (error.code === "EADDRNOTAVAIL" || error.code === "ENOTFOUND")
        reject(new ConfigError(`HOST (--host) ${HOST} is not an address of this machine`))
      else reject(error)
    })
    server.listen(PORT, HOST, resolve)
  })
  const { port, address, family } = server.address() as AddressInfo
  const host =
    address === "0.0.0.0" || address === "::" ? "127.0.0.1" : family === "IPv6" ? `[${address}]` : address
  return `http://${host}:${port}`
}

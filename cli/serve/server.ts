/** The HTTP server of a process, and listening. */

import { createServer, type Server } from "node:http"
import type { AddressInfo, Server as NetServer } from "node:net"
import { createApp } from "../../api/app.ts"
import { ConfigError, type Settings } from "../../relay/config.ts"
import { answerUnreadable } from "../../relay/gateway/upgrade-answer.ts"
import { roomForSockets } from "../../relay/lib/descriptors.ts"
import type { Relay } from "../../relay/relay.ts"
import { programName } from "../invocation.ts"
import { packageVersion } from "../version.ts"

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

/** Both together, as Node counts them: a URL and all headers. A cursor may fill most of it. Bytes. */
const MAX_HEADER_BYTES = 16_384
/** A socket on which nothing moves for this long is cut, such as one whose answer nobody takes: no answer takes longer to make. Milliseconds. */
const IDLE_MS = 15_000

/** Puts a relay and its API behind an HTTP server, which does not listen yet. */
export function createHttpServer(relay: Relay, settings: Readonly<Settings>): Server {
  const app = createApp(relay, {
    version: packageVersion(),
    trustProxy: settings.TRUST_PROXY,
    wsPath: settings.WS_PATH,
    metricsToken: settings.METRICS_TOKEN,
    allowedHosts: settings.ALLOWED_HOSTS,
    program: programName(),
  })
  // Who dawdles over a request is no better than who dawdles over a token.
  const patienceMs = Math.ceil(settings.AUTH_TIMEOUT_SECONDS * 1_000)
  const server = createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: patienceMs,
      requestTimeout: patienceMs,
      connectionsCheckingInterval: 1_000,
    },
    app,
  )
  server.timeout = IDLE_MS
  // Node would leave out the headers beyond a thousand without a word, such as what a proxy adds behind those of its client.
  server.maxHeadersCount = 0
  server.on("clientError", answerUnreadable)
  relay.attach(server)
  return server
}

/** A relay that serves clients from this process. */
export function openServer(relay: Relay, settings: Readonly<Settings>): Service {
  const server = createHttpServer(relay, settings)
  const room = roomForSockets()
  // Beyond it the sessions in the database could not be made anew for as long as clients keep coming.
  if (room !== undefined) server.maxConnections = room.sockets
  server.on("drop", relay.droppedSocket)
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

/** The origins whose pages were refused: most often one that somebody forgot to allow. Logged once in a while. */

import type { IncomingMessage } from "node:http"
import type { Log } from "../telemetry/log.ts"

export interface RefusedOrigins {
  record(request: IncomingMessage): void
}

/** Milliseconds. */
const LOG_MS = 60_000
/** Whoever writes the headers chooses the text: so much of one is shown, and so many of them. */
const MAX_LENGTH = 100
const MAX_ORIGINS = 5

/** Its own characters would reach a terminal. */
const shown = (text = ""): string => text.replace(/[^\x21-\x7e]/g, "?").slice(0, MAX_LENGTH)

export function createRefusedOrigins(log: Log, clock: () => number): RefusedOrigins {
  /** Since the last line. */
  let times = 0
  const origins = new Set<string>()
  let loggedAt = Number.NEGATIVE_INFINITY

  return {
    record({ headers: { origin, host } }) {
      times++
      if (origins.size < MAX_ORIGINS) origins.add(shown(origin))
      if (clock() - loggedAt < LOG_MS) return
      loggedAt = clock()
      log.warn(
        { event: "origin_refused", origins: [...origins], host: shown(host), times },
        "pages of an origin that is not allowed were refused: if it is yours, add it to ALLOWED_ORIGINS (--allowed-origins), or, where it is the relay's own host, have the proxy pass the Host header on",
      )
      times = 0
      origins.clear()
    },
  }
}

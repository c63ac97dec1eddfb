/** The hosts by which requests may ask: a page whose name was rebound to this address asks by its own. */

import type { RequestHandler } from "express"

/** Orchestrators ask by address. What these answer says nothing. */
const PROBES = new Set(["/health/live", "/health/ready"])

/** @param isHost whether the relay may be asked by this Host header. */
export const requireHost =
  (isHost: (host: string | undefined) => boolean): RequestHandler =>
  (request, response, next) => {
    if (PROBES.has(request.path) || isHost(request.headers.host)) return next()
    response.status(421).json({
      error: "unknown_host",
      message: "The relay is not known by this Host: add it to ALLOWED_HOSTS (--allowed-hosts).",
    })
  }

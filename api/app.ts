/** The HTTP side: health, metrics, and the page. */

import { createHash, timingSafeEqual } from "node:crypto"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import express, { type Express, type NextFunction, type Request, type Response } from "express"
import helmet from "helmet"
import { bearerTokens } from "../relay/gateway/upgrade.ts"
import { shortened } from "../relay/health/report.ts"
import { readTrust } from "../relay/lib/client-address.ts"
import { isListedHost } from "../relay/lib/host-list.ts"
import { shareAnswers } from "../relay/lib/shared-answer.ts"
import type { Relay } from "../relay/relay.ts"
import { serveDocs } from "./docs/docs.ts"
import { requireHost } from "./hosts.ts"
import { serveLibrary } from "./library.ts"

export interface AppSettings {
  /** Express's "trust proxy": false, true, a number of hops, or addresses. */
  trustProxy: string
  version: string
  /** Where the page finds its socket. */
  wsPath: string
  /** What the metrics want to be asked with; undefined: nothing. */
  metricsToken: string | undefined
  /** The hosts that requests may name; none: any. */
  allowedHosts: readonly string[]
  /** How the command line is called here, for what the pages advise. */
  program: string
}

/** What the page needs of a browser's devices: nothing. */
const PERMISSIONS = ["camera", "display-capture", "geolocation", "microphone", "payment", "usb"]
  .map((feature) => `${feature}=()`)
  .join(", ")

/** Takes as long whatever differs. */
const isSame = (one: string, other: string): boolean => timingSafeEqual(digest(one), digest(other))
const digest = (text: string): Buffer => createHash("sha256").update(text).digest()

/** Makes the Express application of a relay. */
export function createApp(relay: Relay, settings: AppSettings): Express {
  const app = express()
  const report = shareAnswers(relay.report)
  const exposition = shareAnswers(relay.exposition)
  app.set("trust proxy", readTrust(settings.trustProxy))
  app.disable("x-powered-by")
  app.use(
    helmet({
      contentSecurityPolicy: {
        useDefaults: false,
        directives: {
          defaultSrc: ["'none'"],
          scriptSrc: ["'self'"],
          styleSrc: ["'self'"],
          connectSrc: ["'self'"],
          imgSrc: ["'self'"],
          baseUri: ["'none'"],
          formAction: ["'none'"],
          frameAncestors: ["'none'"],
          requireTrustedTypesFor: ["'script'"],
        },
      },
      // The relay itself speaks plain HTTP; whether there is TLS in front is the proxy's to say.
      strictTransportSecurity: false,
      frameguard: { action: "deny" },
      referrerPolicy: { policy: "no-referrer" },
    }),
  )

  app.use((_request, response, next) => {
    response.set({ "Permissions-Policy": PERMISSIONS, "Cache-Control": "no-store" })
    next()
  })

  app.use(requireHost((host) => isListedHost(settings.allowedHosts, host)))
  app.get("/api/utils/websocket/health/", async (request, response) => {
    const tokens = bearerTokens(request)
    if (tokens.length > 1) return void response.status(400).json({ error: "more than one token" })
    const identity = await relay.verify(tokens[0])
    if (!identity.ok && identity.reason === "unavailable") {
      response.set("Retry-After", "10").status(503).json({ error: "the token cannot be checked now" })
    } else if (!identity.ok) {
      response
        .set("WWW-Authenticate", "Bearer")
        .status(401)
        .json({ error: `token ${identity.reason}` })
    } else if (!identity.identity.admin) {
      response.status(403).json({ error: "only for admins" })
    } else {
      const made = await report()
      const top = /^\d{1,6}$/.test(String(request.query.top)) ? Number(request.query.top) : undefined
      response.json(top === undefined ? made : shortened(made, top))
    }
  })
  app.get("/health/live", (_request, response) => {
    response.json({ status: "live" })
  })
  app.get("/health/ready", (_request, response) => {
    const ready = relay.status().ready
    response.status(ready ? 200 : 503).json({ status: ready ? "ready" : "not_ready" })
  })
  app.get("/metrics", async (request, response) => {
    const { metricsToken } = settings
    if (metricsToken !== undefined && !bearerTokens(request).some((token) => isSame(token, metricsToken)))
      return void response
        .set("WWW-Authenticate", "Bearer")
        .status(401)
        .json({ error: "not the METRICS_TOKEN" })
    response.type(relay.metrics.registry.contentType).send(await exposition())
  })
  app.get("/page.json", (_request, response) => {
    response.json({ wsPath: settings.wsPath, program: settings.program })
  })
  app.use("/client", serveLibrary())
  app.use("/docs", serveDocs(settings))
  app.use(
    express.static(join(dirname(fileURLToPath(import.meta.resolve("#root/package.json"))), "api/public"), {
      // Asked for each time, and sent only if it is another.
      setHeaders: (response) => response.setHeader("Cache-Control", "no-cache"),
      extensions: ["html"],
    }),
  )
  // Behind the pages, one of which may have the same path.
  app.use((request: Request, response: Response, next: NextFunction) => {
    if (!relay.answer(request, response)) next()
  })
  app.use((_request: Request, response: Response) => {
    response.status(404).json({ error: "not found" })
  })
  app.use((error: Error & { status?: number }, _request: Request, response: Response, _next: () => void) => {
    const mistake = error.status !== undefined && error.status < 500
    response.status(mistake ? 400 : 500).json({ error: mistake ? "bad request" : "internal error" })
  })
  return app
}

/** The relay itself, where one runs: whether it is ready, and what its report says. */

import { z } from "zod"
import { invocation } from "../invocation.ts"
import { type Finding, failure, ok, warning } from "./finding.ts"

export interface RelayAddress {
  url: string
  /** An admin's; without one only readiness is known. */
  token: string | undefined
}

const TIMEOUT_MS = 5_000
const Report = z.object({
  status: z.enum(["ok", "degraded"]),
  problems: z.array(z.string()),
  version: z.string(),
  listener: z.object({ state: z.string(), error: z.string().nullable() }),
  feed: z.object({ state: z.string(), lag_seconds: z.number(), error: z.string().nullable() }),
  connections: z.object({ total: z.number(), users: z.number() }),
})

export async function checkRelay({ url, token }: RelayAddress): Promise<Finding[]> {
  const get = (path: string, headers: Record<string, string> = {}) =>
    fetch(new URL(path, url), { headers, signal: AbortSignal.timeout(TIMEOUT_MS) })
  let ready: boolean
  try {
    ready = (await get("/health/ready")).ok
  } catch {
    return [
      failure("relay", `no relay answers at ${url}`, `${invocation("start")}, or name another by --url`),
    ]
  }
  const readiness = ready
    ? ok("relay", `ready at ${url}`)
    : failure("relay", `the relay at ${url} is not ready`, "Its report says why; so does its log.")
  if (token === undefined) return [readiness]
  const response = await get("/api/utils/websocket/health/", { authorization: `Bearer ${token}` })
  if (response.status !== 200)
    return [
      readiness,
      warning(
        "relay",
        `it does not show its report (${response.status})`,
        "Give it the key that this command has, or an admin's token by --token.",
      ),
    ]
  const { problems, listener, feed, connections, version } = Report.parse(await response.json())
  const errors = [listener.error, feed.error].filter((error) => error !== null)
  return [
    readiness,
    ...[...problems, ...errors].map((problem) =>
      failure("relay", problem, "docs/OPERATIONS.md, What can happen"),
    ),
    ok(
      "relay",
      `version ${version}; ${connections.total} connections of ${connections.users} users; ${feed.lag_seconds.toFixed(1)} s behind`,
    ),
  ]
}

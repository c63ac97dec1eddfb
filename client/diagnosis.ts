/** Why there is no connection. A browser tells a script nothing of a refused upgrade: a plain request may. */

import type { Clock } from "./clock.ts"
import { messageOf } from "./error.ts"

interface Answer {
  status: number
  type: string
  redirected: boolean
  headers: { get(name: string): string | null }
  text(): Promise<string>
}
interface Here {
  fetch?(url: string, init: object): Promise<Answer>
  location?: { origin: string }
  AbortController?: new () => { signal: AbortSignal; abort(): void }
}

const PATIENCE_MS = 10_000

/** Asks the relay by HTTP. @returns the reason in words, and what to do. */
export async function diagnose(url: string, clock: Clock): Promise<string> {
  const here = globalThis as Here
  if (here.fetch === undefined) return "look at the address, the network and the proxies on the way"
  const request = here.AbortController && new here.AbortController()
  const cancel = clock.setAlarm(PATIENCE_MS, () => request?.abort())
  try {
    const answer = await here.fetch(withOrigin(url, here.location?.origin), {
      redirect: "manual",
      credentials: "omit",
      cache: "no-store",
      headers: { accept: "application/json" },
      signal: request?.signal ?? null,
    })
    return explain(answer, await answer.text())
  } catch (error) {
    return `a plain request fails too (${messageOf(error)}): the relay may be down, the address or its certificate wrong, or something on the way answers in its place`
  } finally {
    cancel()
  }
}

/** A page's plain request to its own host carries no Origin, and the upgrade does. */
function withOrigin(url: string, origin: string | undefined): string {
  if (origin === undefined) return url
  return `${url}${url.includes("?") ? "&" : "?"}origin=${encodeURIComponent(origin)}`
}

function explain({ status, type, redirected, headers }: Answer, text: string): string {
  if (redirected || type === "opaqueredirect" || (status >= 300 && status < 400))
    return "the address is redirected, which a WebSocket cannot follow: a sign-in page or a captive portal, or the address has moved. Use the final one"
  const word = readWord(text)
  if (status === 426 && word !== undefined)
    return "the relay itself would accept it: a proxy on the way takes away Upgrade or Sec-WebSocket-Protocol. Let it pass both"
  if (word !== undefined) return `${status} ${word.error}: ${word.message}`
  if (status === 401 || status === 403 || status === 407)
    return `${status}, and not from the relay: a proxy on the way wants credentials, or forbids the address`
  if (status === 404) return "404: there is no relay under this path. It is /ws, or what WS_PATH says"
  const kind = headers.get("content-type")?.split(";")[0] || "an unknown type"
  return `${status} with ${kind}, and not from the relay: a proxy, a captive portal or another server answers there`
}

function readWord(text: string): { error: string; message: string } | undefined {
  try {
    const { error, message } = JSON.parse(text)
    return typeof error === "string" && typeof message === "string" ? { error, message } : undefined
  } catch {
    return undefined
  }
}

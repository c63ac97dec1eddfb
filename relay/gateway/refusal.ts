/** Refusals: why a request becomes no connection, in a status, a code, and a sentence that says what to do. */

/** Before the upgrade, when the answer is HTTP. */
export interface Refusal {
  readonly status: number
  /** The code that the client is told, and under which it is counted. */
  readonly result: string
  readonly message: string
  /** When to come back, if that may help. */
  readonly retrySeconds?: number | undefined
  /** With which the connection would be closed, where the upgrade itself is not refused. */
  readonly closeCode?: number | undefined
}

export const badRequest = (message: string, status = 400): Refusal => ({
  status,
  result: "bad_request",
  message,
})

export const REFUSED = {
  target: badRequest(
    "The request's target is none: write the path and the query without dots, backslashes and #.",
  ),
  method: badRequest("A WebSocket is opened with GET: use GET.", 405),
  version: badRequest("Only version 13 of WebSocket is spoken here: send Sec-WebSocket-Version: 13.", 426),
  http: badRequest("An upgrade needs HTTP/1.1 and one Host header: have the proxy in front send both."),
  body: badRequest("An upgrade has no body: send no Content-Length and no Transfer-Encoding."),
  channel: badRequest(
    "A channel of the query is none: it is a name, or a name and an id, such as committee:7. One with a comma is given by `channel`, once for each.",
  ),
  origin: {
    status: 403,
    result: "origin",
    message:
      "Pages of this origin may not connect: add it to ALLOWED_ORIGINS (--allowed-origins) of the relay, or, if it is the relay's own, have the proxy in front pass the Host header on.",
  },
  anotherSite: {
    status: 403,
    result: "origin",
    message:
      "A browser asked for another site's page and did not say for which: open the address itself, or ask with fetch.",
  },
  stopping: {
    status: 503,
    result: "stopping",
    message: "The relay is stopping: come back in a moment.",
    retrySeconds: 1,
  },
  notReady: {
    status: 503,
    result: "not_ready",
    message: "The relay is not ready: come back in a moment. Its health report says why.",
    retrySeconds: 1,
  },
} as const satisfies Record<string, Refusal>

/** What some statuses must say beside themselves. */
const REMEDIES: Record<number, Record<string, string>> = {
  405: { Allow: "GET" },
  426: { Upgrade: "websocket", "Sec-WebSocket-Version": "13" },
}

/** The body of the answer, and the headers that go with it. */
export function answerOf({ status, result, message, retrySeconds, closeCode }: Refusal): {
  headers: Record<string, string>
  body: string
} {
  const body = `${JSON.stringify({ error: result, message, close_code: closeCode })}\n`
  const headers = {
    "Content-Type": "application/json; charset=utf-8",
    "Content-Length": String(Buffer.byteLength(body)),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    ...(retrySeconds === undefined ? REMEDIES[status] : { "Retry-After": String(retrySeconds) }),
  }
  return { headers, body }
}

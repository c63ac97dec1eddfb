/** What an upgrade request asks for, and whether its page may ask. */

import type { IncomingMessage } from "node:http"
import { ChannelName } from "./protocol.ts"

export interface Handshake {
  /** Wherever they came: header, subprotocol, query. More than one is a mistake or an attack. */
  tokens: string[]
  channels: string[]
  cursor: string | undefined
}

/** The one subprotocol that is answered: the token beside it must not come back. */
export const SUBPROTOCOL = "commitcast.v1"
const BEARER = "bearer."

/** Whether the Origin, which browsers alone send, is the relay's own host or an allowed one. `null` never is. */
export function originAllowed(request: IncomingMessage, allowed: readonly string[]): boolean {
  const { origin, host } = request.headers
  if (origin === undefined || allowed.includes(origin)) return true
  return URL.canParse(origin) && new URL(origin).host === host
}

/** Reads an upgrade request. @returns undefined if a parameter is malformed. */
export function readHandshake(
  request: IncomingMessage,
  url: URL,
  queryToken: boolean,
): Handshake | undefined {
  const tokens: string[] = []
  const authorization = /^Bearer\s+(\S+)$/i.exec(request.headers.authorization ?? "")
  if (authorization !== null) tokens.push(authorization[1] as string)
  for (const offered of (request.headers["sec-websocket-protocol"] ?? "").split(",")) {
    if (offered.trim().startsWith(BEARER)) tokens.push(offered.trim().slice(BEARER.length))
  }
  if (queryToken) tokens.push(...url.searchParams.getAll("token"))
  const channels = (url.searchParams.get("channels") ?? "").split(",").filter((channel) => channel !== "")
  if (!channels.every((channel) => ChannelName.safeParse(channel).success)) return undefined
  return { tokens, channels, cursor: url.searchParams.get("cursor") ?? undefined }
}

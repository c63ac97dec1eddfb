/** The inbox: what clients send, in order, from a frame's text to the admission or the commands. */

import type { Connection } from "../fanout/connection.ts"
import { readJson } from "../lib/json.ts"
import { ClientMessage, describeFault, requestOf } from "../protocol/client-message.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Admission } from "./admission.ts"
import type { Commands } from "./commands.ts"
import type { Faults, RequestId } from "./faults.ts"
import type { UpgradeParameters } from "./upgrade.ts"

export interface InboxDeps {
  admission: Admission
  commands: Commands
  faults: Faults
  metrics: Metrics
}

export interface Inbox {
  /** Begins with what the upgrade asked for, and its token if it brought one. */
  open(connection: Connection, parameters: UpgradeParameters): void
  receive(connection: Connection, text: string): void
  /** The client is gone: what it sent and has not been handled is void. */
  forget(connection: Connection): void
}

/** A token may have to wait for its issuer, and nobody knows yet whether its bearer may send anything at all. */
const MAX_HELD_FRAMES = 32
/** Characters. */
const MAX_HELD_LENGTH = 16_384

export function createInbox({ admission, commands, faults, metrics }: InboxDeps): Inbox {
  /** The clients whose token is being checked, and the frames that wait for it. */
  const held = new Map<Connection, HeldFrames>()

  async function authenticate(connection: Connection, token: string, request: RequestId): Promise<void> {
    const frames = new HeldFrames()
    held.set(connection, frames)
    await admission.authenticate(connection, token, request)
    if (!held.delete(connection)) return
    for (const text of frames.texts) receive(connection, text)
  }

  function receive(connection: Connection, text: string): void {
    if (connection.closing) return
    const frames = held.get(connection)
    if (frames === undefined) return read(connection, text)
    if (!frames.add(text)) faults.answer(connection, "busy", "a token is being checked: ask again later")
  }

  function read(connection: Connection, text: string): void {
    const json = readJson(text)
    const parsed = ClientMessage.safeParse(json)
    if (!parsed.success) {
      metrics.frames.inc({ type: "invalid" })
      if (json === undefined) return faults.answer(connection, "bad_message", "not JSON")
      const issue = parsed.error.issues[0]
      if (issue?.code === "invalid_union" && issue.path[0] === "type")
        return faults.answer(
          connection,
          "unknown_type",
          "the type must be one of ping, pong, subscribe, unsubscribe, start, authenticate",
        )
      const message = describeFault(parsed.error).slice(0, 300)
      return faults.answer(connection, "bad_message", message, requestOf(json))
    }
    metrics.frames.inc({ type: parsed.data.type })
    handle(connection, parsed.data)
  }

  function handle(connection: Connection, message: ClientMessage): void {
    if (message.type === "authenticate") return void authenticate(connection, message.token, message.request)
    if (connection.identity === undefined) return admission.prepare(connection, message)
    commands.handle(connection, message)
  }

  return {
    open(connection, parameters) {
      admission.open(connection, parameters)
      const [token] = parameters.tokens
      if (token !== undefined && !connection.closing) void authenticate(connection, token, undefined)
    },
    receive,
    forget(connection) {
      held.delete(connection)
      admission.forget(connection)
    },
  }
}

class HeldFrames {
  readonly texts: string[] = []
  #length = 0

  /** @returns false if too much is held already. */
  add(text: string): boolean {
    if (this.texts.length === MAX_HELD_FRAMES || this.#length >= MAX_HELD_LENGTH) return false
    this.texts.push(text)
    this.#length += text.length
    return true
  }
}

/**
 * Brings a connection to what the caller wants, by one request after another: each waits for the answer to the one
 * before, so that the relay has never much to keep, and so that it is clear what a refusal means.
 */

import type { ChannelRequest, Channels } from "./channels.ts"
import type { Clock } from "./clock.ts"
import { FeedError } from "./error.ts"
import type { Filter, FilterRequest } from "./filter.ts"
import type { ServerMessage } from "./messages.ts"
import type { Dispatch } from "./runtime.ts"
import type { Recovery } from "./state.ts"

export interface NegotiationDeps {
  channels: Channels
  filter: Filter
  clock: Clock
  dispatch: Dispatch
  send(message: object): void
}

type Asked =
  | { what: "channels"; request: ChannelRequest }
  | { what: "filter"; request: FilterRequest }
  | { what: "position" }

/** On the way to a position: no change is delivered until it is reached. */
interface Entry {
  as: "welcome" | "joined"
  /** Undefined: from now on. */
  cursor: string | undefined
  reached: Recovery
}

type ErrorMessage = Extract<ServerMessage, { type: "error" }>
type Subscribed = Extract<ServerMessage, { type: "subscribed" }>

/** The wait before what the relay was too busy for is asked for again. */
const AGAIN_MS = 1_000
/** As the relay cuts its list of refused channels. */
const LONGEST_LIST = 300

export class Negotiation {
  readonly #deps: NegotiationDeps
  #asked: Asked | undefined
  #requests = 0
  #entry: Entry | undefined
  #following = false
  #cancel = () => {}

  constructor(deps: NegotiationDeps) {
    this.#deps = deps
  }

  /** Some channel that was lost is back: what happened in it meanwhile is missing. */
  regained = false

  /** Asks for all that the connection lacks, and then for what has happened since the cursor. */
  enter(as: Entry["as"], cursor: string | undefined, now: string): void {
    this.#entry = { as, cursor, reached: { cursor: now, recovered: false, replayed: 0, reason: "no_cursor" } }
    this.proceed()
  }

  /** From now on it follows whatever the caller wants. */
  follow(): void {
    this.#following = true
    this.proceed()
  }

  /** Sends the next request, if there is one and no other waits for its answer. */
  proceed(): void {
    if (this.#asked !== undefined || !(this.#following || this.#entry)) return
    const { channels, filter } = this.#deps
    // What is asked for anew while no change is delivered must wait, unless all since a cursor follows.
    const all = this.#following || this.#entry?.as === "joined"
    const amendment = filter.next(this.#following)
    if (amendment?.whole)
      return this.#ask({ what: "filter", request: amendment }, { type: "subscribe", ...amendment.fields })
    const request = channels.next(all)
    if (request !== undefined) return this.#ask({ what: "channels", request }, request)
    if (amendment !== undefined)
      return this.#ask({ what: "filter", request: amendment }, { type: "subscribe", ...amendment.fields })
    const { cursor, reached } = this.#entry ?? {}
    if (cursor !== undefined)
      return this.#ask({ what: "position" }, { type: "subscribe", types: filter.types(), cursor })
    if (reached !== undefined) this.#reach(reached)
  }

  subscribed(message: Subscribed): void {
    const asked = this.#take(message.request)
    if (asked === undefined) return
    if (asked.what === "position") return this.#reach(message)
    if (asked.what === "filter") this.#deps.filter.granted(asked.request)
    else if (this.#deps.channels.granted(asked.request)) this.#regain()
    if (this.#entry !== undefined) this.#entry.reached.cursor = message.cursor
    else this.#deps.dispatch({ type: "checkpoint", cursor: message.cursor })
    this.proceed()
  }

  unsubscribed({ request, cursor }: Extract<ServerMessage, { type: "unsubscribed" }>): void {
    const asked = this.#take(request)
    if (asked?.what === "channels") this.#deps.channels.granted(asked.request)
    if (this.#entry !== undefined) this.#entry.reached.cursor = cursor
    else this.#deps.dispatch({ type: "checkpoint", cursor })
    this.proceed()
  }

  /** @returns whether the caller knows it already. */
  refused({ request, code, message }: ErrorMessage): boolean {
    const asked = this.#take(request)
    if (asked === undefined) return false
    const { channels, filter, dispatch } = this.#deps
    const error = new FeedError("relay", `${code}: ${message}`)
    if (asked.what === "position") {
      dispatch({ type: "join_refused", cause: error.message })
      return false
    }
    // Without it more would be delivered than was asked for.
    if (asked.what === "filter" && asked.request.whole) {
      dispatch({ type: "ended", code: code === "bad_message" ? 4501 : 4011, cause: error.message })
      return true
    }
    const repeated = asked.what === "channels" && channels.isRepeated(asked.request)
    if (code === "busy" || (code === "too_many_filters" && asked.what === "channels")) {
      this.#cancel = this.#deps.clock.setAlarm(AGAIN_MS, () => this.proceed())
      return repeated
    }
    if (asked.what === "channels")
      channels.refused(asked.request, code === "forbidden_channel" ? listOf(message) : [], error)
    else filter.refused(asked.request, error)
    this.proceed()
    return repeated
  }

  /** @returns the channels that were being asked for. */
  stop(): ChannelRequest | undefined {
    const asked = this.#asked
    this.#asked = undefined
    this.#entry = undefined
    this.#following = false
    this.#cancel()
    return asked?.what === "channels" ? asked.request : undefined
  }

  #ask(asked: Asked, message: object): void {
    this.#asked = asked
    // A text, because another parser may make something else of a number.
    this.#deps.send({ ...message, request: String(++this.#requests) })
  }

  #take(request: unknown): Asked | undefined {
    if (request !== String(this.#requests)) return undefined
    const asked = this.#asked
    this.#asked = undefined
    return asked
  }

  #reach({ cursor, recovered, replayed, reason }: Recovery): void {
    const as = this.#entry?.as ?? "joined"
    this.#entry = undefined
    this.#deps.dispatch({ type: as, cursor, recovered, replayed, reason })
    // What was loaded has all of it.
    if (as === "joined") this.regained = false
    this.settle()
  }

  #regain(): void {
    this.regained = true
    if (this.#entry === undefined) this.settle()
  }

  /** Tells of what is back. */
  settle(): void {
    if (!this.regained) return
    this.regained = false
    this.#deps.dispatch({ type: "regained" })
  }
}

/** The channels that the relay names. Where it cut the list, the last is left out. */
function listOf(message: string): string[] {
  const names = message.replace(/^.*?: /, "").split(", ")
  return message.length < LONGEST_LIST ? names : names.slice(0, -1)
}

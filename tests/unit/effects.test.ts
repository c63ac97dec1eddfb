/** The client between its neighbours, when they answer in an order that real networks rarely show. */

import { setImmediate as turn } from "node:timers/promises"
import t from "tap"
import { createChannels } from "../../client/channels.ts"
import { Connection } from "../../client/connection.ts"
import { Effects } from "../../client/effects.ts"
import { createEmitter } from "../../client/emitter.ts"
import type { FeedError } from "../../client/error.ts"
import { createFilter } from "../../client/filter.ts"
import type { Resync } from "../../client/options.ts"
import { Position, type SavedPosition } from "../../client/position.ts"
import { createRuntime } from "../../client/runtime.ts"
import type { WebSocketLike } from "../../client/socket.ts"
import type { State } from "../../client/state.ts"
import { type Deferred, deferred } from "../../relay/lib/deferred.ts"
import { FakeClock } from "../helpers/fake-clock.ts"

/** A socket whose events the test makes. Like a browser's, it calls whichever handlers are set when they happen. */
class FakeSocket implements WebSocketLike {
  onopen: WebSocketLike["onopen"] = null
  onmessage: WebSocketLike["onmessage"] = null
  onclose: WebSocketLike["onclose"] = null
  onerror: WebSocketLike["onerror"] = null
  readonly sent: Array<Record<string, unknown>> = []
  readonly closes: Array<number | undefined> = []

  send(data: string): void {
    this.sent.push(JSON.parse(data))
  }

  close(code?: number): void {
    this.closes.push(code)
  }

  opens(): void {
    this.onopen?.({})
  }

  receives(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) })
  }

  ends(code = 1006, reason = ""): void {
    this.onclose?.({ code, reason })
  }
}

const WELCOME = {
  type: "connection_success",
  user: "7",
  connection: "1",
  channels: ["election_updates"],
  cursor: "now",
  heartbeat_seconds: 20,
  expires_in: 3_600,
}
const RECOVERED = { ...WELCOME, recovered: true, replayed: 0, reason: null }
const STALE = { ...WELCOME, recovered: false, replayed: 0, reason: "no_cursor" }
const CHANGE = { type: "voting_update", action: "create", id: "1", data: {}, tx: { id: "1", last: true } }

/** The client, with fakes of its socket, page, storage and tokens. */
function build({ resync }: { resync?: Resync } = {}) {
  const clock = new FakeClock()
  const emitter = createEmitter()
  const channels = createChannels({ start: ["election_updates"], onDenied() {} })
  const filter = createFilter({})
  const position = new Position()
  const sockets: FakeSocket[] = []
  const asked: Deferred<string>[] = []
  const stored: Array<SavedPosition | undefined> = []
  const network = { online: true, watched: true }
  const tokens = {
    get() {
      const token = deferred<string>()
      asked.push(token)
      return token.promise
    },
    isFresh: () => true,
    accepted() {},
    postponed() {},
    invalidate() {},
    disconnected() {},
  }
  class WebSocket extends FakeSocket {
    constructor() {
      super()
      sockets.push(this)
    }
  }
  const parts = { clock, emitter, tokens, channels, filter }
  const effects = new Effects({
    ...parts,
    position,
    store: { read: () => undefined, write: (saved) => stored.push(saved) },
    page: {
      online: () => network.online,
      visible: () => true,
      start() {},
      stop() {
        network.watched = false
      },
    },
    resync,
    open: (...args) =>
      new Connection({ ...parts, address: "ws://relay/ws", WebSocket, parse: undefined }, ...args),
    diagnose: async () => "nobody knows",
  })
  const runtime = createRuntime({
    clock,
    effects,
    facts: () => ({
      chance: 0.5,
      online: network.online,
      visible: true,
      hook: resync !== undefined,
      renewable: true,
      fresh: true,
      blank: effects.isBlank(),
      now: clock.wall(),
    }),
  })
  const emitted: string[] = []
  const errors: FeedError[] = []
  for (const name of ["change", "derived", "message", "resync"]) emitter.on(name, () => emitted.push(name))
  emitter.on("state", ({ kind }: State) => emitted.push(kind))
  emitter.on("error", (error: FeedError) => errors.push(error))
  return {
    clock,
    channels,
    position,
    effects,
    runtime,
    network,
    sockets,
    asked,
    stored,
    emitted,
    errors,
    start() {
      runtime.dispatch({ type: "start" })
    },
    /** The one that was opened last. */
    socket: () => sockets.at(-1) as FakeSocket,
    /** Answers the last question for a token. */
    async token() {
      asked.at(-1)?.resolve("t")
      await turn()
    },
    goOffline() {
      network.online = false
      runtime.dispatch({ type: "offline" })
    },
    goOnline() {
      network.online = true
      runtime.dispatch({ type: "online" })
    },
  }
}

/** The same, with a socket that is not open yet. */
async function opening(options: Parameters<typeof build>[0] = {}) {
  const client = build(options)
  client.start()
  await client.token()
  return client
}

// ------------------------------------------------------------------------------------------- closed by the caller

t.test("a token that arrives after close() opens no socket", async (t) => {
  const { start, runtime, token, sockets, clock, emitted, network } = build()
  start()
  runtime.close()
  await token()
  t.equal(sockets.length, 0)
  t.same(emitted, ["authenticating", "closed"])
  t.same(clock.alarms, [], "nothing is waited for")
  t.equal(network.watched, false)
})

t.test("a token that fails after close() is nobody's error", async (t) => {
  const { start, runtime, asked, errors } = build()
  start()
  runtime.close()
  asked[0]?.reject(new Error("away"))
  await turn()
  t.same(errors, [])
})

t.test("a socket that opens after close() is closed, and what it receives is dropped", async (t) => {
  const { runtime, socket, clock, emitted } = await opening()
  runtime.close()
  t.same(socket().closes, [1000])
  socket().opens()
  socket().receives(RECOVERED)
  socket().receives({ type: "dashboard_update", channel: "election_updates", data: {} })
  socket().ends(1000)
  t.same(emitted, ["authenticating", "opening", "closed"])
  t.same(socket().sent, [])
  t.same(clock.alarms, [], "neither for an answer nor for the next frame")
})

t.test("close() while the hook runs aborts it, and what it returns is dropped", async (t) => {
  for (const end of ["resolve", "reject"] as const) {
    const loading = deferred<{ cursor: string }>()
    const signals: AbortSignal[] = []
    const { runtime, socket, clock, emitted, errors } = await opening({
      resync({ signal }) {
        signals.push(signal)
        return loading.promise
      },
    })
    socket().receives(STALE)
    clock.pass(0)
    socket().receives(CHANGE)
    runtime.close()
    t.equal(signals[0]?.aborted, true)
    if (end === "resolve") loading.resolve({ cursor: "loaded" })
    else loading.reject(new Error("aborted"))
    await turn()
    t.same(socket().sent, [], "the relay is asked for nothing")
    t.same(emitted, ["authenticating", "opening", "resync", "stale", "loading", "closed"], end)
    t.same(errors, [])
  }
})

t.test("what an aborted hook returns is dropped, also while the next one runs", async (t) => {
  const loads: Deferred<{ cursor: string }>[] = []
  const { runtime, socket, clock, token, stored } = await opening({
    resync() {
      loads.push(deferred())
      return (loads.at(-1) as Deferred<{ cursor: string }>).promise
    },
  })
  socket().receives(STALE)
  clock.pass(0)
  socket().ends()
  clock.pass(20_000)
  await token()
  socket().receives(STALE)
  clock.pass(0)
  t.equal(loads.length, 3, "it ran meanwhile too, so that there is something to show")
  loads[0]?.resolve({ cursor: "too old" })
  loads[1]?.resolve({ cursor: "too old" })
  await turn()
  t.equal(runtime.state.kind, "loading")
  loads[2]?.resolve({ cursor: "loaded" })
  await turn()
  t.match(socket().sent, [{ type: "subscribe", cursor: "loaded" }])
  t.same(stored.at(-1), { cursor: "loaded", ids: [] })
})

t.test("close() by the hook itself, before it returns", async (t) => {
  const client = await opening({
    async resync({ signal }) {
      client.runtime.close()
      t.equal(signal.aborted, false, "the load has only begun")
      return { cursor: "loaded" }
    },
  })
  client.socket().receives(STALE)
  client.clock.pass(0)
  await turn()
  t.equal(client.runtime.state.kind, "closed")
  t.same(client.socket().sent, [])
  t.same(client.emitted.slice(-2), ["loading", "closed"])
})

t.test("close() rejects the channels that were asked for, at once and later", async (t) => {
  const { runtime, channels, effects, socket } = await opening()
  socket().receives(RECOVERED)
  const asked = channels.add(["committee:1"])
  effects.reconcile()
  t.match(socket().sent, [{ type: "subscribe", channels: ["committee:1"] }])
  runtime.close()
  await t.rejects(asked, { code: "refused", message: "closed by the caller" })
  await t.rejects(channels.add(["committee:2"]), { code: "refused" })
  effects.reconcile()
  t.equal(socket().sent.length, 1)
})

// ------------------------------------------------------------------------------------------- ended by the relay

t.test("frames after the end of a connection belong to nobody", async (t) => {
  const { runtime, socket, clock, emitted } = await opening()
  socket().receives(RECOVERED)
  socket().receives(CHANGE)
  socket().ends()
  const { kind, attempt } = runtime.state
  t.equal(kind, "waiting")
  const known = emitted.length
  const alarms = clock.alarms
  socket().receives({ ...CHANGE, id: "2" })
  socket().receives({ type: "dashboard_update", channel: "election_updates", data: {} })
  socket().receives({ type: "error", code: "busy", message: "x" })
  socket().ends()
  t.same(emitted.slice(known), [])
  t.same([runtime.state.attempt, clock.alarms], [attempt, alarms], "the second end counts as none")
  t.equal(alarms.length, 1, "nor is it watched any more")
})

t.test("a connection that was given up says nothing to the next", async (t) => {
  const { runtime, sockets, goOffline, goOnline, token, emitted } = await opening()
  goOffline()
  goOnline()
  await token()
  t.equal(sockets.length, 2)
  sockets[0]?.opens()
  sockets[0]?.receives(RECOVERED)
  sockets[0]?.ends(4507)
  t.equal(runtime.state.kind, "opening")
  sockets[1]?.receives(RECOVERED)
  t.same(emitted.slice(-2), ["opening", "live"])
})

t.test("an answer to a request of the connection before settles nothing on the next", async (t) => {
  const { channels, effects, sockets, clock, token } = await opening()
  sockets[0]?.receives(RECOVERED)
  let live = false
  void channels.add(["committee:1"]).then(() => {
    live = true
  })
  effects.reconcile()
  sockets[0]?.ends()
  clock.pass(20_000)
  await token()
  effects.reconcile()
  t.same(sockets[1]?.sent, [], "nothing is asked before the relay has welcomed it")
  sockets[1]?.receives(RECOVERED)
  await turn()
  t.equal(live, false)
  t.match(sockets[1]?.sent, [{ type: "subscribe", channels: ["committee:1"] }])
  sockets[1]?.receives({
    ...RECOVERED,
    type: "subscribed",
    channels: ["committee:1"],
    request: sockets[1]?.sent[0]?.request,
  })
  await turn()
  t.equal(live, true)
})

t.test("a token that may not have the user's own channel is of another user", async (t) => {
  const { runtime, channels, effects, sockets, clock, token, errors } = await opening()
  sockets[0]?.receives(RECOVERED)
  channels.remove(["election_updates"])
  effects.reconcile()
  sockets[0]?.ends()
  clock.pass(20_000)
  await token()
  sockets[1]?.ends(4507, "channel not allowed: user:7")
  t.match(runtime.state, { kind: "closed", cause: /of another user/ })
  t.match(errors.at(-1), { code: "refused" })
})

// ------------------------------------------------------------------------------------------- time and the page

t.test("a token that is slow is waited for, and told", async (t) => {
  const { start, runtime, asked, sockets, token, clock, errors } = build()
  start()
  clock.pass(15_000)
  t.match(runtime.state, { kind: "authenticating", attempt: 0, cause: /has not answered/ })
  t.match(errors, [{ code: "token" }])
  clock.pass(3_600_000)
  runtime.dispatch({ type: "online" })
  runtime.dispatch({ type: "visible" })
  t.equal(asked.length, 1, "nobody asks a second time")
  t.equal(errors.length, 1)
  await token()
  t.equal(sockets.length, 1)
})

t.test("the alarm of a state that is over does not ring", async (t) => {
  const { start, runtime, asked, clock } = build()
  start()
  clock.pass(14_900)
  asked[0]?.reject(new Error("away"))
  await turn()
  t.equal(clock.alarms.length, 1)
  clock.pass(200)
  t.match(runtime.state, { kind: "waiting", attempt: 1, cause: "no token: away" })
})

t.test("an alarm that rings late, after a sleep, finds what has happened meanwhile", async (t) => {
  const { runtime, socket, clock, asked } = await opening()
  socket().receives(RECOVERED)
  clock.pass(29_000)
  socket().receives({ type: "ping" })
  clock.sleep(3_600_000)
  t.equal(runtime.state.kind, "live", "nothing runs while the machine sleeps")
  clock.pass(1_000)
  t.equal(runtime.state.kind, "authenticating", "the connection is taken for dead")
  t.equal(asked.length, 2)
})

t.test("a page that goes offline while a token is fetched opens no socket with it", async (t) => {
  const { start, runtime, asked, sockets, goOffline, goOnline } = build()
  start()
  goOffline()
  asked[0]?.resolve("first")
  await turn()
  t.equal(runtime.state.kind, "offline")
  t.equal(sockets.length, 0)
  goOnline()
  t.equal(asked.length, 2)
  goOffline()
  goOnline()
  t.equal(asked.length, 3)
  asked[1]?.resolve("second")
  await turn()
  t.equal(runtime.state.kind, "authenticating", "the answer to an earlier question is dropped")
  asked[2]?.resolve("third")
  await turn()
  t.equal(sockets.length, 1)
})

t.test("while the state is loaded no position is stored, so that a reload loads it too", async (t) => {
  const loading = deferred<{ cursor: string }>()
  const { start, token, socket, clock, position, stored } = build({ resync: () => loading.promise })
  position.move("before")
  start()
  await token()
  socket().receives(STALE)
  clock.pass(0)
  socket().receives(CHANGE)
  socket().receives({ type: "checkpoint", cursor: "later" })
  t.same(stored, [undefined])
  loading.resolve({ cursor: "loaded" })
  await turn()
  t.same(stored, [undefined, { cursor: "loaded", ids: [] }])
})

t.test("what is loaded before there is a connection is gone on from, and not loaded again", async (t) => {
  const loads: Deferred<{ cursor: string }>[] = []
  const reasons: string[] = []
  const { start, token, sockets, socket, clock, emitted, asked } = build({
    resync({ reason }) {
      reasons.push(reason)
      loads.push(deferred())
      return (loads.at(-1) as Deferred<{ cursor: string }>).promise
    },
  })
  start()
  await token()
  socket().ends()
  t.same(reasons, ["unreachable"])
  clock.pass(20_000)
  await token()
  t.equal(loads.length, 1)
  loads[0]?.resolve({ cursor: "loaded" })
  await turn()
  socket().receives(STALE)
  t.match(socket().sent, [{ type: "subscribe", cursor: "loaded" }], "the URL was made before it was there")
  socket().receives({
    ...RECOVERED,
    type: "subscribed",
    channels: [],
    cursor: "loaded",
    request: socket().sent[0]?.request,
  })
  t.equal(emitted.at(-1), "live")
  t.equal(emitted.includes("resync"), false)
  t.same([sockets.length, asked.length, loads.length], [2, 2, 1])
})

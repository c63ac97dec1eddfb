/** The whole client on a model of the relay, in random orders of everything that can happen to it: the rules of CLIENT.md. */

import assert from "node:assert/strict"
import { setImmediate as turn } from "node:timers/promises"
import fc from "fast-check"
import t from "tap"
import { createChannels } from "../../client/channels.ts"
import { Connection } from "../../client/connection.ts"
import { Effects } from "../../client/effects.ts"
import { createEmitter } from "../../client/emitter.ts"
import { createFilter } from "../../client/filter.ts"
import { Position } from "../../client/position.ts"
import { createRuntime } from "../../client/runtime.ts"
import type { State } from "../../client/state.ts"
import { createPositionStore } from "../../client/storage.ts"
import { createTokens } from "../../client/token.ts"
import { type Deferred, deferred } from "../../relay/lib/deferred.ts"
import { FakeClock } from "../helpers/fake-clock.ts"
import { createModelRelay, modelToken } from "../helpers/model-relay.ts"

/** Allowed to every token, and never unsubscribed: what came of it must be the log. */
const KEPT = "c:1"
const OTHERS = ["c:2", "c:3", "c:2,x", "c:3,y"]
const EVERYTHING = [1, 2, 3]

class Start {
  readonly start: readonly string[]

  constructor(start: readonly string[]) {
    this.start = start
  }
}

class World extends Start {
  readonly clock = new FakeClock()
  readonly relay = createModelRelay()
  readonly emitter = createEmitter()
  readonly channels = createChannels({
    start: this.start,
    onDenied: (denied) => this.emitter.emit("channels", { denied }),
  })
  readonly filter = createFilter({})
  readonly position = new Position()
  readonly items = new Map<string, string>()
  isStorageFull = false
  network = { online: true, visible: true }
  asked: Deferred<string>[] = []
  loads: Array<{ done: Deferred<{ cursor: string } | undefined>; length: number; signal: AbortSignal }> = []
  tokens = createTokens({
    token: undefined,
    getToken: () => {
      if (this.asked.length > 0) this.faults.push("getToken is called twice at a time")
      this.asked.push(deferred())
      return (this.asked[0] as Deferred<string>).promise
    },
    clock: this.clock,
    onFailure: () => {},
  })
  /** Why it may be closed. */
  mayClose = new Set<string>()
  /** Whose tokens there are from now on; undefined: of the user of the feed. */
  user: string | undefined
  /** What an assertion would say where the client calls back: it lives with whatever is thrown there. */
  faults: string[] = []
  /** Promises of the caller that are not settled. */
  open = 0
  base: number | undefined
  delivered: string[] = []
  answers = 0
  reacts: (() => void) | undefined

  readonly effects = new Effects({
    clock: this.clock,
    emitter: this.emitter,
    tokens: this.tokens,
    channels: this.channels,
    filter: this.filter,
    position: this.position,
    store: createPositionStore({
      open: () => {
        if (this.isStorageFull) throw new Error("full")
        return {
          getItem: (key) => this.items.get(key) ?? null,
          setItem: (key, value) => this.items.set(key, value),
          removeItem: (key) => this.items.delete(key),
        }
      },
      key: (user) => user,
      onFailure: () => {},
    }),
    page: { online: () => this.network.online, visible: () => this.network.visible, start() {}, stop() {} },
    resync: ({ signal }) => {
      this.loads.push({ done: deferred(), length: this.relay.log.length, signal })
      return (this.loads.at(-1) as World["loads"][number]).done.promise
    },
    open: (...args) =>
      new Connection(
        {
          clock: this.clock,
          emitter: this.emitter,
          tokens: this.tokens,
          channels: this.channels,
          filter: this.filter,
          address: "ws://relay/ws",
          WebSocket: this.relay.WebSocket,
          parse: undefined,
        },
        ...args,
      ),
    diagnose: async () => "nobody knows",
  } as ConstructorParameters<typeof Effects>[0])
  readonly runtime = createRuntime({
    clock: this.clock,
    effects: this.effects,
    facts: () => ({
      chance: 0.5,
      ...this.network,
      hook: true,
      renewable: true,
      fresh: this.tokens.isFresh(),
      blank: this.effects.isBlank(),
      now: this.clock.wall(),
    }),
  })

  constructor(start: readonly string[]) {
    super(start)
    this.emitter.on("error", () => {})
    this.emitter.on("state", (state: State) => {
      if (state.kind === "closed" && this.mayClose.size === 0) this.faults.push(`closed: ${state.cause}`)
      this.reacts?.()
    })
    this.emitter.on("change", ({ id, channel }: { id: string; channel: string }) => {
      if (channel === KEPT) this.delivered.push(id)
      this.reacts?.()
    })
    this.runtime.dispatch({ type: "start" })
  }

  subscribe(channels: string[]): void {
    this.open++
    const done = () => {
      this.open--
    }
    this.channels.add(channels).then(() => {
      done()
      const [socket] = this.relay.open()
      if (socket === undefined) return
      const isThere = (channel: string) =>
        socket.channels.has(channel) || !this.channels.held().includes(channel)
      if (!channels.every(isThere)) this.faults.push(`${channels} were granted, and are not there`)
    }, done)
    this.effects.reconcile()
  }

  amend(types: readonly string[] | null): void {
    this.open++
    const done = () => {
      this.open--
    }
    this.filter.amend({ types }).then(done, done)
    this.effects.reconcile()
  }

  answer(token: string | Error): void {
    const [call] = this.asked.splice(0)
    if (token instanceof Error) call?.reject(token)
    else call?.resolve(token)
  }

  /** What the hook has read, or its failure. */
  load(fails: boolean): void {
    const load = this.loads.shift()
    if (load === undefined) return
    if (fails) return load.done.reject(new Error("away"))
    if (!load.signal.aborted) {
      this.base = load.length
      this.delivered = []
    }
    load.done.resolve({ cursor: String(load.length) })
  }

  /** What happens next by itself, where all is well. */
  async settle(): Promise<void> {
    for (let i = 0; i < 100; i++) {
      const [socket] = this.relay.open()
      while (socket?.proceed() || socket?.receive());
      this.answer(modelToken(this.user ?? this.channels.user ?? "a", EVERYTHING, ++this.answers))
      this.load(false)
      await turn()
      if (!this.relay.open()[0] || this.runtime.state.kind !== "live" || this.open > 0) {
        socket?.checkpoint()
        this.clock.pass(1_000)
      }
    }
  }
}

type Action = [name: string, n: number]
const often = (weight: number, ...names: string[]) => ({ arbitrary: fc.constantFrom(...names), weight })
const action = fc.tuple(
  fc.oneof(
    often(60, "relay", "receive"),
    often(20, "token", "load", "write", "second"),
    often(12, "subscribe", "unsubscribe", "filter", "minute", "checkpoint"),
    often(8, "cut", "html", "reject", "fail to load", "react", "throw", "calm", "full", "free"),
    often(6, "offline", "online", "hide", "visible", "pagehide", "pageshow", "drain", "too many", "slow"),
    often(1, "bad token", "other user", "revoke", "close", "wrong filter"),
  ),
  fc.nat(1_000),
)

/** In these the client itself may end a connection that is good: it is told to, or finds it silent. */
const MAY_LET_GO = ["offline", "pagehide", "close", "minute", "second", "receive"]

function act(world: World, [name, n]: Action): void {
  const { relay, runtime, network } = world
  const [socket] = relay.open()
  const other = OTHERS[n % OTHERS.length] as string
  const end = (code: number, reason: string) => socket?.accepted && socket.cut(code, reason)
  const acts: Record<string, () => unknown> = {
    relay: () => socket?.proceed(),
    receive: () => socket?.receive(),
    checkpoint: () => socket?.checkpoint(),
    write: () => relay.write([KEPT, ...OTHERS][n % 5] as string),
    second: () => world.clock.pass(1_000),
    minute: () => world.clock.pass(60_000),
    token: () => world.answer(modelToken("a", [1, 2, 3].slice(0, 1 + (n % 3)), ++world.answers)),
    html: () => world.answer("<html>502</html>"),
    reject: () => world.answer(new Error("away")),
    load: () => world.load(false),
    "fail to load": () => world.load(true),
    subscribe: () => world.subscribe(n % 2 === 0 ? [other] : [other, OTHERS[(n >> 2) % 4] as string]),
    unsubscribe: () => {
      world.channels.remove([other])
      world.effects.reconcile()
    },
    filter: () => world.amend(n % 2 === 0 ? null : ["update", "a,b"]),
    "wrong filter": () => world.amend({} as string[]),
    cut: () => socket?.cut(),
    drain: () => end(4000, "the relay is stopping"),
    "too many": () => end(4504, "too many connections: a newer one took the place"),
    slow: () => end(4008, "slow consumer"),
    react: () => {
      world.reacts = () => world.subscribe([other])
    },
    throw: () => {
      world.reacts = () => {
        throw new Error("no room")
      }
    },
    calm: () => {
      world.reacts = undefined
    },
    full: () => {
      world.isStorageFull = true
    },
    free: () => {
      world.isStorageFull = false
    },
    offline: () => {
      network.online = false
      runtime.dispatch({ type: "offline" })
    },
    online: () => {
      network.online = true
      runtime.dispatch({ type: "online" })
    },
    hide: () => {
      network.visible = false
      world.effects.savePosition()
    },
    visible: () => {
      network.visible = true
      world.effects.checkConnection()
      runtime.dispatch({ type: "visible" })
    },
    pagehide: () => runtime.dispatch({ type: "pagehide" }),
    pageshow: () => runtime.dispatch({ type: "pageshow" }),
    "bad token": () => {
      if (world.asked.length > 0) world.mayClose.add("bad token")
      world.answer(modelToken("bad", [], ++world.answers))
    },
    "other user": () => {
      if (world.asked.length > 0) world.mayClose.add("other user")
      world.answer(modelToken("b", EVERYTHING, ++world.answers))
    },
    revoke: () => {
      if (socket?.accepted) world.mayClose.add("revoked")
      end(4507, "revoked")
    },
    close: () => {
      world.mayClose.add("closed")
      runtime.close()
    },
  }
  acts[name]?.()
  assert.deepEqual(world.faults, [])
  assert.ok(relay.open().length <= 1, "one connection at a time")
  if (socket?.accepted && socket.ended === "client") assert.ok(MAY_LET_GO.includes(name), `let go at ${name}`)
  assert.ok(runtime.state.cause !== "" && runtime.state.since <= world.clock.wall(), "what a person is shown")
}

/** Whatever it has gone through, a feed never takes another user for its own. */
async function closesForAnother(world: World): Promise<void> {
  world.mayClose.add("another")
  world.user = world.channels.user === "a" ? "b" : "a"
  world.clock.sleep(1_000_000)
  world.relay.open()[0]?.cut()
  await world.settle()
  assert.equal(world.runtime.state.kind, "closed")
}

t.test("in any order of events it keeps what is promised, and is live once it can be", async (t) => {
  let live = 0
  let came = 0
  const start = fc.constantFrom([KEPT], [KEPT, "c:2"], [KEPT, "c:2,x"])
  const actions = fc.array(action, { minLength: 30, maxLength: 150, size: "max" })
  const property = fc.asyncProperty(start, actions, async (start, steps) => {
    const world = new World(start)
    for (const step of steps) {
      act(world, step)
      await turn()
    }
    for (const name of ["calm", "free", "online", "visible", "pageshow"]) act(world, [name, 0])
    await world.settle()
    // The next token allows everything.
    world.clock.sleep(1_000_000)
    world.relay.open()[0]?.cut()
    for (let n = 0; n < 3; n++) world.relay.write(KEPT)
    await world.settle()
    assert.deepEqual(world.faults, [])
    assert.equal(world.open, 0, "no promise stays pending")
    const { state } = world.runtime
    if (state.kind === "closed") return
    live++
    came += world.delivered.length
    assert.equal(state.kind, "live", JSON.stringify(state))
    const [socket] = world.relay.open()
    assert.deepEqual([...(socket?.channels ?? [])].sort(), [...world.channels.held()].sort())
    const expected = world.relay.log.slice(world.base).filter(({ channel }) => channel === KEPT)
    assert.deepEqual(
      world.delivered,
      expected.map(({ id }) => id),
      "each change since the state was loaded, once and in order",
    )
    await closesForAnother(world)
  })
  await t.resolves(fc.assert(property, { numRuns: 300 }))
  t.ok(live > 100 && came > 300, `the runs get somewhere: ${live} live, ${came} changes`)
})

/** The client's states: every pair of state and event, and what holds whatever happens. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t from "tap"
import { INITIAL, transition } from "../../client/machine.ts"
import { Position } from "../../client/position.ts"
import type { Effect, Event, Facts, Kind, State } from "../../client/state.ts"
import type { ChangeMessage } from "../../relay/protocol/server-message.ts"

const NOW = 1_800_000_000_000
const FACTS: Facts = {
  chance: 0.5,
  online: true,
  visible: true,
  hook: true,
  renewable: true,
  fresh: true,
  blank: false,
  now: NOW,
}
const tries = { attempt: 3, refused: false }
const shown = { cause: "x", since: 1 }
const stale = { reason: "lineage", from: "from", failures: 2 } as const

const STATES: { [K in Kind]: Extract<State, { kind: K }> } = {
  idle: { kind: "idle", ...tries, ...shown },
  authenticating: { kind: "authenticating", ...tries, ...shown },
  opening: { kind: "opening", ...tries, ...shown },
  catching_up: { kind: "catching_up", ...tries, ...shown },
  live: { kind: "live", ...tries, ...shown },
  stale: { kind: "stale", ...tries, ...shown, ...stale },
  loading: { kind: "loading", ...tries, ...shown, ...stale, overflowed: false },
  joining: { kind: "joining", ...tries, ...shown, ...stale },
  waiting: { kind: "waiting", ...tries, ...shown, delayMs: 1 },
  offline: { kind: "offline", ...tries, ...shown, delayMs: 1 },
  suspended: { kind: "suspended", ...tries, ...shown },
  closed: { kind: "closed", ...tries, ...shown },
}

const change: ChangeMessage = {
  type: "voting_update",
  action: "leave",
  id: "1",
  at: "2026-11-03T20:54:56Z",
  table: "public.vote",
  key: { id: 1 },
  tx: { id: "1", last: true },
}
const recovered = { cursor: "c", recovered: true, replayed: null, reason: null }
const lost = { cursor: "c", recovered: false, replayed: 0, reason: "lineage" } as const

/** Each event, where it matters in several forms. */
const EVENTS = {
  start: { type: "start" },
  token: { type: "token", token: "t" },
  token_failed: { type: "token_failed", cause: "x" },
  unusable: { type: "unusable", cause: "x" },
  "welcome recovered": { type: "welcome", ...recovered },
  "welcome lost": { type: "welcome", ...lost },
  change: { type: "change", change },
  "change oversize": {
    type: "change",
    change: { ...change, action: "update", data: null, oversize: true, channels: [] },
  },
  checkpoint: { type: "checkpoint", cursor: "c" },
  "checkpoint replayed": { type: "checkpoint", cursor: "c", replayed: 0 },
  "ended 1006": { type: "ended", code: 1006, cause: "x" },
  "ended 4500": { type: "ended", code: 4500, cause: "x" },
  "ended 4501": { type: "ended", code: 4501, cause: "closed with 4501: where: not JSON" },
  "ended 4505": { type: "ended", code: 4505, cause: "closed with 4505: too many channels" },
  "ended 4507": { type: "ended", code: 4507, cause: "closed with 4507: revoked" },
  "ended 4507 channel": {
    type: "ended",
    code: 4507,
    cause: "closed with 4507: channel not allowed: committee:2",
  },
  alive: { type: "alive" },
  silent: { type: "silent" },
  timer: { type: "timer" },
  "loaded with a cursor": { type: "loaded", cursor: "c" },
  "loaded without": { type: "loaded", cursor: undefined },
  load_failed: { type: "load_failed" },
  overflow: { type: "overflow" },
  "joined recovered": { type: "joined", ...recovered },
  "joined lost": { type: "joined", ...lost },
  join_refused: { type: "join_refused", cause: "x" },
  regained: { type: "regained" },
  other_user: { type: "other_user" },
  online: { type: "online" },
  offline: { type: "offline" },
  visible: { type: "visible" },
  pagehide: { type: "pagehide" },
  pageshow: { type: "pageshow" },
  close: { type: "close" },
} as const satisfies Record<string, Event>
type Named = keyof typeof EVENTS
/** An event that the list has forgotten does not compile. */
true satisfies Event["type"] extends (typeof EVENTS)[Named]["type"] ? true : false

/** With a socket that is to be put away. */
const CONNECTED = {
  other_user: "closed: disconnect fail",
  offline: "offline: disconnect timer",
  pagehide: "suspended: disconnect",
  close: "closed: disconnect",
}
const ENDING = {
  "ended 1006": "waiting: disconnect timer",
  "ended 4500": "waiting: disconnect timer invalidate_token",
  "ended 4501": "waiting: doubt disconnect timer",
  "ended 4505": "waiting: doubt disconnect timer",
  "ended 4507": "closed: disconnect fail",
  "ended 4507 channel": "waiting: doubt disconnect timer",
}
/** What is loaded before there is a connection. */
const SHOWING = { "loaded with a cursor": "same: move" }
const SILENT = { silent: "authenticating: disconnect get_token timer" }
const HOLDING = {
  change: "same: hold",
  "change oversize": "same: hold",
  checkpoint: "same: hold",
  "checkpoint replayed": "same: hold",
}
const dropping = <T extends Record<string, string>>(row: T, ...more: string[]): T =>
  Object.fromEntries(
    Object.entries(row).map(([event, outcome]) => [
      event,
      outcome.replace("disconnect", ["disconnect", ...more].join(" ")),
    ]),
  ) as T

/** What becomes of a state at an event, and in which order what is done. All that is not here changes nothing. */
const EXPECTED: Record<Kind, Partial<Record<Named, string>>> = {
  idle: {
    start: "authenticating: get_token timer",
    close: "closed:",
  },
  authenticating: {
    token: "opening: open timer",
    token_failed: "waiting: timer",
    timer: "authenticating: fail",
    ...SHOWING,
    offline: "offline: timer",
    pagehide: "suspended:",
    close: "closed:",
  },
  opening: {
    "welcome recovered": "catching_up: rename",
    "welcome lost": "stale: emit_resync forget timer",
    unusable: "waiting: disconnect timer",
    join_refused: "waiting: disconnect timer",
    alive: "opening: timer",
    ...SHOWING,
    timer: "waiting: disconnect timer",
    ...ENDING,
    ...CONNECTED,
  },
  catching_up: {
    change: "same: deliver",
    "change oversize": "stale: deliver emit_resync timer",
    checkpoint: "same: move",
    "checkpoint replayed": "live: move timer reconcile",
    regained: "stale: emit_resync timer",
    ...ENDING,
    ...SILENT,
    ...CONNECTED,
  },
  live: {
    change: "same: deliver",
    "change oversize": "stale: deliver emit_resync timer",
    checkpoint: "same: move",
    "checkpoint replayed": "same: move",
    regained: "stale: emit_resync timer",
    timer: "live:",
    ...ENDING,
    ...SILENT,
    ...CONNECTED,
  },
  stale: {
    ...HOLDING,
    overflow: "same: discard",
    timer: "loading: load",
    ...dropping({ ...ENDING, ...SILENT, ...CONNECTED }, "discard"),
  },
  loading: {
    ...HOLDING,
    overflow: "loading: discard",
    regained: "loading: discard",
    "loaded with a cursor": "joining: discard move join",
    "loaded without": "live: move release timer reconcile",
    load_failed: "stale: timer",
    ...dropping({ ...ENDING, ...SILENT, ...CONNECTED }, "abort_load", "discard"),
  },
  joining: {
    "joined recovered": "catching_up: rename",
    "joined lost": "stale: forget timer fail",
    join_refused: "waiting: disconnect timer",
    ...ENDING,
    ...SILENT,
    ...CONNECTED,
  },
  waiting: {
    ...SHOWING,
    timer: "authenticating: get_token timer",
    online: "authenticating: get_token timer",
    visible: "authenticating: get_token timer",
    offline: "offline: timer",
    pagehide: "suspended:",
    close: "closed:",
  },
  offline: {
    ...SHOWING,
    timer: "authenticating: get_token timer",
    online: "authenticating: get_token timer",
    pagehide: "suspended:",
    close: "closed:",
  },
  suspended: {
    pageshow: "authenticating: get_token timer",
    close: "closed:",
  },
  closed: {},
}

const kinds = Object.keys(STATES) as Kind[]
const names = Object.keys(EVENTS) as Named[]
const outcome = (before: State, [after, effects]: readonly [State, readonly Effect[]]): string =>
  [after === before ? "same:" : `${after.kind}:`, ...effects.map((effect) => effect.do)].join(" ")

t.test("every state knows what to do at every event", async (t) => {
  for (const kind of kinds) {
    const found = Object.fromEntries(
      names.map((name) => [name, outcome(STATES[kind], transition(STATES[kind], EVENTS[name], FACTS))]),
    )
    const expected = Object.fromEntries(names.map((name) => [name, EXPECTED[kind][name] ?? "same:"]))
    t.same(found, expected, kind)
  }
})

const step = (state: State, event: Event, facts: Partial<Facts> = {}) =>
  transition(state, event, { ...FACTS, ...facts })
const delayOf = ([, effects]: readonly [State, readonly Effect[]]) =>
  effects.find((effect) => effect.do === "timer")?.ms

t.test("without a hook it goes live at once, and says what is missing", async (t) => {
  const [state, effects] = step(STATES.opening, EVENTS["welcome lost"], { hook: false })
  t.equal(state.kind, "live")
  t.same(effects.slice(0, 2), [
    { do: "emit_resync", reason: "lineage" },
    { do: "move", cursor: "c" },
  ])
})

t.test("a change that cannot be applied is a reason to load, for everybody at once", async (t) => {
  const about = { ...change, channels: [] }
  const row = { ...about, key: {}, data: {} }
  const lost = { ...row, data: null, oversize: true } as const
  const cases: [change: ChangeMessage, reason: string | undefined][] = [
    [{ ...about, action: "bulk_load" }, "bulk_load"],
    [{ ...about, action: "bulk_load", operation: "insert", rows: 1, partition: "p" }, "bulk_load"],
    [{ ...about, action: "truncate", partition: "p" }, "truncate"],
    [{ ...about, action: "truncate" }, undefined],
    [{ ...lost, action: "create" }, "oversize"],
    [{ ...lost, action: "update" }, "oversize"],
    [{ ...lost, action: "delete" }, undefined],
    [{ ...row, action: "create" }, undefined],
    [{ ...row, action: "update", changed: [], before: {} }, undefined],
    [{ ...row, action: "delete" }, undefined],
    [change, undefined],
  ]
  for (const kind of ["live", "catching_up"] as const) {
    for (const [one, reason] of cases) {
      const event: Event = { type: "change", change: one }
      const delivery = { do: "deliver", change: one }
      const what = `${kind}: ${one.action} ${reason}`
      if (reason === undefined) {
        t.same(step(STATES[kind], event), [STATES[kind], [delivery]], what)
        continue
      }
      const notice = { do: "emit_resync", reason }
      t.same(step(STATES[kind], event, { hook: false }), [STATES[kind], [delivery, notice]], what)
      const cause = `the state has to be loaded (${reason})`
      const stale = { kind: "stale", ...tries, reason, from: undefined, failures: 0, cause, since: NOW }
      const delay = { do: "timer", ms: 1_500 }
      t.same(step(STATES[kind], event), [stale, [delivery, notice, delay]], what)
    }
  }
  t.same(
    step({ ...STATES.loading, from: undefined }, EVENTS["loaded without"])[1].map((effect) => effect.do),
    ["release", "timer", "reconcile"],
    "the position stays until a checkpoint comes",
  )
})

t.test("a replay that has nothing to bring is live at once", async (t) => {
  const [state] = step(STATES.opening, { type: "welcome", ...recovered, replayed: 0 })
  t.equal(state.kind, "live")
  t.equal(step(STATES.joining, { type: "joined", ...recovered, replayed: 0 })[0].kind, "live")
})

t.test("delays are spread from half a second to twenty", async (t) => {
  const at = (attempt: number, chance: number) =>
    delayOf(step({ ...STATES.opening, attempt }, EVENTS["ended 1006"], { chance }))
  t.same(
    [at(0, 0), at(0, 1), at(3, 0), at(3, 1), at(20, 0), at(20, 0.5), at(2_000, 1)],
    [500, 1_000, 500, 4_500, 500, 10_500, 20_000],
  )
})

t.test("an attempt counts until the connection was live for a while", async (t) => {
  let [state] = step(STATES.opening, EVENTS["ended 1006"])
  t.equal(state.attempt, 4)
  state = step(STATES.opening, { type: "welcome", ...recovered, replayed: 0 })[0]
  t.equal(state.attempt, 3)
  t.equal(step(state, EVENTS.timer)[0].attempt, 0)
})

t.test("what closes every client spreads their return from nothing on", async (t) => {
  for (const code of [1001, 1012, 4000, 4010]) {
    const at = (attempt: number, chance: number) =>
      delayOf(step({ ...STATES.live, attempt }, { type: "ended", code, cause: "x" }, { chance }))
    t.same([at(0, 0), at(0, 1), at(1, 0)], [0, 3_000, 500], String(code))
  }
})

t.test("what makes every client load spreads the loading too", async (t) => {
  const at = (reason: "lineage" | "too_old" | "no_cursor", chance: number) =>
    delayOf(step(STATES.opening, { type: "welcome", ...lost, reason }, { chance }))
  t.same([at("lineage", 0), at("lineage", 1), at("too_old", 1), at("no_cursor", 1)], [0, 3_000, 3_000, 0])
})

t.test("offline or unseen it tries seldom", async (t) => {
  for (const facts of [{ online: false }, { visible: false }]) {
    const delay = (chance: number) => delayOf(step(STATES.live, EVENTS["ended 1006"], { ...facts, chance }))
    t.same([delay(0), delay(1)], [10_000, 20_000])
  }
  t.equal(step(STATES.live, EVENTS["ended 1006"], { online: false })[0].kind, "offline")
})

t.test(
  "a token of getToken that is refused is replaced once, and one that was good before does not count",
  async (t) => {
    const [waiting] = step(STATES.opening, EVENTS["ended 4500"])
    t.match(waiting, { kind: "waiting", refused: true })
    const again = { ...STATES.opening, refused: true }
    t.equal(step(again, EVENTS["ended 4500"])[0].kind, "closed")
    t.equal(step(again, EVENTS["welcome recovered"])[0].refused, false)
    t.equal(step(STATES.opening, EVENTS["ended 4500"], { renewable: false })[0].kind, "closed")
    t.match(step(STATES.live, EVENTS["ended 4500"], { fresh: false })[0], { kind: "waiting", refused: false })
    t.equal(step(again, EVENTS["ended 4500"], { fresh: false })[0].kind, "waiting")
  },
)

t.test("an expired token is replaced as often as it takes", async (t) => {
  const expired = { type: "ended", code: 4005, cause: "x" } as const
  for (const refused of [false, true]) {
    const [state, effects] = step({ ...STATES.opening, refused }, expired)
    t.match([state.kind, effects.at(-1)], ["waiting", { do: "invalidate_token" }])
  }
  t.equal(step(STATES.live, expired, { renewable: false })[0].kind, "closed")
})

t.test("of all closes only what cannot get better by itself is for good", async (t) => {
  const codes = [1000, 1005, 1006, 1009, 4000, 4008, 4010, 4011, 4012, 4013, 4499]
  for (const code of [...codes, 4501, 4502, 4504, 4505, 4509, 4999])
    t.equal(step(STATES.live, { type: "ended", code, cause: "x" })[0].kind, "waiting", String(code))
  t.equal(step(STATES.live, EVENTS["ended 4507"])[0].kind, "closed")
  t.equal(step(STATES.live, EVENTS["ended 4507 channel"])[0].kind, "waiting")
})

t.test(
  "why there is no connection is told at the fifth attempt, and at once where the relay refuses it",
  async (t) => {
    const told = (
      attempt: number,
      event: Event,
      kind: "opening" | "live" = "opening",
      facts: Partial<Facts> = {},
    ) => step({ ...STATES[kind], attempt }, event, facts)[1].find((effect) => effect.do === "explain")
    const cut = EVENTS["ended 1006"]
    const times = Array.from({ length: 30 }, (_, i) => i).filter(
      (attempt) => told(attempt, cut) !== undefined,
    )
    t.same(times, [4, 14, 24])
    t.same(told(4, cut), { do: "explain", cause: "x", ask: true })
    t.same(told(4, EVENTS.timer), { do: "explain", cause: "no answer", ask: true })
    t.match(told(4, { type: "ended", code: 4008, cause: "x" }, "live"), { ask: false })
    t.match(told(0, EVENTS["ended 4501"]), { ask: false })
    t.equal(told(1, EVENTS["ended 4501"]), undefined)
    t.match(told(0, { type: "ended", code: 4504, cause: "x" }), { ask: false })
    t.equal(told(0, EVENTS["ended 4507 channel"]), undefined, "the channel is told when it is known")
    t.equal(told(4, cut, "opening", { online: false }), undefined, "the browser has said it")
    t.equal(told(4, cut, "live"), undefined, "a line that is cut has no other reason")
  },
)

t.test("who had to make room for a newer connection comes back late", async (t) => {
  const at = (cause: string, chance: number) =>
    delayOf(step({ ...STATES.live, attempt: 0 }, { type: "ended", code: 4504, cause }, { chance }))
  t.same([at("too many connections: a newer one took the place", 0), at("a newer one", 1)], [10_000, 20_000])
  t.equal(at("too many connections of this user", 0), 500)
})

t.test("where there is nothing to show, the state is loaded before there is a connection", async (t) => {
  const loads = (state: State, event: Event, facts: Partial<Facts> = { blank: true }) =>
    step(state, event, facts)[1].filter((effect) => effect.do === "load")
  const load = [{ do: "load", reason: "unreachable" }]
  t.same(loads(STATES.opening, EVENTS["ended 1006"]), load)
  t.same(loads(STATES.authenticating, EVENTS.token_failed), load)
  t.same(loads(STATES.authenticating, EVENTS.timer), load)
  t.same(loads(STATES.opening, EVENTS["ended 1006"], { blank: false }), [])
  t.same(loads(STATES.opening, EVENTS["ended 1006"], { blank: true, online: false }), [])
  for (const kind of ["waiting", "offline", "authenticating", "opening"] as const)
    t.same(step(STATES[kind], EVENTS["loaded with a cursor"]), [STATES[kind], [{ do: "move", cursor: "c" }]])
})

t.test("a state keeps its beginning, and every other has one of its own", async (t) => {
  t.equal(step(STATES.opening, EVENTS.alive)[0].since, 1)
  t.equal(step(STATES.live, EVENTS.timer)[0].since, 1)
  t.equal(step(STATES.live, EVENTS["ended 1006"])[0].since, NOW)
})

t.test("a hook that could not keep up without a cursor is called again", async (t) => {
  const [overflowed] = step(STATES.loading, EVENTS.overflow)
  t.same(step(overflowed, EVENTS.change)[1], [], "nothing more is held")
  t.equal(step(overflowed, EVENTS["loaded with a cursor"])[0].kind, "joining")
  const [again, effects] = step(overflowed, EVENTS["loaded without"])
  t.match([again.kind, effects.at(-1)], ["stale", { do: "fail", code: "resync" }])
})

// ------------------------------------------------------------------------------------------- whatever happens

const fact = fc.record({
  chance: fc.double({ min: 0, max: 1, noNaN: true }),
  online: fc.boolean(),
  visible: fc.boolean(),
  hook: fc.boolean(),
  renewable: fc.boolean(),
  fresh: fc.boolean(),
  blank: fc.boolean(),
  now: fc.nat(),
})
const anyEvent = fc.constantFrom(...Object.values<Event>(EVENTS))

t.test("closed is final", async (t) => {
  const property = fc.property(fc.array(fc.tuple(anyEvent, fact)), (steps) => {
    let state: State = STATES.closed
    for (const [event, facts] of steps) {
      const [next, effects] = transition(state, event, facts)
      assert.equal(next, state)
      assert.deepEqual(effects, [])
      state = next
    }
  })
  t.doesNotThrow(() => fc.assert(property))
})

t.test("every state that is left has something that ends it", async (t) => {
  const property = fc.property(
    fc.array(fc.tuple(anyEvent, fact), { maxLength: 100, size: "max" }),
    (steps) => {
      let state = INITIAL
      let timer = false
      let socket = false
      for (const [event, facts] of [[EVENTS.start, FACTS] as const, ...steps]) {
        const [next, effects] = transition(state, event, facts)
        if (next !== state) timer = false
        for (const effect of effects) {
          if (effect.do === "timer") {
            timer = true
            assert.ok(effect.ms >= 0 && effect.ms <= 45_000)
          }
          if (effect.do === "open") {
            assert.equal(socket, false, "one socket at most")
            socket = true
          }
          if (effect.do === "disconnect") socket = false
        }
        state = next
        assert.ok(state.cause !== "" && state.since >= 0, "what can be shown to a person")
        // Of a token there is an answer or a failure: getToken is called again only after it.
        if (["opening", "stale", "waiting", "offline"].includes(state.kind))
          assert.ok(timer, `${state.kind} has a timer`)
        assert.equal(
          socket,
          ["opening", "catching_up", "live", "stale", "loading", "joining"].includes(state.kind),
          `whether ${state.kind} has a socket`,
        )
      }
    },
  )
  t.doesNotThrow(() => fc.assert(property, { numRuns: 1_000 }))
})

/** Those of the changes that cannot be applied. */
const isBulk = (id: string): boolean => id.endsWith("bulk")
const changeOf = (id: string): Event => ({
  type: "change",
  change: isBulk(id) ? { ...change, id, action: "bulk_load", channels: [] } : { ...change, id },
})

/**
 * A relay in three lines and a client that obeys the machine. The log is a list of ids; a cursor is a lineage and a
 * length. What the client delivered since it last loaded its state must be the log from there on, each id once.
 */
class World {
  state = INITIAL
  position = new Position()
  log: string[] = []
  lineage = 0
  /** What the relay will send next on this connection; undefined: none. */
  sent: number | undefined
  wire: Event[] = []
  held: Event[] = []
  /** What the caller's hook has read, until it returns. */
  loading: { length: number; cursor: string } | undefined
  /** How much of the log the caller's state holds, and what was delivered on top. */
  base: number | undefined
  exact = true
  delivered: string[] = []
  queue: Event[] = []

  /** Whether the caller's hook returns a cursor; undefined: there is no hook. */
  readonly hook: "cursor" | "plain" | "either" | undefined

  constructor(hook: World["hook"]) {
    this.hook = hook
  }

  occur(event: Event, chance: number): void {
    this.queue.push(event)
    for (let next = this.queue.shift(); next !== undefined; next = this.queue.shift()) {
      const [state, effects] = transition(this.state, next, {
        ...FACTS,
        hook: this.hook !== undefined,
        blank:
          this.hook !== undefined &&
          this.position.cursor === undefined &&
          this.base === undefined &&
          this.loading === undefined,
        chance,
      })
      this.state = state
      for (const effect of effects) this.run(effect)
    }
  }

  cursor = (length: number) => `${this.lineage}:${length}`

  /** The relay's answer to a cursor: everything after it again, and a checkpoint, or live from now. */
  answer(type: "welcome" | "joined", cursor: string | undefined): void {
    const [lineage, length] = (cursor ?? "").split(":").map(Number)
    const now = this.log.length
    if (cursor === undefined || lineage !== this.lineage) {
      const reason = cursor === undefined ? "no_cursor" : "lineage"
      this.wire.push({ type, cursor: this.cursor(now), recovered: false, replayed: 0, reason })
    } else {
      this.wire.push({ type, cursor, recovered: true, replayed: null, reason: null })
      this.wire.push(...this.log.slice(length).map(changeOf))
      this.wire.push({ type: "checkpoint", cursor: this.cursor(now), replayed: now - (length as number) })
    }
    this.sent = now
  }

  run(effect: Effect): void {
    switch (effect.do) {
      case "open":
        return this.answer("welcome", this.position.cursor)
      case "disconnect":
        this.wire = []
        this.sent = undefined
        return
      case "join":
        return this.answer("joined", effect.cursor)
      case "deliver":
        if (this.position.take(effect.change.id)) this.delivered.push(effect.change.id)
        return
      case "hold":
        this.held.push(effect.event)
        return
      case "release":
        this.queue.unshift(...this.held.splice(0))
        return
      case "discard":
        this.held = []
        return
      case "move":
        return this.position.move(effect.cursor)
      case "rename":
        return this.position.rename(effect.cursor)
      case "forget":
        return this.position.forget()
      case "emit_resync":
        this.base = undefined
        this.delivered = []
        if (this.hook !== undefined) return
        // The caller without a hook loads what there is; what it does not know may come again.
        this.base = this.log.length
        this.exact = false
        return
      case "load":
        this.loading = { length: this.log.length, cursor: this.cursor(this.log.length) }
        return
      case "abort_load":
        this.loading = undefined
        return
      case "get_token":
      case "invalidate_token":
      case "explain":
      case "doubt":
      case "timer":
      case "reconcile":
      case "fail":
        return
    }
  }

  act(action: string, chance: number): void {
    switch (action) {
      case "write":
      case "bulk": {
        const id = `${this.log.length}${action === "bulk" ? " bulk" : ""}`
        this.log.push(id)
        if (this.sent !== undefined) this.wire.push(changeOf(id))
        return
      }
      case "checkpoint":
        if (this.sent !== undefined)
          this.wire.push({ type: "checkpoint", cursor: this.cursor(this.log.length) })
        return
      case "repeat": {
        // At least once: what came since the last checkpoint may come again.
        const since = this.wire.findLastIndex(({ type }) => type !== "change")
        this.wire.push(...this.wire.slice(since + 1))
        return
      }
      case "receive": {
        const event = this.wire.shift()
        if (event !== undefined) this.occur(event, chance)
        return
      }
      case "failover":
        this.lineage++
        // The last changes were not on the standby, and their ids are handed out again.
        this.log.length -= Math.min(this.log.length, Math.floor(chance * 4))
        if (this.sent !== undefined) this.occur({ type: "ended", code: 4010, cause: "x" }, chance)
        return
      case "load": {
        if (this.loading === undefined) return
        const { length, cursor } = this.loading
        this.loading = undefined
        this.base = length
        this.delivered = []
        this.exact = this.hook === "cursor" || (this.hook === "either" && chance < 0.5)
        return this.occur({ type: "loaded", cursor: this.exact ? cursor : undefined }, chance)
      }
      case "fail to load":
        if (this.loading === undefined) return
        this.loading = undefined
        return this.occur({ type: "load_failed" }, chance)
      case "cut":
        return this.sent === undefined
          ? undefined
          : this.occur({ type: "ended", code: 1006, cause: "x" }, chance)
      case "silent":
      case "online":
      case "offline":
      case "visible":
      case "pagehide":
      case "pageshow":
      case "timer":
        // The answer comes within its time, and so does the token.
        if (action === "timer" && ["opening", "authenticating"].includes(this.state.kind)) return
        return this.occur({ type: action } as Event, chance)
      case "token":
        return this.occur({ type: "token", token: "t" }, chance)
    }
  }

  /** What happens next by itself. @returns false if nothing does. */
  proceed(chance = 0): boolean {
    if (this.wire.length > 0) this.act("receive", 0)
    else if (this.state.kind === "live") return false
    else if (this.loading !== undefined) this.act("load", chance)
    else if (this.state.kind === "authenticating") this.act("token", 0)
    else if (this.state.kind === "suspended") this.act("pageshow", 0)
    else this.act("timer", 0)
    return true
  }
}

const chance = fc.double({ min: 0, max: 1, noNaN: true })
const often = (weight: number, ...names: string[]) => ({ arbitrary: fc.constantFrom(...names), weight })
const action = fc.oneof(
  often(60, "proceed"),
  often(20, "write"),
  often(2, "bulk"),
  often(8, "checkpoint", "repeat"),
  often(6, "load", "fail to load", "timer"),
  often(6, "cut", "silent", "failover", "online", "offline", "visible", "pagehide", "pageshow"),
)

t.test("the caller's state and what is delivered on top are the log, each change once", async (t) => {
  const actions = fc.array(fc.tuple(action, chance), { minLength: 50, maxLength: 200, size: "max" })
  const hook = fc.constantFrom("cursor", "plain", "either", undefined)
  let most = 0
  const property = fc.property(hook, actions, (hook, steps) => {
    const world = new World(hook)
    world.occur({ type: "start" }, 0)
    for (const [name, chance] of steps) {
      if (name === "proceed") world.proceed(chance)
      else world.act(name, chance)
      assert.equal(new Set(world.delivered).size, world.delivered.length, "an id came twice")
    }
    while (world.proceed());
    most = Math.max(most, world.delivered.length)
    const missing = world.log.slice(world.base).filter((id) => !world.delivered.includes(id))
    assert.deepEqual(missing, [], "nothing is missing")
    if (hook !== undefined) assert.deepEqual(world.delivered.filter(isBulk), [], "the state was loaded since")
    if (world.exact) assert.deepEqual(world.delivered, world.log.slice(world.base), "in order, from there on")
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 2_000 }))
  t.ok(most > 20, "the runs get somewhere")
})

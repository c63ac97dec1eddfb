/** The client's token: fetched, kept, renewed before it expires, replaced when it is refused. */

import jwt from "jsonwebtoken"
import t, { type Test } from "tap"
import { WebSocket } from "ws"
import { database } from "../helpers/database.ts"
import { followRelay, openFeed } from "../helpers/feed.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 4

/** The relay's clock may be 5 s behind, so a token lives 5 s longer than it says. */
const living = (seconds: number) => token({ exp: Math.floor(Date.now() / 1_000) + seconds - 5 })

/** A getToken that gives these in turn, the last for ever. */
function tokens(...given: Array<string | Error | (() => string)>) {
  const calls: string[] = []
  const getToken = async () => {
    const next = given[Math.min(calls.length, given.length - 1)]
    if (next instanceof Error) {
      calls.push("")
      throw next
    }
    calls.push(typeof next === "function" ? next() : String(next))
    return calls.at(-1) as string
  }
  return { calls, getToken }
}

const start = async (t: Test) => startRelay(t, await database(t))

t.test("it is renewed on the open connection before it expires, again and again", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const { calls, getToken } = tokens(() => living(8))
  const begun = Date.now()
  const { states, errors, count, feed } = await followRelay(t, relay, { getToken })
  await until("it is renewed twice", () => calls.length === 3)
  t.ok(Date.now() - begun > 8_000, "the first is over")
  t.equal(feed.state.kind, "live")
  t.equal(states.filter(({ kind }) => kind === "opening").length, 1, "on one connection")
  t.same(errors, [])
  await db.query("insert into vote default values")
  await count(1)
})

t.test("a token of 60 days is not renewed at once", async (t) => {
  const relay = await start(t)
  const warnings: Error[] = []
  const onWarning = (warning: Error) => warnings.push(warning)
  process.on("warning", onWarning)
  t.teardown(() => process.off("warning", onWarning))
  const { calls, getToken } = tokens(() => token({}, { expiresIn: "60d" }))
  const { feed } = await followRelay(t, relay, { getToken })
  await feed.subscribe(["committee:1"])
  t.equal(calls.length, 1)
  t.same(
    warnings.filter(({ name }) => name === "TimeoutOverflowWarning"),
    [],
  )
})

t.test("a good token is kept over a lost connection", async (t) => {
  const relay = await start(t)
  const proxy = await startProxy(t, Number(new URL(relay.url).port))
  const { calls, getToken } = tokens(() => token())
  const { came, reaches } = openFeed(t, { url: `http://127.0.0.1:${proxy.port}`, getToken })
  await reaches("live")
  proxy.cut()
  await came("live", 2)
  t.equal(calls.length, 1, "so that its source is not asked by everybody at once")
})

t.test("a getToken that fails is asked again", async (t) => {
  const relay = await start(t)
  const { calls, getToken } = tokens(new Error("away"), () => token())
  const { errors, states } = await followRelay(t, relay, { getToken })
  t.equal(calls.length, 2)
  t.match(errors, [{ code: "token", message: "no token: away" }])
  t.match(states[1], { kind: "waiting", cause: "no token: away" })
})

t.test("a renewal that fails is tried again on the open connection", async (t) => {
  const relay = await start(t)
  // The last tenth of it must be longer than the second that the next attempt may be away.
  const { calls, getToken } = tokens(
    () => living(20),
    new Error("away"),
    () => token(),
  )
  const { errors, states } = await followRelay(t, relay, { getToken })
  await until("it is renewed", () => calls.length === 3)
  t.match(errors, [{ code: "token" }])
  t.equal(states.filter(({ kind }) => kind === "opening").length, 1)
})

t.test("an expired token is replaced", async (t) => {
  const relay = await start(t)
  const { calls, getToken } = tokens(
    () => living(-60),
    () => token(),
  )
  const { errors, states } = await followRelay(t, relay, { getToken })
  t.equal(calls.length, 2)
  t.match(
    states.find(({ kind }) => kind === "waiting"),
    { cause: "closed with 4005: token expired" },
  )
  t.same(errors, [])
})

t.test("an expired token that cannot be replaced ends the feed", async (t) => {
  const relay = await start(t)
  const { errors, reaches } = openFeed(t, { url: relay.url, token: living(-60) })
  await reaches("closed")
  t.match(errors, [{ code: "refused", message: "closed with 4005: token expired" }])
})

t.test("a refused token is replaced once, and the second ends the feed", async (t) => {
  const relay = await start(t)
  const once = tokens("x", () => token())
  await followRelay(t, relay, { getToken: once.getToken })
  t.equal(once.calls.length, 2)
  const twice = tokens("x", "y", () => token())
  const { errors, reaches } = openFeed(t, { url: relay.url, getToken: twice.getToken })
  await reaches("closed")
  t.same(twice.calls, ["x", "y"])
  t.match(errors, [{ code: "refused", message: "closed with 4500: invalid token" }])
})

t.test("a token that was good and is refused later is not used again", async (t) => {
  const db = await database(t)
  const first = await startRelay(t, db)
  const secret = "another secret, with which tokens are signed from now on"
  const second = await startRelay(t, db, { JWT_SECRET: secret })
  const { port } = new URL(second.url)
  let moved = false
  class Moving extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(moved ? url.replace(/:\d+/, `:${port}`) : url, protocols)
    }
  }
  const { calls, getToken } = tokens(
    () => token(),
    () => jwt.sign({ sub: "7" }, secret, { expiresIn: "1h" }),
  )
  const { came, errors } = await followRelay(t, first, { getToken, WebSocket: Moving })
  moved = true
  await first.stop()
  await came("live", 2)
  t.equal(calls.length, 2)
  t.same(errors, [])
})

t.test("a page that is away and back asks for no second token while the first is awaited", async (t) => {
  const relay = await start(t)
  const window = new EventTarget()
  const asked: Array<(token: string) => void> = []
  const { errors, states, reaches } = openFeed(t, {
    url: relay.url,
    page: { window },
    getToken: () =>
      new Promise((give) => {
        asked.push(give)
      }),
  })
  await reaches("authenticating")
  window.dispatchEvent(new Event("offline"))
  window.dispatchEvent(new Event("online"))
  t.equal(asked.length, 1)
  asked[0]?.(token())
  await reaches("live")
  t.same(errors, [])
  t.same(
    states.map(({ kind }) => kind),
    ["authenticating", "offline", "authenticating", "opening", "live"],
  )
})

t.test("what is no token is told, and another is asked for", async (t) => {
  const relay = await start(t)
  const { calls, getToken } = tokens("<html>502</html>", `${token()}\n`, "", new Error("away"), () => token())
  const { errors } = await followRelay(t, relay, { getToken })
  t.equal(calls.length, 5)
  t.same(
    errors.map(({ code }) => code),
    ["token", "token", "token", "token"],
  )
})

t.test("a renewal that brings no token costs no connection, as long as the old one is good", async (t) => {
  const relay = await start(t)
  const { calls, getToken } = tokens(
    () => living(20),
    "Unauthorized",
    () => token(),
  )
  const { feed, errors, states } = await followRelay(t, relay, { getToken })
  await until("it is renewed", () => calls.length === 3)
  await feed.subscribe(["committee:1"])
  t.match(errors, [{ code: "token", message: /no JWT/ }])
  t.equal(states.filter(({ kind }) => kind === "opening").length, 1)
})

t.test("a renewal that the relay refuses is followed by a connection with the old token", async (t) => {
  const relay = await start(t)
  const { calls, getToken } = tokens(
    () => living(40),
    () => jwt.sign({ sub: "7" }, "another secret, of nobody who is here", { expiresIn: "1h" }),
    () => token(),
  )
  const { came, feed } = await followRelay(t, relay, { getToken })
  await came("live", 2)
  t.equal(calls.length, 2)
  await until("it is renewed", () => calls.length === 3)
  t.equal(feed.state.kind, "live")
})

t.test("a token of another user ends the feed, at a reconnection and at a renewal", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const proxy = await startProxy(t, Number(new URL(relay.url).port))
  const later = tokens(
    () => living(5),
    () => token({ sub: "8" }),
  )
  const renewed = openFeed(t, { url: relay.url, getToken: later.getToken })
  let present = token()
  class Present extends WebSocket {
    constructor(url: string) {
      super(url, ["commitcast.v1", `bearer.${present}`])
    }
  }
  const returning = openFeed(t, { url: `http://127.0.0.1:${proxy.port}`, WebSocket: Present })
  await returning.reaches("live")
  present = token({ sub: "8" })
  proxy.cut()
  for (const { feed, errors, reaches } of [returning, renewed]) {
    await reaches("closed")
    t.match(errors, [{ code: "refused", message: /of another user/ }])
    t.match(feed.state, { cause: /of another user/ })
  }
})

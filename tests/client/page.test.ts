/** The client in a browser: its network, the page that is hidden, put away and shown again, and the position that it stores. */

import t, { type Test } from "tap"
import type { Options } from "../../client/client.ts"
import type { Page } from "../../client/page.ts"
import type { StorageLike } from "../../client/storage.ts"
import { database } from "../helpers/database.ts"
import { followRelay, openFeed } from "../helpers/feed.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 4

/** A page whose events the test makes. */
function fakePage() {
  const window = new EventTarget()
  const document = Object.assign(new EventTarget(), { visibilityState: "visible" })
  const navigator = { onLine: true }
  return {
    page: { window, document, navigator } satisfies Page,
    online(value: boolean) {
      navigator.onLine = value
      window.dispatchEvent(new Event(value ? "online" : "offline"))
    },
    visible(value: boolean) {
      document.visibilityState = value ? "visible" : "hidden"
      document.dispatchEvent(new Event("visibilitychange"))
    },
    fire: (type: string) => window.dispatchEvent(new Event(type)),
  }
}

async function behindProxy(t: Test) {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const proxy = await startProxy(t, Number(new URL(relay.url).port))
  return { db, relay, proxy, url: `http://127.0.0.1:${proxy.port}` }
}

t.test("offline it lets go, and online it is back at once", async (t) => {
  const { db, relay, url } = await behindProxy(t)
  const { page, online } = fakePage()
  const { feed, reaches, count, resyncs } = openFeed(t, { url, page })
  await reaches("live")
  online(false)
  t.equal(feed.state.kind, "offline")
  t.ok("delayMs" in feed.state && feed.state.delayMs >= 10_000)
  await until("the relay knows", () => relay.relay.status().hub.connections === 0)
  online(true)
  t.equal(feed.state.kind, "authenticating")
  await reaches("live")
  await db.query("insert into vote default values")
  await count(1)
  t.same(resyncs, ["no_cursor"])
})

t.test("a browser that says offline is not believed at the first attempt", async (t) => {
  const { url } = await behindProxy(t)
  const { page } = fakePage()
  page.navigator.onLine = false
  const { reaches } = openFeed(t, { url, page })
  await reaches("live")
})

t.test("hidden it comes back seldom, and visible at once", async (t) => {
  const { proxy, url } = await behindProxy(t)
  const { page, visible } = fakePage()
  const { feed, reaches, came } = openFeed(t, { url, page })
  await reaches("live")
  visible(false)
  t.equal(feed.state.kind, "live", "a hidden page stays connected")
  proxy.cut()
  await reaches("waiting")
  t.ok("delayMs" in feed.state && feed.state.delayMs >= 10_000)
  visible(true)
  t.equal(feed.state.kind, "authenticating")
  await came("live", 2)
})

t.test(
  "a page that is put away closes its connection, and one that is shown again opens another",
  async (t) => {
    const { relay, url } = await behindProxy(t)
    const { page, fire } = fakePage()
    const { feed, reaches, came } = openFeed(t, { url, page })
    await reaches("live")
    fire("pageshow")
    t.equal(feed.state.kind, "live")
    fire("pagehide")
    t.equal(feed.state.kind, "suspended")
    await until("the relay knows", () => relay.relay.status().hub.connections === 0)
    fire("online")
    t.equal(feed.state.kind, "suspended")
    fire("pageshow")
    await came("live", 2)
  },
)

t.test("a closed feed leaves no listener on the page", async (t) => {
  const { url } = await behindProxy(t)
  const { page, online, visible } = fakePage()
  const kept = new Set<string>()
  for (const target of [page.window, page.document]) {
    const { addEventListener, removeEventListener } = target
    target.addEventListener = (type: string, listener: () => void) => {
      kept.add(type)
      addEventListener.call(target, type, listener)
    }
    target.removeEventListener = (type: string, listener: () => void) => {
      kept.delete(type)
      removeEventListener.call(target, type, listener)
    }
  }
  const { feed, reaches } = openFeed(t, { url, page })
  await reaches("live")
  t.same([...kept].sort(), ["offline", "online", "pagehide", "pageshow", "visibilitychange"])
  feed.close()
  t.same([...kept], [])
  online(true)
  visible(true)
  t.equal(feed.state.kind, "closed")
})

// ------------------------------------------------------------------------------------------- the position

function fakeStorage(): StorageLike & { items: Map<string, string> } {
  const items = new Map<string, string>()
  return {
    items,
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => items.set(key, value),
    removeItem: (key) => items.delete(key),
  }
}

t.test("after a reload it goes on where it was", async (t) => {
  const { db, relay, url } = await behindProxy(t)
  const storage = fakeStorage()
  const { page, fire } = fakePage()
  const before = openFeed(t, { url, page, storage, storageKey: "place" })
  await before.reaches("live")
  await db.query("insert into vote (votes) values (1)")
  await before.count(1)
  // No checkpoint covers this one yet.
  await db.query("insert into vote (votes) values (2)")
  await before.count(2)
  fire("pagehide")
  t.ok(storage.items.has("place"))
  await db.query("insert into vote (votes) values (3)")
  const after = openFeed(t, { url, storage, storageKey: "place" })
  await after.count(1)
  const other = await relay.connect()
  await db.query("insert into vote (votes) values (4)")
  await other.count(1)
  await after.count(2)
  t.same(after.rows(), [3, 4])
  t.same(after.resyncs, [])
})

t.test("a feed that is closed before it starts leaves the stored position to the next", async (t) => {
  const storage = fakeStorage()
  const { url } = await behindProxy(t)
  const before = openFeed(t, { url, storage })
  await before.reaches("live")
  before.feed.close()
  const stored = [...storage.items]
  t.equal(stored.length, 1)
  const { feed, reaches } = openFeed(t, { url, storage })
  feed.close()
  await reaches("closed")
  const authenticating = openFeed(t, { url, storage })
  authenticating.feed.on("state", ({ kind }) => {
    if (kind === "authenticating") authenticating.feed.close()
  })
  await authenticating.reaches("closed")
  await new Promise(setImmediate)
  t.same([...storage.items], stored)
  const after = openFeed(t, { url, storage })
  await after.reaches("live")
  t.same(after.resyncs, [], "it goes on from there")
})

t.test("a place belongs to its user, and to what the feed had subscribed to", async (t) => {
  const { db, url } = await behindProxy(t)
  const storage = fakeStorage()
  /** Comes and goes. @returns why the state had to be loaded. */
  async function visit(claims: Record<string, unknown>, options: Partial<Options> = {}) {
    const loaded: string[] = []
    const { feed, reaches, count, changes } = openFeed(t, {
      url,
      storage,
      token: token(claims),
      async resync({ reason }) {
        loaded.push(reason)
        const [row] = await db.query<{ cursor: string }>("select relay.cursor() as cursor")
        return { cursor: row?.cursor as string }
      },
      ...options,
    })
    await reaches("live")
    if (loaded.length === 0) await count(1)
    feed.close()
    await db.query("insert into vote default values")
    return loaded.length === 0 ? changes.length : loaded
  }
  const first = ["no_cursor"]
  t.same(await visit({ sub: "a" }), first)
  t.same(await visit({ sub: "b" }), first, "another user has no place yet")
  t.same(await visit({ sub: "a" }), 2, "the first one goes on from its own")
  t.same(await visit({ sub: "a" }, { types: ["voting_update"] }), first, "with a filter other changes came")
  t.same(await visit({ sub: "a" }, { channels: ["committee:1"] }), first)
  const storageKey = "place"
  t.same(await visit({ sub: "a" }, { storageKey }), first)
  t.same(await visit({ sub: "a" }, { storageKey }), 1)
  t.same(await visit({ sub: "b" }, { storageKey }), first)
  t.same(await visit({ sub: "b" }, { storageKey, channels: ["committee:1"] }), first)
})

t.test("a storage that is full, forbidden or spoilt costs nothing but the position", async (t) => {
  const { db, relay } = await behindProxy(t)
  const failing = () => {
    throw new Error("QuotaExceededError")
  }
  const full = await followRelay(t, relay, { storage: { ...fakeStorage(), setItem: failing } })
  const forbidden = await followRelay(t, relay, {
    storage: { getItem: failing, setItem: failing, removeItem: failing },
  })
  // Node has one from version 26 on.
  Object.defineProperty(globalThis, "sessionStorage", { value: undefined, configurable: true })
  const nowhere = await followRelay(t, relay, { storage: true })
  const spoilt = fakeStorage()
  spoilt.items.set("place", "{")
  const odd = await followRelay(t, relay, { storage: spoilt, storageKey: "place" })
  for (let n = 1; n <= 3; n++) {
    await db.query("insert into vote (votes) values (1)")
    for (const { count } of [full, forbidden, nowhere, odd]) await count(n)
  }
  for (const { errors } of [full, forbidden, nowhere, odd])
    t.same(
      errors.map(({ code }) => code),
      ["storage"],
      "one word until it works again",
    )
  t.match(nowhere.errors[0], { message: /sessionStorage/ })
  await until("the position is stored", () => /"cursor":/.test(spoilt.items.get("place") ?? ""))
})

t.test("a cursor that is given goes before one that is kept", async (t) => {
  const { db, url } = await behindProxy(t)
  const storage = fakeStorage()
  const first = openFeed(t, { url, storage, storageKey: "place" })
  await first.reaches("live")
  first.feed.close()
  await db.query("insert into vote (votes) values (1)")
  const [row] = await db.query<{ cursor: string }>("select relay.cursor() as cursor")
  await db.query("insert into vote (votes) values (2)")
  const { count, rows } = openFeed(t, { url, storage, storageKey: "place", cursor: row?.cursor as string })
  await count(1)
  t.same(rows(), [2])
})

/** The client's token, when time and connections end at the wrong moments. */

import { setImmediate as turn } from "node:timers/promises"
import t from "tap"
import { createTokens } from "../../client/token.ts"
import { type Deferred, deferred } from "../../relay/lib/deferred.ts"
import { FakeClock } from "../helpers/fake-clock.ts"

/** Tokens from a getToken whose answers the test gives. */
function start() {
  const clock = new FakeClock()
  const calls: Deferred<string>[] = []
  const failures: unknown[] = []
  const sent: string[] = []
  const tokens = createTokens({
    token: undefined,
    getToken() {
      const call = deferred<string>()
      calls.push(call)
      return call.promise
    },
    clock,
    onFailure: (error) => failures.push(error),
  })
  const accept = (seconds: number) => tokens.accepted("first", seconds, (token) => sent.push(token))
  return { clock, calls, failures, sent, tokens, accept }
}

t.test(
  "a renewal that comes after the connection was lost is kept for the next, and sent on none",
  async (t) => {
    const { clock, calls, sent, tokens, accept } = start()
    accept(100)
    clock.pass(90_000)
    t.equal(calls.length, 1, "it is renewed by 90 % of its life")
    tokens.disconnected()
    calls[0]?.resolve("fresh")
    await turn()
    t.same(sent, [])
    accept(100)
    t.equal(await tokens.get(), "fresh")
    t.equal(calls.length, 1)
  },
)

t.test("a renewal that fails after the connection was lost is neither reported nor repeated", async (t) => {
  const { clock, calls, failures, tokens, accept } = start()
  accept(100)
  clock.pass(90_000)
  tokens.disconnected()
  calls[0]?.reject(new Error("away"))
  await turn()
  t.same(failures, [])
  t.same(clock.alarms, [])
})

t.test("a renewal that fails is repeated until the connection is lost", async (t) => {
  const { clock, calls, failures, tokens, accept } = start()
  accept(100)
  clock.pass(90_000)
  calls[0]?.reject(new Error("away"))
  await turn()
  t.equal(failures.length, 1)
  t.equal(clock.alarms.length, 1)
  tokens.disconnected()
  t.same(clock.alarms, [])
})

t.test("one call is made at a time, and whoever asks meanwhile gets its answer", async (t) => {
  const { clock, calls, tokens, accept } = start()
  accept(100)
  clock.pass(90_000)
  tokens.disconnected()
  clock.sleep(100_000)
  const [first, second] = [tokens.get(), tokens.get()]
  t.equal(calls.length, 1, "the renewal's call is still under way")
  calls[0]?.resolve("fresh")
  t.same(await Promise.all([first, second]), ["fresh", "fresh"])
  const third = tokens.get()
  t.equal(calls.length, 2, "then another may be made")
  calls[1]?.reject(new Error("away"))
  await t.rejects(third, { message: "away" })
  void tokens.get()
  t.equal(calls.length, 3)
})

t.test("what is no token is refused, without a word of it", async (t) => {
  const { calls, tokens } = start()
  const cases: Array<[answer: unknown, name: RegExp]> = [
    ["<html>502</html>", /a page of HTML/],
    ["secret\n", /a line break/],
    ["", /an empty text/],
    [{ token: "secret" }, /the type object/],
    [undefined, /the type undefined/],
    [null, /gave null/],
    [7, /the type number/],
  ]
  for (const [answer, message] of cases) {
    const got = tokens.get()
    calls.at(-1)?.resolve(answer as string)
    const error: unknown = await got.catch((error: unknown) => error)
    t.match(error, { message })
    t.notMatch(String(error), "secret")
  }
})

t.test("what is no JWT is never sent on a connection that is good", async (t) => {
  const { clock, calls, failures, sent, accept } = start()
  accept(100)
  clock.pass(90_000)
  calls[0]?.resolve("Unauthorized")
  await turn()
  t.same(sent, [])
  t.match(failures, [{ message: /no JWT/ }])
  clock.pass(1_000)
  calls[1]?.resolve("a.b.c")
  await turn()
  t.same(sent, ["a.b.c"])
})

t.test("a renewal that the relay refuses leaves the token before it, as long as that is good", async (t) => {
  const { clock, calls, tokens, accept } = start()
  const first = tokens.get()
  calls[0]?.resolve("first")
  await first
  t.equal(tokens.isFresh(), true)
  accept(100)
  t.equal(tokens.isFresh(), false)
  clock.pass(90_000)
  calls[1]?.resolve("a.b.c")
  await turn()
  t.equal(tokens.isFresh(), true)
  tokens.invalidate()
  tokens.disconnected()
  t.equal(await tokens.get(), "first")
  t.equal(tokens.isFresh(), false)
  clock.pass(10_000)
  void tokens.get()
  t.equal(calls.length, 3, "and no longer")
})

t.test("a renewal that the relay is too busy for is tried again", async (t) => {
  const { clock, calls, tokens, accept } = start()
  accept(100)
  clock.pass(90_000)
  calls[0]?.resolve("a.b.c")
  await turn()
  tokens.postponed()
  clock.pass(1_000)
  t.equal(calls.length, 2)
})

t.test("each acceptance puts off the renewal, and there is one alarm", async (t) => {
  const { clock, calls, accept } = start()
  accept(100)
  clock.pass(70_000)
  accept(100)
  t.equal(clock.alarms.length, 1)
  clock.pass(70_000)
  t.equal(calls.length, 0)
})

t.test("a token that expired while the machine slept is not used again", async (t) => {
  const { clock, calls, tokens, accept } = start()
  const first = tokens.get()
  calls[0]?.resolve("first")
  await first
  accept(100)
  tokens.disconnected()
  t.equal(await tokens.get(), "first", "it is good for the next connection")
  clock.sleep(100_000)
  const second = tokens.get()
  t.equal(calls.length, 2)
  calls[1]?.resolve("second")
  t.equal(await second, "second")
})

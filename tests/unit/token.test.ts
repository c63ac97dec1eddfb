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
  const accept = (seconds: number) => tokens.accepted(seconds, (token) => sent.push(token))
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

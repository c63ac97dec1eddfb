/** Answers that are shared by all who ask at about the same time. */

import { setImmediate as turn } from "node:timers/promises"
import t from "tap"
import { type Deferred, deferred } from "../../relay/lib/deferred.ts"
import { shareAnswers } from "../../relay/lib/shared-answer.ts"

function start() {
  let now = 0
  let due: Array<{ at: number; callback: () => void }> = []
  const made: Deferred<string>[] = []
  const ask = shareAnswers(
    () => {
      const answer = deferred<string>()
      made.push(answer)
      return answer.promise
    },
    {
      now: () => now,
      after(ms, callback) {
        due.push({ at: now + ms, callback })
        return () => {}
      },
    },
  )
  async function pass(ms: number): Promise<void> {
    now += ms
    const over = due.filter(({ at }) => at <= now)
    due = due.filter(({ at }) => at > now)
    for (const { callback } of over) callback()
    await turn()
  }
  return { ask, made, pass, answer: (n: number, text: string) => made[n]?.resolve(text) }
}

t.test("forty who ask while one is made share the next, which begins after they have asked", async (t) => {
  const { ask, made, pass, answer } = start()
  const first = ask()
  await turn()
  const others = Array.from({ length: 40 }, () => ask())
  await pass(20)
  t.equal(made.length, 1, "one at a time")
  answer(0, "first")
  t.equal(await first, "first")
  await pass(179)
  t.equal(made.length, 1, "making answers takes a tenth of the time")
  await pass(1)
  t.equal(made.length, 2)
  const later = ask()
  answer(1, "second")
  t.same(new Set(await Promise.all(others)), new Set(["second"]))
  await pass(0)
  await pass(1)
  answer(2, "third")
  t.equal(await later, "third", "what was made before one asked is never the answer")
})

t.test("one that takes long, or fails, keeps nobody waiting for longer than a second", async (t) => {
  const { ask, made, pass, answer } = start()
  const failed = ask()
  await turn()
  await pass(60_000)
  made[0]?.reject(new Error("no database"))
  await t.rejects(failed, { message: "no database" })
  const next = ask()
  await pass(999)
  t.equal(made.length, 1)
  await pass(1)
  answer(1, "again")
  t.equal(await next, "again")
})

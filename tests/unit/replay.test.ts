/** A replay from memory, step by step: it leaves the event loop to others whatever there is to send. */

import t from "tap"
import { cursorText } from "../../relay/change/cursor.ts"
import { systemClock } from "../../relay/lib/clock.ts"
import { createReplayBuffer } from "../../relay/replay/replay-buffer.ts"
import type { Joined } from "../../relay/replay/returning.ts"
import { buildHub, cursorAt, message } from "../helpers/hub.ts"

const PARTS = 20_000

t.test("others have their turn while it passes batches that the client sees nothing of", async (t) => {
  const buffer = createReplayBuffer(Number.POSITIVE_INFINITY)
  let time = 0
  const clock = {
    ...systemClock,
    now: () => {
      time += 0.01
      return time
    },
  }
  const { position, membership, connect } = buildHub({ buffer, clock })
  for (let i = 0; i < PARTS; i++)
    buffer.append({ changes: [message(10 + i)], cursor: cursorAt(11 + i), first: true, final: true })
  const head = cursorAt(10 + PARTS)
  position.begin(head)
  const { connection, wire } = connect()
  let turns = 0
  const joined: Joined[] = []
  membership.join(connection, new Set(["committee:2"]), cursorText(cursorAt(10)), (answer) =>
    joined.push(answer),
  )
  while (connection.lane === undefined) {
    await new Promise(setImmediate)
    turns++
  }
  t.match(joined, [{ recovered: true, cursor: cursorText(cursorAt(10)) }])
  t.match(wire.messages().at(-1), { type: "checkpoint", cursor: cursorText(head), replayed: 0 })
  t.ok(turns > 5, `${turns} turns of the event loop`)
})

/**
 * Parts: where the time of one change goes, between the writer's COMMIT and one client, and what each part would cost
 * at the least on this machine. Each part is measured by itself, with the relay's own code, one change at a time.
 */

import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import type pg from "pg"
import { NO_MASK } from "../../relay/change/column-mask.ts"
import { frameOf } from "../../relay/fanout/frames.ts"
import { createChangelog } from "../../relay/feed/changelog.ts"
import { now } from "../clients/clock.ts"
import { percentilesOf } from "../clients/percentiles.ts"
import { figure, measured, type Outcome } from "../harness/row.ts"
import type { Server } from "../harness/server.ts"
import { OWN_TABLE } from "../harness/session.ts"
import type { Group, Stage } from "../harness/stage.ts"
import { insert } from "../harness/write.ts"

const EVENTS = 300
const QUICK_EVENTS = 60
const WARM_EVENTS = 30
/** So short a part that one alone cannot be timed. */
const REPEATS = 200
/** Between two changes, so that the bell stays a bell. Milliseconds. */
const PAUSE_MS = 5

/** A part: how long it took each time, and how long the least that it could be. Microseconds. */
interface Part {
  name: string
  took: number[]
  least: number[]
}

export const parts: Group = async function* (stage) {
  const relay = await stage.server("ours")
  const found = await measureParts(stage, relay, stage.choice.quick ? QUICK_EVENTS : EVENTS)
  for (const { name, took, least } of found) {
    const { p50, p99 } = percentilesOf(took)
    const outcome: Outcome = relay.alive()
      ? measured(
          figure("p50", p50, "µs"),
          figure("p99", p99, "µs"),
          figure("at the least", percentilesOf(least).p50, "µs"),
        )
      : { kind: "invalid", reason: "the relay died" }
    yield { group: "parts", name, subject: "ours", command: "npm run bench -- parts", outcome }
  }
  await stage.clear()
}

async function measureParts(stage: Stage, relay: Server, events: number): Promise<Part[]> {
  const writer = await stage.session()
  const bare = await stage.session()
  const listener = await stage.session()
  await bare.query("create table bare (like vote including all)")
  await listener.query("listen election_updates; listen bare")
  const changelog = createChangelog(stage.databaseUrl, () => {})
  const session = await changelog.open()
  const audience = stage.audience(relay)
  await audience.connect(1)
  await audience.begin()
  const line = await openLine()
  const part = (name: string): Part => ({ name, took: [], least: [] })
  const found = {
    commit: part("COMMIT with the capture; at the least, without it"),
    bell: part("until the bell; at the least, until any other NOTIFY"),
    read: part("the read of the log; at the least, select 1"),
    encode: part("from row to frame; at the least, its text to bytes"),
    line: part("written and received, and all waking up between; at the least, on a bare socket"),
    whole: part("all of it, from COMMIT's answer to receipt; at the least, the sum of those"),
  }
  try {
    for (let n = 0; n < WARM_EVENTS + events; n++) {
      if (n === WARM_EVENTS)
        for (const { took, least } of Object.values(found)) took.length = least.length = 0
      const since = await session.now()
      const rang = nextBell(listener)
      const began = now()
      await insert(writer, OWN_TABLE, 1)
      const committed = now()
      found.commit.took.push(committed - began)
      found.bell.took.push((await rang) - committed)
      const { at } = await audience.reach(n + 1)
      found.whole.took.push(at - committed)
      const { changes } = await timed(found.read.took, () => session.read(since, 1_000))
      const [change] = changes
      if (change?.kind !== "row" || changes.length !== 1) throw new Error("somebody else writes")
      await timed(found.read.least, () => bare.query({ name: "one", text: "select 1" }))
      await timed(found.commit.least, () => insert(bare, "bare", 1))
      const heard = nextBell(listener)
      await bare.query("notify bare")
      const notified = now()
      found.bell.least.push((await heard) - notified)
      const text = frameOf({ change, as: "whole", mask: NO_MASK }, true).toString()
      found.encode.took.push(
        repeated(() => frameOf({ change: { ...change }, as: "whole", mask: NO_MASK }, true)),
      )
      found.encode.least.push(repeated(() => Buffer.from(text)))
      found.line.least.push(await line.pass(Buffer.from(text)))
      const known = [found.bell, found.read, found.encode]
      found.line.took.push(Math.max(0, last(found.whole.took) - sum(known.map(({ took }) => last(took)))))
      found.whole.least.push(sum([...known, found.line].map(({ least }) => last(least))))
      await sleep(PAUSE_MS)
    }
  } finally {
    line.close()
    session.close()
    await changelog.close()
  }
  return Object.values(found)
}

const last = (sample: readonly number[]): number => sample.at(-1) ?? 0
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)

/** A connection of this process with itself. */
async function openLine(): Promise<{ pass(bytes: Buffer): Promise<number>; close(): void }> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve))
  const far = connect({ port: (server.address() as AddressInfo).port, host: "127.0.0.1", noDelay: true })
  const near = await accepted
  near.setNoDelay(true)
  return {
    async pass(bytes) {
      const came = new Promise<number>((resolve) => far.once("data", () => resolve(now())))
      const began = now()
      near.write(bytes)
      return (await came) - began
    },
    close() {
      near.destroy()
      far.destroy()
      server.close()
    },
  }
}

/** When it comes, which may be before the writer has its answer. */
const nextBell = (listener: pg.Client): Promise<number> =>
  new Promise((resolve) => listener.once("notification", () => resolve(now())))

async function timed<T>(sample: number[], work: () => Promise<T>): Promise<T> {
  const began = now()
  const result = await work()
  sample.push(now() - began)
  return result
}

function repeated(work: () => unknown): number {
  const began = now()
  for (let n = 0; n < REPEATS; n++) work()
  return (now() - began) / REPEATS
}

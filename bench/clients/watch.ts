/** Asks a relay for its health all the time, from a process with nothing else to do, and keeps how long each answer took. */

import { Agent, get } from "node:http"
import { setTimeout as sleep } from "node:timers/promises"
import { now } from "./clock.ts"
import { type Percentiles, percentilesOf } from "./percentiles.ts"
import { serve } from "./subprocess.ts"

export type WatchOrder = { kind: "watch"; url: string } | { kind: "tell" }
/** Milliseconds. */
export type Watched = Percentiles

const PAUSE_MS = 10

const agent = new Agent({ keepAlive: true, maxSockets: 1 })
const took: number[] = []
let running: Promise<void> | undefined
let watching = true

function ask(url: string): Promise<void> {
  return new Promise((resolve, reject) => {
    get(url, { agent }, (response) => response.resume().once("end", resolve)).on("error", reject)
  })
}

async function watch(url: string): Promise<void> {
  await ask(url) // the connection is made
  while (watching) {
    const began = now()
    await ask(url)
    took.push((now() - began) / 1_000)
    await sleep(PAUSE_MS)
  }
}

serve<WatchOrder>(async (order) => {
  if (order.kind === "watch") {
    running = watch(`${order.url}/health/live`)
    running.catch(() => {})
    return
  }
  watching = false
  await running
  return percentilesOf(took)
})

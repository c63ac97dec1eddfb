/** One look at a relay: what it holds, and what the kernel says of its process. */

import { readdir, readFile } from "node:fs/promises"
import type { Server } from "../harness/server.ts"

export interface Reading {
  minute: number
  /** Megabytes. */
  rss: number
  heap: number
  /** Open file descriptors of the process. */
  descriptors: number
  /** Connections, as the relay tells. */
  told: number
  /** Established connections to its port, as the kernel tells; some are of who asks for the metrics. */
  real: number
  lanes: number
  /** Seconds. */
  lag: number
  /** Megabytes that wait for readers. */
  queued: number
  ready: boolean
}

const MB = 1_048_576

/** The exposition as series and value. */
export async function scrape({ url }: Server): Promise<Map<string, number>> {
  const answer = await fetch(`${url}/metrics`, { headers: { connection: "close" } })
  const lines = (await answer.text()).split("\n").filter((line) => line !== "" && !line.startsWith("#"))
  return new Map(
    lines.map((line) => [
      line.slice(0, line.lastIndexOf(" ")),
      Number(line.slice(line.lastIndexOf(" ") + 1)),
    ]),
  )
}

/** Established connections with this local port (proc_pid_net(5): state 01). */
async function established(port: number): Promise<number> {
  const local = `:${port.toString(16).toUpperCase().padStart(4, "0")}`
  const lines = (await readFile("/proc/net/tcp", "utf8")).split("\n").slice(1)
  return lines.filter((line) => {
    const [, address = "", , state] = line.trim().split(/\s+/)
    return address.endsWith(local) && state === "01"
  }).length
}

export async function read(server: Server, minute: number): Promise<Reading> {
  const metrics = await scrape(server)
  const of = (name: string) => metrics.get(name) ?? Number.NaN
  return {
    minute,
    rss: of("process_resident_memory_bytes") / MB,
    heap: of("nodejs_heap_size_used_bytes") / MB,
    descriptors: (await readdir(`/proc/${server.pid}/fd`)).length,
    told: of("relay_connections"),
    real: await established(Number(new URL(server.url).port)),
    lanes: of("relay_lanes"),
    lag: of("relay_feed_lag_seconds"),
    queued: (of("relay_queued_bytes") + of("relay_lane_bytes")) / MB,
    ready: of("relay_ready") === 1,
  }
}

/** How much a figure grows in an hour, by the line through all readings that fits best. */
export function growthOf(readings: readonly Reading[], figure: "rss" | "heap"): number {
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  const [x, y] = [mean(readings.map(({ minute }) => minute)), mean(readings.map((each) => each[figure]))]
  const covariance = readings.reduce((sum, each) => sum + (each.minute - x) * (each[figure] - y), 0)
  const variance = readings.reduce((sum, { minute }) => sum + (minute - x) ** 2, 0)
  return (60 * covariance) / variance
}

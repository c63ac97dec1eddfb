/**
 * `npm run soak`: an hour of a mixed night with churn and faults, and what has drifted in it. Ends with 1 if something has
 * that must not.
 */

import { chmod, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Command, InvalidArgumentError } from "commander"
import { openDatabase } from "./harness/database.ts"
import { startServer } from "./harness/server.ts"
import { openSession } from "./harness/session.ts"
import { openCrowd } from "./soak/crowd.ts"
import { FAULTS } from "./soak/faults.ts"
import { growthOf, type Reading, read, scrape } from "./soak/reading.ts"
import { openWitness, readTable } from "./soak/witness.ts"
import { write } from "./soak/writer.ts"

const WITNESSES = 3
const WRITERS = 4
/** The first tenth is for filling what is kept: recent changes, compiled code, the heap's own sizes. */
const WARM = 0.1
/** So many descriptors more are sessions and requests of the moment. */
const SPARE = 10
/** How long everything may take to come to rest. Milliseconds. */
const REST_MS = 60_000

interface Options {
  minutes: number
  clients: number
  /** Transactions a second. */
  rate: number
}

const print = (line: string) => process.stdout.write(`${line}\n`)

const COLUMNS: Array<[heading: string, cell: (reading: Reading) => string]> = [
  ["minute", ({ minute }) => minute.toFixed(1)],
  ["RSS MB", ({ rss }) => rss.toFixed(0)],
  ["heap MB", ({ heap }) => heap.toFixed(0)],
  ["descriptors", ({ descriptors }) => String(descriptors)],
  ["told", ({ told }) => String(told)],
  ["real", ({ real }) => String(real)],
  ["lanes", ({ lanes }) => String(lanes)],
  ["lag s", ({ lag }) => lag.toFixed(2)],
  ["queued MB", ({ queued }) => queued.toFixed(1)],
  ["ready", ({ ready }) => (ready ? "yes" : "no")],
]
const row = (cells: string[]) => cells.map((cell, n) => cell.padStart(COLUMNS[n]?.[0].length ?? 0)).join("  ")

/** Waits until a condition holds. @returns whether it came to that. */
async function settles(condition: () => boolean | Promise<boolean>): Promise<boolean> {
  const deadline = performance.now() + REST_MS
  while (performance.now() < deadline) {
    if (await condition()) return true
    await sleep(200)
  }
  return false
}

async function soak({ minutes, clients, rate }: Options): Promise<boolean> {
  const home = await mkdtemp(join(tmpdir(), "commitcast-soak-"))
  await chmod(home, 0o711)
  const embedded = await openDatabase(join(home, "data"))
  const { databaseUrl } = embedded
  const server = await startServer("ours", databaseUrl, {
    RETENTION_MB: "16",
    REPLAY_BUFFER_MB: "8",
    LANE_BUFFER_MB: "4",
  })
  const stop = new AbortController()
  process.once("SIGINT", () => stop.abort())
  const witnesses = Array.from({ length: WITNESSES }, () => openWitness(server.url, databaseUrl))
  const crowd = openCrowd(server.url, clients)
  const writers = Array.from({ length: WRITERS }, () => write(databaseUrl, rate / WRITERS, stop.signal))
  const faults = Object.entries(FAULTS)
  const counts = new Map<string, number>()
  const readings: Reading[] = []
  const startedAt = performance.now()
  const minute = () => (performance.now() - startedAt) / 60_000

  try {
    print(row(COLUMNS.map(([heading]) => heading)))
    let tick = 0
    // Twelve readings and as many faults in ten minutes.
    while (minute() < minutes && !stop.signal.aborted) {
      for (let second = 0; second < 50 && minute() < minutes && !stop.signal.aborted; second++) {
        crowd.churn(1)
        await sleep(1_000, undefined, { signal: stop.signal }).catch(() => {})
      }
      const reading = await read(server, minute())
      readings.push(reading)
      const [name, fault] = faults[tick++ % faults.length] as (typeof faults)[number]
      print(`${row(COLUMNS.map(([, cell]) => cell(reading)))}   then: ${name}`)
      counts.set(name, (counts.get(name) ?? 0) + 1)
      await fault({ databaseUrl, pid: server.pid, crowd })
    }
    stop.abort()
    const written = (await Promise.all(writers)).reduce((sum, each) => sum + each, 0)
    return await judge(written)
  } finally {
    stop.abort()
    crowd.close()
    for (const witness of witnesses) await witness.close()
    await server.stop()
    await embedded.stop()
    await rm(home, { recursive: true, force: true })
  }

  async function judge(written: number): Promise<boolean> {
    const session = await openSession(databaseUrl)
    const { copy: table } = await readTable(session)
    await session.end()
    const exact = await settles(() =>
      witnesses.every((witness) => witness.live() && witness.differences(table) === 0),
    )
    const there = witnesses.length + clients
    const counted = await settles(async () => (await scrape(server)).get("relay_connections") === there)
    const last = await read(server, minute())
    crowd.close()
    const emptied = await settles(async () => (await read(server, 0)).told === witnesses.length)
    const metrics = await scrape(server)
    const warm = readings.filter((reading) => reading.minute > minutes * WARM)
    const others = warm.map(({ descriptors, told }) => descriptors - told)
    const findings: Array<[string, boolean]> = [
      [
        `${written} transactions; ${[...counts].map(([name, times]) => `${name}: ${times}`).join("; ")}`,
        true,
      ],
      [
        `${witnesses.length} witnesses against ${table.size} rows: ${witnesses.map((each) => each.differences(table)).join(", ")} differences, loaded ${witnesses.map((each) => each.loads()).join(", ")} times`,
        exact,
      ],
      [`${last.told} connections told, ${last.real} real, ${there} meant to be`, counted],
      [
        `after all but the witnesses have left: ${metrics.get("relay_connections")} connections, ${metrics.get("relay_lanes")} lanes, ${metrics.get("relay_queued_bytes")} bytes queued`,
        emptied,
      ],
      [
        `grows by the hour: ${growthOf(warm, "rss").toFixed(1)} MB RSS, ${growthOf(warm, "heap").toFixed(1)} MB heap`,
        true,
      ],
      [
        `descriptors beside those of connections: ${others.at(0)} at first, ${others.at(-1)} in the end`,
        (others.at(-1) ?? 0) - (others.at(0) ?? 0) < SPARE,
      ],
      [`the longest lag at a reading: ${Math.max(...readings.map(({ lag }) => lag)).toFixed(2)} s`, true],
    ]
    print("")
    for (const [finding, holds] of findings) print(`${holds ? "ok " : "NOT"} ${finding}`)
    return findings.every(([, holds]) => holds)
  }
}

const positive = (text: string) => {
  const value = Number(text)
  if (!(value > 0)) throw new InvalidArgumentError("It must be a number above 0.")
  return value
}

await new Command("npm run soak --")
  .description("Runs a mixed load with churn and faults on a database of its own, and prints what drifted.")
  .option("--minutes <n>", "how long", positive, 60)
  .option("--clients <n>", "how many clients", positive, 150)
  .option("--rate <n>", "transactions a second", positive, 30)
  .action(async (options: Options) => {
    process.exitCode = (await soak(options)) ? 0 : 1
  })
  .parseAsync()

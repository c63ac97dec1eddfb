/**
 * The load generator, a process of its own. Each client is a bare TCP socket that upgrades and then counts frames, so
 * that thousands of them take less of the machine than the server under test. Orders come and answers go over IPC.
 */

import { connect, type Socket } from "node:net"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { now } from "./clock.ts"
import { FrameWalker } from "./frames.ts"
import { serve } from "./subprocess.ts"
import { frameOf, HEAD_END, statusOf, type Target, upgradeOf } from "./target.ts"

export type Order =
  | { kind: "connect"; target: Target; count: number }
  /** Counting begins anew. */
  | { kind: "begin" }
  /** Answered once so many events have come in all, or the time is over. */
  | { kind: "reach"; events: number; timeoutMs: number }
  | { kind: "report" }
  /** Connects and hangs up again, so many times in all. */
  | { kind: "churn"; target: Target; count: number }
  | { kind: "hang up" }

/** What was received since `begin`. */
export interface Report {
  clients: number
  /** Of them, those that are still connected. */
  open: number
  events: number
  /** What the client with the fewest events has, and the one with the most. */
  least: number
  most: number
  bytes: number
  /** Each probe that came: which, and when. */
  probes: Array<{ probe: number; at: number }>
  /** This process: its share of one core, and the 99th percentile of its event loop's delay. */
  cpuShare: number
  loopDelayMs: number
}

export interface Reached {
  reached: boolean
  /** When the event came that made the number full. */
  at: number
}

const AT_ONCE = 200
const LOOP_RESOLUTION_MS = 5
/** A row with this in it is a probe: the moment of its arrival is kept. */
const PROBE = Buffer.from("probe:")
const TEXT = 1
const CLOSE = 8
const PING = 9
const PONG = 10

/** All sockets read into the same memory: what comes is looked at at once and then forgotten. */
const memory = Buffer.allocUnsafe(256 * 1_024)
const clients = new Set<Client>()
let events = 0
let bytes = 0
let probes: Report["probes"] = []
let goal: { events: number; resolve(at: number): void } | undefined
let began = { at: now(), cpu: process.cpuUsage() }
const loop = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS })
loop.enable()

class Client {
  events = 0
  open = false
  readonly #target: Target
  readonly #event: Buffer
  readonly #socket: Socket
  readonly #walker = new FrameWalker((opcode, bytes, start, end) => this.#frame(opcode, bytes, start, end))
  #head: Buffer | undefined = Buffer.alloc(0)
  #entered = () => {}
  #refused = (_error: Error) => {}
  /** Settles when the server has let the client in. */
  readonly entered = new Promise<void>((resolve, reject) => {
    this.#entered = resolve
    this.#refused = reject
  })

  constructor(target: Target, index: number) {
    this.#target = target
    this.#event = Buffer.from(target.event)
    this.#socket = connect({
      host: target.host,
      port: target.port,
      localAddress: sourceOf(index),
      noDelay: true,
      onread: {
        buffer: memory,
        callback: (length) => {
          this.#take(length)
          return true
        },
      },
    })
    this.#socket.on("error", this.#refused)
    this.#socket.on("close", () => {
      this.open = false
      this.#refused(new Error("the server hung up"))
    })
    this.#socket.write(upgradeOf(target, target.paths[index % target.paths.length] as string))
  }

  hangUp(): Promise<void> {
    return new Promise((resolve) => {
      this.#socket.once("close", () => resolve())
      this.#socket.destroy()
    })
  }

  #take(length: number): void {
    bytes += length
    if (this.#head === undefined) return this.#walker.push(memory, 0, length)
    const head = Buffer.concat([this.#head, memory.subarray(0, length)])
    const end = head.indexOf(HEAD_END)
    this.#head = end < 0 ? head : undefined
    if (end < 0) return
    const status = statusOf(head)
    if (status !== "101") {
      this.#refused(new Error(`the server refused the upgrade with ${status}`))
      return
    }
    this.open = true
    if (this.#target.ready === undefined) this.#entered()
    this.#walker.push(head, end + HEAD_END.length, head.length)
  }

  #frame(opcode: number, bytes: Buffer, start: number, end: number): void {
    if (begins(bytes, start, end, this.#event)) return this.#count(bytes.subarray(start, end))
    if (opcode === PING) this.#send(PONG, bytes.subarray(start, end))
    if (opcode === CLOSE) this.open = false
    if (opcode !== TEXT) return
    const text = bytes.toString("latin1", start, Math.min(end, start + 64))
    const { ready, answers = [] } = this.#target
    if (ready !== undefined && text.startsWith(ready)) this.#entered()
    for (const { to, say } of answers) if (text.startsWith(to)) this.#send(TEXT, Buffer.from(say))
  }

  #count(payload: Buffer): void {
    this.events++
    events++
    const probe = payload.indexOf(PROBE)
    if (probe >= 0) {
      const digits = payload.toString("latin1", probe + PROBE.length, probe + PROBE.length + 12)
      probes.push({ probe: Number.parseInt(digits, 10), at: now() })
    }
    if (goal !== undefined && events >= goal.events) {
      goal.resolve(now())
      goal = undefined
    }
  }

  #send(opcode: number, payload: Buffer): void {
    this.#socket.write(frameOf(opcode, payload))
  }
}

function begins(bytes: Buffer, start: number, end: number, prefix: Buffer): boolean {
  if (end - start < prefix.length) return false
  for (let i = 0; i < prefix.length; i++) if (bytes[start + i] !== prefix[i]) return false
  return true
}

/** Ports run out before clients do, so clients come from many addresses where all of 127.0.0.0/8 is this machine. */
const sourceOf = (index: number): string =>
  process.platform === "linux" ? `127.0.0.${2 + (index % 250)}` : "127.0.0.1"

async function times(count: number, work: (n: number) => Promise<void>): Promise<void> {
  let next = 0
  const worker = async () => {
    while (next < count) await work(next++)
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, worker))
}

async function enter(target: Target, index: number): Promise<Client> {
  const client = new Client(target, index)
  await client.entered
  return client
}

async function obey(order: Order): Promise<unknown> {
  switch (order.kind) {
    case "connect": {
      const before = clients.size
      return times(order.count, async (n) => void clients.add(await enter(order.target, before + n)))
    }
    case "begin":
      for (const client of clients) client.events = 0
      events = 0
      bytes = 0
      probes = []
      began = { at: now(), cpu: process.cpuUsage() }
      return loop.reset()
    case "reach":
      return reach(order.events, order.timeoutMs)
    case "report":
      return report()
    case "churn":
      return times(order.count, async (n) => (await enter(order.target, n)).hangUp())
    case "hang up":
      await Promise.all([...clients].map((client) => client.hangUp()))
      return clients.clear()
  }
}

function reach(wanted: number, timeoutMs: number): Promise<Reached> {
  return new Promise((resolve) => {
    if (events >= wanted) return resolve({ reached: true, at: now() })
    const timer = setTimeout(() => {
      goal = undefined
      resolve({ reached: false, at: now() })
    }, timeoutMs)
    goal = {
      events: wanted,
      resolve(at) {
        clearTimeout(timer)
        resolve({ reached: true, at })
      },
    }
  })
}

function report(): Report {
  const { user, system } = process.cpuUsage(began.cpu)
  let least = Number.POSITIVE_INFINITY
  let most = 0
  let open = 0
  for (const client of clients) {
    least = Math.min(least, client.events)
    most = Math.max(most, client.events)
    if (client.open) open++
  }
  return {
    clients: clients.size,
    open,
    events,
    least: clients.size === 0 ? 0 : least,
    most,
    bytes,
    probes,
    cpuShare: (user + system) / (now() - began.at),
    loopDelayMs: Math.max(0, loop.percentile(99) / 1e6 - LOOP_RESOLUTION_MS),
  }
}

serve(obey)

/**
 * A TCP proxy that fails on demand: refuses, cuts, goes silent, slows down, or changes what passes. Before several
 * targets it is a plain balancer that takes them in turn.
 */

import type { AddressInfo } from "node:net"
import { createConnection, createServer, type Socket } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import type { Test } from "tap"

export interface TcpProxy {
  port: number
  /** Ends all connections, as a killed process does. */
  cut(): void
  /** Ends each connection, and those that come, in the middle of whatever the server sends: after so many more bytes of it. */
  cutAfter(bytes: number): void
  /** Passes nothing on any more, in either direction, and closes nothing: a half-open connection. */
  silence(): void
  /** New connections are closed at once. */
  refuse(): void
  /** Everything passes so much later, in either direction. */
  delay(ms: number): void
  /** Each connection passes so much in either direction. What is more waits in the sender, as on a slow line. */
  limit(bytesPerSecond: number): void
  /** New connections go there, in turn. */
  aim(...targetPorts: number[]): void
  /** As in the beginning, to the present targets; connections that were silenced stay so. */
  heal(): void
  /** Connections now. */
  count(): number
}

/** What a direction holds back before its sender has to wait. */
const HELD_BYTES = 65_536
/** A limit lets a part pass this often. Milliseconds. */
const TURN_MS = 10

interface Shape {
  delayMs: number
  bytesPerSecond: number
}

/** Opens a proxy to a local port or several, closed with the test. `answer` may change what the server sends. */
export async function startProxy(
  t: Test,
  target: number | readonly number[],
  answer: (data: Buffer) => Buffer = (data) => data,
): Promise<TcpProxy> {
  const pairs = new Set<{ client: Socket; server: Socket; silent: boolean; left: number }>()
  const shape: Shape = { delayMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY }
  let targets = typeof target === "number" ? [target] : [...target]
  let turn = 0
  let refusing = false
  let allowance = Number.POSITIVE_INFINITY

  async function accept(client: Socket): Promise<void> {
    const server = await connectInTurn()
    if (server === undefined || client.destroyed) {
      server?.destroy()
      client.destroy()
      return
    }
    const pair = { client, server, silent: false, left: allowance }
    pairs.add(pair)
    const end = () => {
      pairs.delete(pair)
      client.destroy()
      server.destroy()
    }
    server.on("error", () => client.destroy())
    pass(client, server, shape, (data) => (pair.silent ? undefined : data))
    const answered = pass(server, client, shape, (data) => {
      if (pair.silent) return undefined
      const changed = answer(data)
      const passing = changed.subarray(0, pair.left)
      pair.left -= passing.length
      if (pair.left === 0) client.write(passing, end)
      return pair.left === 0 ? undefined : passing
    })
    client.on("close", end)
    // What the server has sent before it closed still passes.
    server.on("close", () => void answered().then(() => !pair.silent && client.destroySoon()))
  }

  /** The next target that answers; a balancer passes over those that do not. */
  async function connectInTurn(): Promise<Socket | undefined> {
    for (let n = 0; n < targets.length; n++) {
      const port = targets[turn++ % targets.length] as number
      const server = createConnection({ port, host: "127.0.0.1" })
      const connected = await new Promise<boolean>((resolve) => {
        server.once("connect", () => resolve(true))
        server.once("error", () => resolve(false))
      })
      if (connected) return server
    }
    return undefined
  }

  const listener = createServer({ pauseOnConnect: true }, (client) => {
    client.on("error", () => {})
    if (refusing) client.destroy()
    else void accept(client)
  })
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve))
  const cut = () => {
    for (const { client, server } of pairs) {
      client.destroy()
      server.destroy()
    }
  }
  t.teardown(() => {
    cut()
    listener.close()
  })
  return {
    port: (listener.address() as AddressInfo).port,
    cut,
    cutAfter(bytes) {
      allowance = bytes
      for (const pair of pairs) pair.left = bytes
    },
    silence() {
      for (const pair of pairs) pair.silent = true
    },
    refuse() {
      refusing = true
    },
    delay(ms) {
      shape.delayMs = ms
    },
    limit(bytesPerSecond) {
      shape.bytesPerSecond = bytesPerSecond
    },
    aim(...targetPorts) {
      targets = targetPorts
    },
    heal() {
      refusing = false
      shape.delayMs = 0
      shape.bytesPerSecond = Number.POSITIVE_INFINITY
      allowance = Number.POSITIVE_INFINITY
      for (const pair of pairs) pair.left = allowance
    },
    count: () => pairs.size,
  }
}

/**
 * Passes on what comes, in order, as the shape says at that time; nothing where `filter` gives nothing.
 * @returns resolves once what has come so far has passed.
 */
function pass(
  from: Socket,
  to: Socket,
  shape: Shape,
  filter: (data: Buffer) => Buffer | undefined,
): () => Promise<void> {
  const held: Array<{ data: Buffer; due: number }> = []
  let heldBytes = 0
  let running = Promise.resolve()

  async function write(data: Buffer): Promise<void> {
    let rest = data
    while (rest.length > 0 && !to.destroyed) {
      const limited = Number.isFinite(shape.bytesPerSecond)
      const part = limited ? Math.max(1, Math.round((shape.bytesPerSecond * TURN_MS) / 1_000)) : rest.length
      const passing = filter(rest.subarray(0, part))
      rest = rest.subarray(part)
      if (passing !== undefined && !to.write(passing) && !to.destroyed) await roomIn(to)
      if (limited) await sleep(TURN_MS)
    }
  }

  async function run(): Promise<void> {
    for (let next = held[0]; next !== undefined; next = held[0]) {
      if (next.due > Date.now()) await sleep(next.due - Date.now())
      await write(next.data)
      held.shift()
      heldBytes -= next.data.length
      if (heldBytes < HELD_BYTES) from.resume()
    }
  }

  from.on("data", (data: Buffer) => {
    held.push({ data, due: Date.now() + shape.delayMs })
    heldBytes += data.length
    if (heldBytes >= HELD_BYTES) from.pause()
    if (held.length === 1) running = run()
  })
  from.resume()
  return () => running
}

/** Waits until a socket takes more, or nothing any more. */
function roomIn(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.off("drain", done)
      socket.off("close", done)
      resolve()
    }
    socket.on("drain", done)
    socket.on("close", done)
  })
}

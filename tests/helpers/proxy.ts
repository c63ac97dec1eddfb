/** A TCP proxy that fails on demand: refuses, cuts, goes silent, or changes what passes. */

import type { AddressInfo } from "node:net"
import { createConnection, createServer, type Socket } from "node:net"
import type { Test } from "tap"

export interface TcpProxy {
  port: number
  /** Ends all connections, as a killed process does. */
  cut(): void
  /** Passes nothing on any more, in either direction, and closes nothing: a half-open connection. */
  silence(): void
  /** New connections are closed at once. */
  refuse(): void
  /** As in the beginning; connections that were silenced stay so. */
  heal(): void
  /** New connections go to another local port. */
  retarget(port: number): void
  /** Connections now. */
  count(): number
}

/** Opens a proxy to a local port, closed with the test. `answer` may change what the server sends. */
export async function startProxy(
  t: Test,
  targetPort: number,
  answer: (data: Buffer) => Buffer = (data) => data,
): Promise<TcpProxy> {
  const pairs = new Set<{ client: Socket; server: Socket; silent: boolean }>()
  let refusing = false
  let target = targetPort
  const listener = createServer((client) => {
    client.on("error", () => {})
    if (refusing) {
      client.destroy()
      return
    }
    const server = createConnection({ port: target, host: "127.0.0.1" })
    const pair = { client, server, silent: false }
    pairs.add(pair)
    server.on("error", () => client.destroy())
    client.on("data", (data) => !pair.silent && server.write(data))
    server.on("data", (data) => !pair.silent && client.write(answer(data)))
    const end = () => {
      pairs.delete(pair)
      client.destroy()
      server.destroy()
    }
    client.on("close", end)
    server.on("close", () => !pair.silent && end())
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
    silence() {
      for (const pair of pairs) pair.silent = true
    },
    refuse() {
      refusing = true
    },
    heal() {
      refusing = false
    },
    retarget(port) {
      target = port
    },
    count: () => pairs.size,
  }
}

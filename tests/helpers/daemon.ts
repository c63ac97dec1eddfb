/** A program of this machine that listens on a port, run as long as a test. */

import { type ChildProcess, spawn } from "node:child_process"
import { createConnection } from "node:net"
import type { Test } from "tap"
import { until } from "./wait.ts"

/** Runs it until the end of the test, and waits until it listens. @returns what it prints. */
export async function startDaemon(
  t: Test,
  command: string,
  args: string[],
  port: number,
): Promise<() => string> {
  const child: ChildProcess = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] })
  let printed = ""
  for (const stream of [child.stdout, child.stderr])
    stream?.on("data", (data: Buffer) => {
      printed += data.toString()
    })
  const ended = new Promise((resolve) => child.once("close", resolve))
  t.teardown(async () => {
    child.kill("SIGTERM")
    await ended
  })
  await until(`${command} listens`, async () => {
    if (child.exitCode !== null) throw new Error(`${command} has ended: ${printed}`)
    return listens(port)
  })
  return () => printed
}

const listens = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = createConnection(port, "127.0.0.1", () => {
      socket.destroy()
      resolve(true)
    })
    socket.on("error", () => resolve(false))
  })

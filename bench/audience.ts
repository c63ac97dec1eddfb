/** The clients of a server under test, as the bench sees them: a handle on a load generator. */

import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import type { Order, Reached, Report, Target } from "./load.ts"

export interface Audience {
  /** Adds clients; resolves when the server has let all of them in. */
  connect(count: number): Promise<void>
  /** Counts from zero. */
  begin(): Promise<void>
  /** Waits until so many events have come to all clients together since `begin`. */
  reach(events: number, timeoutMs?: number): Promise<Reached>
  report(): Promise<Report>
  /** Connects and hangs up again, so many times. */
  churn(count: number): Promise<void>
  hangUp(): Promise<void>
  stop(): Promise<void>
}

const PATIENCE_MS = 10_000

/** Starts a load generator, with no clients yet. */
export function startAudience(target: Target): Audience {
  const child = fork(fileURLToPath(import.meta.resolve("./load.ts")), { execArgv: ["--import", "tsx"] })
  const waiting = new Map<number, PromiseWithResolvers>()
  let last = 0
  child.on("message", ({ id, answer, error }: { id: number; answer?: unknown; error?: string }) => {
    const asked = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) asked?.resolve(answer)
    else asked?.reject(new Error(error))
  })
  const exited = new Promise<void>((resolve) => {
    child.once("exit", () => {
      for (const { reject } of waiting.values()) reject(new Error("the load generator has died"))
      resolve()
    })
  })
  const ask = <Answer = void>(order: Order): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const id = ++last
      waiting.set(id, { resolve: resolve as (answer: unknown) => void, reject })
      child.send({ id, order })
    })
  return {
    connect: (count) => ask({ kind: "connect", target, count }),
    begin: () => ask({ kind: "begin" }),
    reach: (events, timeoutMs = PATIENCE_MS) => ask<Reached>({ kind: "reach", events, timeoutMs }),
    report: () => ask<Report>({ kind: "report" }),
    churn: (count) => ask({ kind: "churn", target, count }),
    hangUp: () => ask({ kind: "hang up" }),
    stop() {
      child.kill("SIGKILL")
      return exited
    },
  }
}

interface PromiseWithResolvers {
  resolve(answer: unknown): void
  reject(error: Error): void
}

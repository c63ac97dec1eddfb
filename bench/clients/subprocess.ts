/** A process that does a part of the measuring and is asked over IPC; both ends of it. */

import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"

export interface Helper<Order> {
  /** @throws Error if the helper could not do it, or has died */
  ask<Answer = void>(order: Order): Promise<Answer>
  stop(): Promise<void>
}

interface Question {
  id: number
  order: unknown
}
interface Reply {
  id: number
  answer?: unknown
  error?: string
}

/** Starts one. @param script beside this file. */
export function startHelper<Order>(script: string): Helper<Order> {
  const child = fork(fileURLToPath(new URL(script, import.meta.url)), { execArgv: ["--import", "tsx"] })
  const waiting = new Map<number, { resolve(answer: unknown): void; reject(error: Error): void }>()
  let last = 0
  child.on("message", ({ id, answer, error }: Reply) => {
    const asked = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) asked?.resolve(answer)
    else asked?.reject(new Error(error))
  })
  const exited = new Promise<void>((resolve) => {
    child.once("exit", () => {
      for (const { reject } of waiting.values()) reject(new Error(`${script} has died`))
      resolve()
    })
  })
  return {
    ask: <Answer>(order: Order) =>
      new Promise<Answer>((resolve, reject) => {
        const id = ++last
        waiting.set(id, { resolve: resolve as (answer: unknown) => void, reject })
        child.send({ id, order } satisfies Question)
      }),
    stop() {
      child.kill("SIGKILL")
      return exited
    },
  }
}

/** Makes this process a helper; it ends with the one that started it. */
export function serve<Order>(obey: (order: Order) => Promise<unknown>): void {
  const reply = (reply: Reply) => process.send?.(reply)
  process.on("message", ({ id, order }: Question) => {
    obey(order as Order).then(
      (answer) => reply({ id, answer }),
      (error: Error) => reply({ id, error: error.message }),
    )
  })
  process.on("disconnect", () => process.exit())
}

/** The workers that take part: admitted, watched, and asked about themselves. */

import type { Duplex } from "node:stream"
import type { z } from "zod"
import { createTimerLag } from "../lib/timer-lag.ts"
import type { Log } from "../telemetry/log.ts"
import type { FeedMessageText } from "./feed-message.ts"
import type { Forwarder } from "./forwarder.ts"
import { createIpcChannel, type IpcChannel, type IpcDeps, lineOf, type Question } from "./ipc.ts"
import type { Share } from "./share.ts"
import { WorkerMessage } from "./upstream.ts"

export interface WorkerEvents {
  /** It serves clients. */
  onReady(): void
  /** It is of no use any more: end its process if that has not ended. */
  onFailed(reason: "closed" | "stuck"): void
}

export interface WorkerPool {
  size(): number
  /** Takes in a worker. @param stream the socket that it inherited the other end of. */
  admit(
    pid: number,
    stream: Duplex,
    events: WorkerEvents & Pick<IpcDeps, "onQuestion">,
  ): { send(message: FeedMessageText): void }
  /** Asks all workers; those that do not answer are left out. */
  askAll<T>(question: Question, schema: z.ZodType<T>): Promise<Array<{ pid: number; answer: T }>>
  stop(): void
}

export interface WorkerPoolDeps {
  forwarder: Forwarder
  /** The state of the source as it is now, which workers are sent again and again. */
  status(): FeedMessageText
  log: Log
}

/** How often the state of the source is sent. Milliseconds. */
const STATUS_MS = 250
/** A worker that takes no part of the feed for this long holds up all the others. Milliseconds. */
const STUCK_MS = 15_000
/** How long a worker may take to answer about itself. Milliseconds. */
const ANSWER_MS = 2_000

interface Worker {
  readonly pid: number
  readonly ipc: IpcChannel
  readonly share: Share
  readonly events: WorkerEvents
}

export function createWorkerPool({ forwarder, status, log }: WorkerPoolDeps): WorkerPool {
  const workers = new Set<Worker>()
  const timerLag = createTimerLag(STATUS_MS)
  const timer = setInterval(watch, STATUS_MS)
  timer.unref()

  function watch(): void {
    const line = lineOf(status())
    const late = timerLag()
    for (const worker of workers) {
      worker.ipc.write(line)
      worker.share.excuse(late)
      if (worker.share.stuckFor() > STUCK_MS) fail(worker, "stuck")
    }
  }

  function fail(worker: Worker, reason: "closed" | "stuck"): void {
    if (!workers.delete(worker)) return
    worker.share.end()
    worker.ipc.close()
    worker.events.onFailed(reason)
  }

  return {
    size: () => workers.size,
    admit(pid, stream, { onQuestion, ...events }) {
      const ipc = createIpcChannel({
        stream,
        onQuestion,
        onClosed(error) {
          if (error !== undefined)
            log.error({ event: "worker_unintelligible", worker: pid, error: error.message })
          fail(worker, "closed")
        },
        onMessage(message) {
          if (WorkerMessage.parse(message).kind === "taken") worker.share.taken()
          else events.onReady()
        },
      })
      const worker: Worker = { pid, ipc, share: forwarder.add(ipc), events }
      workers.add(worker)
      ipc.write(lineOf(status()))
      return { send: ipc.send }
    },
    async askAll(question, schema) {
      const answers = await Promise.all(
        [...workers].map(async ({ pid, ipc }) => {
          const answer = schema.safeParse(await ipc.ask(question, ANSWER_MS).catch(() => undefined))
          return answer.success ? { pid, answer: answer.data } : undefined
        }),
      )
      return answers.filter((answer) => answer !== undefined)
    },
    stop: () => clearInterval(timer),
  }
}

/** The upstream: the primary, as a worker sees it through the channel between them. */

import type { Duplex } from "node:stream"
import { z } from "zod"
import { type Change, LogRow, readChange } from "../change/change.ts"
import type { FeedConsumer } from "../feed/batch.ts"
import type { Source, SourceState } from "../feed/source.ts"
import { Report } from "../health/report.ts"
import { TimeSlice } from "../lib/time-slice.ts"
import { FeedMessage, type SourceStatus, stateOf } from "./feed-message.ts"
import { createIpcChannel, type Question } from "./ipc.ts"

export interface Upstream {
  /** The feed that it shares, as a source of this process. */
  source(consumer: FeedConsumer): Source
  /** The report of all processes together. */
  report(): Promise<Report>
  /** The metrics of all processes together, as Prometheus reads them. */
  exposition(): Promise<string>
  /** Tells the primary how this worker stands. */
  send(message: WorkerMessage): void
}

/** From a worker: `taken`, it has handed a part to its lanes; `ready`, it serves clients. */
export const WorkerMessage = z.object({ kind: z.enum(["taken", "ready"]) })
export type WorkerMessage = z.infer<typeof WorkerMessage>

export interface UpstreamDeps {
  stream: Duplex
  /** Answers a question about this process. */
  onQuestion(question: Question): Promise<unknown>
  /** The primary wants this worker to close its clients and exit. */
  onStop(): void
  /** The primary is gone. */
  onClosed(error: Error | undefined): void
}

const ANSWER_MS = 10_000

const UNKNOWN: SourceState = {
  listener: { kind: "down", since: 0, attempts: 0, error: undefined },
  feed: { kind: "down", since: 0, attempts: 0, error: undefined },
  lagMs: Number.POSITIVE_INFINITY,
  bell: { mode: "quiet", heard: 0, skipped: 0, polls: 0 },
  canary: { provenAt: null, waitingSince: null, error: null, failingSince: null },
  unreadable: { rows: 0, last_seq: null },
  upkeep: [],
}

export function createUpstream({ stream, onQuestion, onStop, onClosed }: UpstreamDeps): Upstream {
  let consumer: FeedConsumer | undefined
  let status: SourceStatus | undefined
  /** Bulletins of the feed, one after another: a part is over when the lanes have it. */
  let inOrder: Promise<void> = Promise.resolve()

  const ipc = createIpcChannel({
    stream,
    onQuestion,
    onClosed,
    onMessage(input) {
      const message = FeedMessage.parse(input)
      if (message.kind === "status") status = message
      else if (message.kind === "stop") onStop()
      else inOrder = inOrder.then(() => pass(message)).catch(ipc.close)
    },
  })

  async function pass(message: Exclude<FeedMessage, { kind: "status" | "stop" }>): Promise<void> {
    switch (message.kind) {
      case "adopt":
        return consumer?.adopt(message.lineage, new Set(message.lineages))
      case "position":
        return consumer?.begin(message.cursor, message.revocations)
      case "lost":
        return consumer?.lost()
      case "reset":
        return consumer?.reset()
      case "derived":
        return consumer?.showDerived(message.set)
      case "part": {
        const { rows, revocations, cursor, first, final } = message
        await consumer?.deliver({ changes: await readChanges(rows), revocations, cursor, first, final })
        send({ kind: "taken" })
      }
    }
  }

  const send = (message: WorkerMessage) => ipc.send(message)
  const report = async () => Report.parse(await ipc.ask("report", ANSWER_MS))

  return {
    send,
    report,
    source(of) {
      consumer = of
      return {
        start() {},
        state: () => (status === undefined ? UNKNOWN : stateOf(status)),
        async refresh(timeoutMs) {
          const fresh = await ipc.ask("refresh", timeoutMs).catch(() => false)
          // What was read came before the answer, and is passed on first.
          await inOrder
          return fresh === true
        },
        tables: async () => (await report()).tables,
        derived: () => [],
        async stop() {},
      }
    },
    exposition: async () => z.string().parse(await ipc.ask("metrics", ANSWER_MS)),
  }
}

/** Reads changes, in slices. @throws if the primary sent something else: it has read each of them itself. */
async function readChanges(rows: readonly unknown[]): Promise<Change[]> {
  const slice = new TimeSlice()
  const changes: Change[] = []
  for (const row of rows) {
    changes.push(readChange(LogRow.parse(row)))
    if (slice.over) await slice.turn()
  }
  return changes
}

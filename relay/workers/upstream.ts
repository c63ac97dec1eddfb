/** The upstream: the process that reads the log for this one, through the pipe between them. */

import type { Duplex } from "node:stream"
import { z } from "zod"
import type { FeedConsumer } from "../feed/batch.ts"
import { readChanges } from "../feed/log-session.ts"
import type { Source, SourceState } from "../feed/source.ts"
import { Report } from "../health/report.ts"
import { FeedMessage, type Standing, stateOf } from "./feed-message.ts"
import { createIpcChannel, type Question } from "./ipc.ts"

export interface Upstream {
  /** The feed that it shares, as a source of this process. */
  source(consumer: FeedConsumer): Source
  /** The report of all processes together. */
  report(): Promise<Report>
  /** The metrics of all processes together, as Prometheus reads them. */
  exposition(): Promise<string>
  /** Tells how this process stands. */
  tell(news: WorkerMessage): void
}

/** What a worker tells: that it has handed a part to its lanes, and that it serves clients. */
export const WorkerMessage = z.object({ kind: z.enum(["taken", "ready"]) })
export type WorkerMessage = z.infer<typeof WorkerMessage>

export interface UpstreamDeps {
  stream: Duplex
  /** What this process is asked about itself. */
  asked(question: Question): Promise<unknown>
  /** It is to close its clients and end. */
  onStop(): void
  /** The upstream is gone. */
  onClosed(error: Error | undefined): void
}

const ANSWER_MS = 10_000

const NEVER_HEARD: SourceState = {
  listener: { kind: "down", since: 0, attempts: 0, error: undefined },
  feed: { kind: "down", since: 0, attempts: 0, error: undefined },
  lagMs: Number.POSITIVE_INFINITY,
  bell: { mode: "quiet", heard: 0, skipped: 0, polls: 0 },
  canary: { provenAt: null, waitingSince: null, error: null },
}

export function createUpstream({ stream, asked, onStop, onClosed }: UpstreamDeps): Upstream {
  let consumer: FeedConsumer | undefined
  let standing: Standing | undefined
  /** Bulletins of the feed, one after another: a part is over when the lanes have it. */
  let inOrder: Promise<void> = Promise.resolve()

  const pipe = createIpcChannel({
    stream,
    asked,
    closed: onClosed,
    told(input) {
      const message = FeedMessage.parse(input)
      if (message.kind === "standing") standing = message
      else if (message.kind === "stop") onStop()
      else inOrder = inOrder.then(() => pass(message)).catch(pipe.close)
    },
  })

  async function pass(message: Exclude<FeedMessage, { kind: "standing" | "stop" }>): Promise<void> {
    switch (message.kind) {
      case "meet":
        return consumer?.meet(message.lineage, new Set(message.lineages))
      case "position":
        return consumer?.begin(message.cursor, message.revocations)
      case "lost":
        return consumer?.lost()
      case "reset":
        return consumer?.reset()
      case "figures":
        return consumer?.show(message.set)
      case "part": {
        const { rows, revocations, cursor, first, final } = message
        await consumer?.deliver({ changes: await readChanges(rows), revocations, cursor, first, final })
        tell({ kind: "taken" })
      }
    }
  }

  const tell = (news: WorkerMessage) => pipe.tell(news)
  const report = async () => Report.parse(await pipe.ask("report", ANSWER_MS))

  return {
    tell,
    report,
    source(of) {
      consumer = of
      return {
        start() {},
        state: () => (standing === undefined ? NEVER_HEARD : stateOf(standing)),
        async refresh(timeoutMs) {
          const fresh = await pipe.ask("refresh", timeoutMs).catch(() => false)
          // What was read came before the answer, and is passed on in its turn.
          await inOrder
          return fresh === true
        },
        tables: async () => (await report()).tables,
        derived: () => [],
        async stop() {},
      }
    },
    exposition: async () => z.string().parse(await pipe.ask("metrics", ANSWER_MS)),
  }
}

/**
 * The pipe between the process that reads the log and one that serves clients: JSON, a message a line, over a socket
 * that both have from birth. Either side may ask the other, and messages keep their order.
 */

import type { Duplex } from "node:stream"
import { z } from "zod"
import { deferred } from "../lib/deferred.ts"

/** What either side may be asked. */
const Question = z.enum(["refresh", "report", "metrics", "hub", "keys", "limits", "disconnects", "totals"])
export type Question = z.infer<typeof Question>

const Envelope = z.union([
  z.object({ ask: Question, id: z.number(), timeoutMs: z.number() }),
  z.object({ answer: z.unknown(), id: z.number() }),
  z.object({ tell: z.unknown() }),
])

export interface IpcDeps {
  stream: Duplex
  /** Takes what the other side tells. A throw ends the pipe. */
  told(message: unknown): void
  /** Answers what the other side asks within the time, in milliseconds; a failure is told as null. */
  asked(question: Question, timeoutMs: number): Promise<unknown>
  /** The other side is gone, or said what cannot be understood. Called once. */
  closed(error?: Error): void
}

export interface IpcChannel {
  tell(message: unknown): void
  /** Sends a line that `lineOf` made: the same for several pipes. */
  write(line: Buffer): void
  /** @throws if the pipe is closed before the answer or there is none within the time, in milliseconds. */
  ask(question: Question, timeoutMs: number): Promise<unknown>
  /** @param error why, where it is this side that cannot go on. */
  close(error?: Error): void
}

/** A message as the bytes of its line. */
export const lineOf = (message: unknown): Buffer => Buffer.from(`${JSON.stringify({ tell: message })}\n`)

export function createIpcChannel({ stream, told, asked, closed }: IpcDeps): IpcChannel {
  const questions = new Map<number, (answer: unknown) => void>()
  let ids = 0
  let open = true

  const send = (envelope: z.infer<typeof Envelope>) => write(Buffer.from(`${JSON.stringify(envelope)}\n`))

  function write(line: Buffer): void {
    if (open) stream.write(line)
  }

  function receive(line: string): void {
    const envelope = Envelope.parse(JSON.parse(line))
    if ("ask" in envelope) {
      void asked(envelope.ask, envelope.timeoutMs).then(
        (answer) => send({ answer, id: envelope.id }),
        () => send({ answer: null, id: envelope.id }),
      )
    } else if ("id" in envelope) {
      questions.get(envelope.id)?.(envelope.answer)
    } else {
      told(envelope.tell)
    }
  }

  function end(error?: Error): void {
    if (!open) return
    open = false
    stream.destroy()
    closed(error)
  }

  readLines(stream, receive, end)
  // However it ends: what matters is that nothing comes any more.
  stream.on("error", () => end())
  stream.on("close", () => end())
  return {
    tell: (message) => send({ tell: message }),
    write,
    async ask(ask, timeoutMs) {
      const id = ids++
      const answer = deferred<unknown>()
      const timer = setTimeout(() => answer.reject(new Error(`no answer to ${ask}`)), timeoutMs)
      questions.set(id, answer.resolve)
      send({ ask, id, timeoutMs })
      try {
        return await answer.promise
      } finally {
        clearTimeout(timer)
        questions.delete(id)
      }
    },
    close: end,
  }
}

const NEWLINE = 0x0a

/** JSON holds no newline, so a line is found without looking at its text. */
function readLines(stream: Duplex, take: (line: string) => void, fail: (error: Error) => void): void {
  let begun: Buffer[] = []
  stream.on("data", (chunk: Buffer) => {
    try {
      let from = 0
      for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, from)) {
        const rest = chunk.subarray(from, end)
        take((begun.length === 0 ? rest : Buffer.concat([...begun, rest])).toString())
        begun = []
        from = end + 1
      }
      if (from < chunk.length) begun.push(chunk.subarray(from))
    } catch (error) {
      fail(error as Error)
    }
  })
}

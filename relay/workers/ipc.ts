/**
 * The channel between the primary, which reads the log, and a worker, which serves clients: JSON, a message a line, over a
 * socket that both inherit. Either side may question the other, and messages keep their order.
 */

import type { Duplex } from "node:stream"
import { z } from "zod"
import { deferred } from "../lib/deferred.ts"

/** What one side may ask the other. */
const Question = z.enum(["refresh", "report", "metrics", "hub", "keys", "limits", "disconnects", "totals"])
export type Question = z.infer<typeof Question>

const Envelope = z.union([
  z.object({ ask: Question, id: z.number(), timeoutMs: z.number() }),
  z.object({ answer: z.unknown(), id: z.number() }),
  z.object({ message: z.unknown() }),
])

export interface IpcDeps {
  stream: Duplex
  /** A message came. A throw closes the channel. */
  onMessage(message: unknown): void
  /** Answers a question within the time, in milliseconds; a failure is answered with null. */
  onQuestion(question: Question, timeoutMs: number): Promise<unknown>
  /** The other side is gone, or sent something unintelligible. Called once. */
  onClosed(error?: Error): void
}

export interface IpcChannel {
  send(message: unknown): void
  /** Sends a line that `lineOf` made, once for several channels. */
  write(line: Buffer): void
  /** @throws if the channel closes before the answer or none comes within the time, in milliseconds. */
  ask(question: Question, timeoutMs: number): Promise<unknown>
  /** @param error why this side cannot go on. */
  close(error?: Error): void
}

/** A message as the bytes of its line. */
export const lineOf = (message: unknown): Buffer => Buffer.from(`${JSON.stringify({ message })}\n`)

export function createIpcChannel({ stream, onMessage, onQuestion, onClosed }: IpcDeps): IpcChannel {
  const questions = new Map<number, (answer: unknown) => void>()
  let ids = 0
  let open = true

  const sendEnvelope = (envelope: z.infer<typeof Envelope>) =>
    write(Buffer.from(`${JSON.stringify(envelope)}\n`))

  function write(line: Buffer): void {
    if (open) stream.write(line)
  }

  function receive(line: string): void {
    const envelope = Envelope.parse(JSON.parse(line))
    if ("ask" in envelope) {
      void onQuestion(envelope.ask, envelope.timeoutMs).then(
        (answer) => sendEnvelope({ answer, id: envelope.id }),
        () => sendEnvelope({ answer: null, id: envelope.id }),
      )
    } else if ("id" in envelope) {
      questions.get(envelope.id)?.(envelope.answer)
    } else {
      onMessage(envelope.message)
    }
  }

  function end(error?: Error): void {
    if (!open) return
    open = false
    stream.destroy()
    onClosed(error)
  }

  readLines(stream, receive, end)
  // However it ends, nothing comes any more.
  stream.on("error", () => end())
  stream.on("close", () => end())
  return {
    send: (message) => sendEnvelope({ message }),
    write,
    async ask(ask, timeoutMs) {
      const id = ids++
      const answer = deferred<unknown>()
      const timer = setTimeout(() => answer.reject(new Error(`no answer to ${ask}`)), timeoutMs)
      questions.set(id, answer.resolve)
      sendEnvelope({ ask, id, timeoutMs })
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

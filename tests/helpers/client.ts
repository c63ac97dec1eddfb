/** A WebSocket client that keeps what it receives. */

import type { Test } from "tap"
import { type ClientOptions, WebSocket } from "ws"
import { DEADLINE_MS } from "./wait.ts"

/** A message as it came; tests know what to look for. */
export interface Received {
  type: string
  action?: string
  id?: string
  table?: string
  key?: Record<string, unknown>
  data?: Record<string, unknown>
  changed?: string[]
  before?: Record<string, unknown>
  channels?: string[]
  cursor?: string
  code?: string
  tx?: { id: string; last: boolean }
  [field: string]: unknown
}

export interface Client {
  socket: WebSocket
  /** All messages so far, in order. */
  messages: Received[]
  /** The same as text. */
  texts: string[]
  /** The changes among them. */
  changes(): Received[]
  /** The first message, past or coming, that fits. @throws where the connection ends before. */
  first(what: string, fits: (message: Received) => boolean): Promise<Received>
  /** Waits until so many changes are there. */
  count(changes: number): Promise<Received[]>
  send(message: unknown): void
  closed: Promise<{ code: number; reason: string }>
}

/** What is waited for, or undefined if the connection ends before it comes. */
export async function unlessClosed<T>({ socket }: Client, waiting: Promise<T>): Promise<T | undefined> {
  try {
    return await waiting
  } catch (error) {
    if (socket.readyState === socket.CLOSED) return undefined
    throw error
  }
}

/** Opens a client; rejects if the upgrade is refused. Closed with the test. */
export async function openClient(
  t: Test,
  url: string,
  options: ClientOptions & { protocols?: string[] } = {},
): Promise<Client> {
  const { protocols, ...rest } = options
  const socket = new WebSocket(url, protocols ?? [], rest)
  const messages: Received[] = []
  const texts: string[] = []
  const changes: Received[] = []
  const waiting = new Set<() => void>()
  let ended: { code: number; reason: string } | undefined
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    socket.on("close", (code, reason) => {
      ended = { code, reason: reason.toString() }
      resolve(ended)
      for (const check of [...waiting]) check()
    })
  })
  t.teardown(() => socket.terminate())
  socket.on("message", (data) => {
    const text = data.toString()
    const message = JSON.parse(text) as Received
    texts.push(text)
    messages.push(message)
    if ("tx" in message) changes.push(message)
    for (const check of [...waiting]) check()
  })

  /** Gives up when the connection has ended, or nothing came for the whole of the deadline. */
  function wait<T>(what: string, find: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      let known = changes.length
      const check = () => {
        const found = find()
        if (found !== undefined) {
          finish()
          resolve(found)
        } else if (ended !== undefined) {
          giveUp(`closed with ${ended.code} ${ended.reason}`)
        } else if (changes.length > known) {
          known = changes.length
          timer.refresh()
        }
      }
      const giveUp = (why: string) => {
        finish()
        const seen = `${messages.length} messages, ${changes.length} changes, the last: ${texts.slice(-3).join(" | ").slice(0, 600)}`
        reject(new Error(`waited in vain for ${what}: ${why}; ${seen}`))
      }
      const timer = setTimeout(giveUp, DEADLINE_MS, `nothing came for ${DEADLINE_MS} ms`)
      const finish = () => {
        clearTimeout(timer)
        waiting.delete(check)
      }
      waiting.add(check)
      check()
    })
  }

  await new Promise<void>((resolve, reject) => {
    socket.on("open", () => resolve())
    socket.on("error", reject)
  })
  return {
    socket,
    messages,
    texts,
    changes: () => changes,
    first: (what, fits) => wait(what, () => messages.find(fits)),
    count: (wanted) => wait(`${wanted} changes`, () => (changes.length >= wanted ? changes : undefined)),
    send: (message) => socket.send(typeof message === "string" ? message : JSON.stringify(message)),
    closed,
  }
}

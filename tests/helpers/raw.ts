/** A client without any protocol: bytes out, and all that comes back. */

import { connect, type Socket } from "node:net"
import type { Test } from "tap"
import { Opcode, readFrames, wordOf } from "./frame.ts"
import { token } from "./relay.ts"
import { DEADLINE_MS } from "./wait.ts"

export interface RawClient {
  socket: Socket
  /** Latin-1, so that a text can hold any byte. */
  send(bytes: string | Buffer): void
  /** A byte at a time, each of which the relay gets to see alone. */
  dribble(bytes: Buffer): Promise<void>
  /** All that came. */
  received(): Buffer
  /** Whether the relay has ended its side, or the connection is gone. */
  ended(): boolean
  /** Waits until that is found in what has come. @throws Error that shows what came. */
  find<T>(what: string, of: () => T | undefined): Promise<T>
}

/** Connects; cut with the test. Its own side stays open whatever the relay does. */
export async function openRaw(t: Test, url: string): Promise<RawClient> {
  const socket = connect({ port: Number(new URL(url).port), host: "127.0.0.1", allowHalfOpen: true })
  socket.setNoDelay()
  let chunks: Buffer[] = []
  let over = false
  const waiting = new Set<() => void>()
  const notify = () => {
    for (const check of [...waiting]) check()
  }
  const end = () => {
    over = true
    notify()
  }
  socket.on("data", (data) => {
    chunks.push(data)
    notify()
  })
  socket.on("error", end)
  socket.on("end", end)
  socket.on("close", end)
  t.teardown(() => socket.destroy())
  await new Promise((resolve, reject) => {
    socket.once("connect", resolve)
    socket.once("error", reject)
  })
  const received = () => {
    const all = Buffer.concat(chunks)
    chunks = [all]
    return all
  }
  return {
    socket,
    received,
    send: (bytes) => socket.write(bytes as string, "latin1"),
    async dribble(bytes) {
      for (const byte of bytes) {
        socket.write(Buffer.from([byte]))
        await new Promise((resolve) => setImmediate(resolve))
      }
    },
    ended: () => over,
    find<T>(what: string, of: () => T | undefined): Promise<T> {
      return new Promise((resolve, reject) => {
        const finish = () => {
          clearTimeout(timer)
          waiting.delete(check)
        }
        const check = () => {
          const found = of()
          if (found === undefined) return
          finish()
          resolve(found)
        }
        const timer = setTimeout(() => {
          finish()
          const came = JSON.stringify(received().toString("latin1").slice(-600))
          reject(new Error(`waited in vain for ${what}; came: ${came}`))
        }, DEADLINE_MS)
        waiting.add(check)
        check()
      })
    },
  }
}

/** The first line of what came, or "" if the connection ended without any. */
export const statusLine = (client: RawClient): Promise<string> =>
  client.find("a status line", () => {
    const text = client.received().toString("latin1")
    if (text.includes("\r\n")) return text.slice(0, text.indexOf("\r\n"))
    return client.ended() ? "" : undefined
  })

/** Waits until the relay has ended its side. */
export const whenEnded = (client: RawClient): Promise<true> =>
  client.find("the end", () => client.ended() || undefined)

/** A header's values; null leaves it out, several are sent as several lines. */
export type Headers = Record<string, string | readonly string[] | null>

export const GET = "GET /ws HTTP/1.1"

/** An upgrade request as text, well formed but for what is given. */
export function upgrade(line: string = GET, headers: Headers = {}): string {
  const all: Headers = {
    Host: "relay.example",
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": Buffer.alloc(16, 1).toString("base64"),
    ...headers,
  }
  const lines = Object.entries(all).flatMap(([name, values]) =>
    [values ?? []].flat().map((value) => `${name}: ${value}\r\n`),
  )
  return `${line}\r\n${lines.join("")}\r\n`
}

/** An upgrade with a good token. The connection sees no changes: it joins a channel that has none. */
export const authenticated = (claims: Record<string, unknown> = {}): string =>
  upgrade("GET /ws?channels=committee:0 HTTP/1.1", {
    Authorization: `Bearer ${token({ sub: "hostile", ...claims })}`,
  })

/** The frames behind the answer to an upgrade. */
function framesOf(client: RawClient) {
  const bytes = client.received()
  const head = bytes.indexOf("\r\n\r\n")
  return head < 0 ? [] : readFrames(bytes.subarray(head + 4))
}

/** What comes by the clock. */
const HEARTBEAT = ["checkpoint", "ping", `opcode ${Opcode.ping}`]

/** What the relay has said so far, in words, but for what it says by the clock. */
export const wordsOf = (client: RawClient): string[] =>
  framesOf(client)
    .map(wordOf)
    .filter((word) => !HEARTBEAT.includes(word))

/** What the relay says up to and including a word, a close frame or the end of the connection, which is `end`. */
export const wordsUntil = (client: RawClient, last: string): Promise<string[]> =>
  client.find(`"${last}" or the end`, () => {
    const words = wordsOf(client)
    const at = words.findIndex((word) => word === last || word.startsWith("close "))
    if (at >= 0) return words.slice(0, at + 1)
    return client.ended() ? [...words, "end"] : undefined
  })

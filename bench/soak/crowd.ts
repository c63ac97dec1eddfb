/** The audience of a soak: clients of the library that come and go, and a few that stop reading. */

import { WebSocket } from "ws"
import { connect, type Feed } from "../../client/client.ts"
import { tokenFor } from "../harness/server.ts"

export interface Crowd {
  /** So many leave, and as many others come. */
  churn(count: number): void
  /** All lines break without a word. */
  cut(): void
  /** A few more clients come that read nothing. */
  stall(): void
  /** How many have an open line. */
  open(): number
  close(): void
}

const STALLED = 3

export function openCrowd(url: string, size: number): Crowd {
  const sockets = new Set<WebSocket>()
  class Line extends WebSocket {
    constructor(address: string, protocols: string[]) {
      super(address, protocols)
      sockets.add(this)
      this.once("close", () => sockets.delete(this))
    }
  }
  let number = 0
  const enter = () => connect({ url, token: tokenFor(`guest ${++number % 50}`), WebSocket: Line, page: {} })
  const feeds: Feed[] = Array.from({ length: size }, enter)
  return {
    churn(count) {
      for (const feed of feeds.splice(0, count)) feed.close()
      for (let n = 0; n < count; n++) feeds.push(enter())
    },
    cut() {
      for (const socket of sockets) socket.terminate()
    },
    stall() {
      for (let n = 0; n < STALLED; n++) {
        const socket = new Line(`${url.replace("http", "ws")}/ws?token=${tokenFor("asleep")}`, [])
        socket.on("error", () => {})
        socket.once("open", () => socket.pause())
      }
    },
    open: () => [...sockets].filter(({ readyState }) => readyState === WebSocket.OPEN).length,
    close() {
      for (const feed of feeds) feed.close()
      for (const socket of sockets) socket.terminate()
    },
  }
}

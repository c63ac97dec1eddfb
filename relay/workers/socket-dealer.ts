/**
 * The socket dealer: listens for all workers and deals each connection to one of them. Node's cluster does that too, but
 * connections dealt to a worker that dies would stay open with nobody behind them.
 */

import type { ChildProcess } from "node:child_process"
import type { Server } from "node:http"
import { createServer, type Server as NetServer, type Socket } from "node:net"
import { z } from "zod"

/** Sent along with a socket, and back when it has arrived. */
const Deal = z.object({ deal: z.number() })
const Dealt = z.object({ dealt: z.number() })

/** How many connections wait, at the most, while there is no worker. */
const MAX_WAITING = 1_024

export interface Dealer {
  /** The server to listen with. */
  readonly server: NetServer
  /** Deals to this worker from now on, until it exits. */
  add(worker: ChildProcess): void
}

export function createDealer(): Dealer {
  /** Each worker with the connections that are on their way to it. */
  const workers = new Map<ChildProcess, Map<number, Socket>>()
  const waiting: Socket[] = []
  let deals = 0

  /** The worker with the fewest connections on their way; of equals the one that was dealt none for longest. */
  function next(): [ChildProcess, Map<number, Socket>] | undefined {
    let best: [ChildProcess, Map<number, Socket>] | undefined
    for (const entry of workers) if (best === undefined || entry[1].size < best[1].size) best = entry
    return best
  }

  function deal(socket: Socket): void {
    const chosen = next()
    if (chosen === undefined) {
      if (waiting.length < MAX_WAITING) waiting.push(socket)
      else socket.destroy()
      return
    }
    const [worker, underWay] = chosen
    workers.delete(worker)
    workers.set(worker, underWay)
    const id = deals++
    underWay.set(id, socket)
    worker.send({ deal: id }, socket, { keepOpen: true }, () => {})
  }

  const server = createServer({ pauseOnConnect: true, noDelay: true }, (socket) => {
    socket.on("error", () => {})
    deal(socket)
  })
  return {
    server,
    add(worker) {
      const underWay = new Map<number, Socket>()
      workers.set(worker, underWay)
      worker.on("message", (message) => {
        const arrived = Dealt.safeParse(message).data
        if (arrived === undefined) return
        // The worker has its own handle.
        underWay.get(arrived.dealt)?.destroy()
        underWay.delete(arrived.dealt)
      })
      worker.once("exit", () => {
        workers.delete(worker)
        // Nobody knows whether it has read from them, so their clients connect again.
        for (const socket of underWay.values()) socket.destroy()
      })
      for (const socket of waiting.splice(0)) deal(socket)
    },
  }
}

/** Serves the connections that this process is dealt. */
export function receiveDeals(server: Server): void {
  // Node starts to check for slow requests.
  server.emit("listening")
  process.on("message", (message, socket) => {
    const dealt = Deal.safeParse(message).data
    if (dealt === undefined) return
    process.send?.({ dealt: dealt.deal })
    // The client closed it meanwhile.
    if (socket === undefined) return
    server.emit("connection", socket)
    ;(socket as Socket).resume()
  })
}

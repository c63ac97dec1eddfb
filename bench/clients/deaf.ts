/**
 * Clients that stop reading once they are in, a process of its own: what is sent to them stays where it is. They are alive
 * otherwise, and say so, by which they notice that they were cut.
 */

import { connect, type Socket } from "node:net"
import { now } from "./clock.ts"
import { serve } from "./subprocess.ts"
import { frameOf, HEAD_END, statusOf, type Target, upgradeOf } from "./target.ts"

export type DeafOrder =
  /** @param again whoever is cut comes back at once, with the cursor that it was given first. */
  | { kind: "connect"; target: Target; count: number; again: boolean; path?: string | undefined }
  | { kind: "leave" }

export interface Deafness {
  /** How long each connection that was cut had lasted. Milliseconds. */
  lasted: number[]
  /** Why somebody could not come back, or not be let in. */
  refused: string[]
}

const PONG_MS = 250
const PONG = 10
const CURSOR = /"cursor":"([^"]+)"/

const sockets = new Set<Socket>()
let lasted: number[] = []
let refused: string[] = []

/** Comes, reads the first message, and no more. @param ended told the cursor of that message. */
function enter(target: Target, path: string, ended: (cursor: string) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: target.host, port: target.port, noDelay: true })
    sockets.add(socket)
    let head = Buffer.alloc(0)
    let came = 0
    let cursor = ""
    const pongs = setInterval(() => {
      if (came > 0) socket.write(frameOf(PONG, Buffer.alloc(0)))
    }, PONG_MS)
    socket.on("error", reject)
    socket.on("close", () => {
      clearInterval(pongs)
      reject(new Error("the server hung up"))
      if (!sockets.delete(socket) || came === 0) return
      lasted.push((now() - came) / 1_000)
      ended(cursor)
    })
    socket.on("data", (data) => {
      head = Buffer.concat([head, data])
      const end = head.indexOf(HEAD_END)
      if (end < 0) return
      if (statusOf(head) !== "101")
        return reject(new Error(`the server refused the upgrade with ${statusOf(head)}`))
      const [, first] = CURSOR.exec(head.toString("latin1", end)) ?? []
      if (first === undefined) return
      cursor = first
      came = now()
      socket.pause()
      resolve()
    })
    socket.write(upgradeOf(target, path))
  })
}

function comeBack(target: Target, cursor: string): void {
  const [path = ""] = target.paths
  enter(target, `${path}?cursor=${encodeURIComponent(cursor)}`, () => comeBack(target, cursor)).catch(
    (error: Error) => refused.push(error.message),
  )
}

serve<DeafOrder>(async (order) => {
  switch (order.kind) {
    case "connect": {
      const { target, count, again } = order
      const [first = ""] = target.paths
      const { path = first } = order
      lasted = []
      refused = []
      const ended = (cursor: string) => {
        if (again) comeBack(target, cursor)
      }
      await Promise.all(Array.from({ length: count }, () => enter(target, path, ended)))
      return
    }
    case "leave": {
      const told: Deafness = { lasted, refused }
      const all = [...sockets]
      sockets.clear()
      for (const socket of all) socket.destroy()
      return told
    }
  }
})

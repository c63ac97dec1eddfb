/** A line: an open socket to a PostgreSQL server, encrypted as it was asked for, on which a driver may begin to speak. */

import { isIP, Socket } from "node:net"
import { connect as encrypt } from "node:tls"
import { type Host, socketIn } from "./login.ts"
import type { Tls, TlsOptions } from "./tls-mode.ts"

export interface Line {
  readonly socket: Socket
  readonly encrypted: boolean
}

/** The server will not encrypt, or shows a certificate that does not hold. Trying again does not help. */
export class TlsError extends Error {
  override name = "TlsError"
}

/** Asks the server whether it encrypts: length and code of the message. */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

/** @throws Error of the socket, or TlsError. */
export async function openLine(host: Host, tls: Tls, timeoutMs: number): Promise<Line> {
  const socket = new Socket()
  // The driver hears of it too, once it has the socket.
  socket.on("error", () => {})
  socket.setNoDelay(true)
  const timer = setTimeout(() => socket.destroy(timedOut(host)), timeoutMs)
  try {
    await connected(socket, host)
    if (isLocal(host) || tls.kind === "off" || (tls.kind === "optional" && tls.first === "plain"))
      return { socket: handedOver(socket), encrypted: false }
    if (!(tls.kind === "required" && tls.direct) && !(await agrees(socket))) {
      if (tls.kind === "optional") return { socket: handedOver(socket), encrypted: false }
      throw new TlsError(`sslmode=${tls.options.mode}, but ${host.name} does not encrypt`)
    }
    return { socket: handedOver(await encrypted(socket, host, tls.options)), encrypted: true }
  } catch (error) {
    socket.destroy()
    throw error
  } finally {
    clearTimeout(timer)
  }
}

/** A Unix socket: nobody listens between. */
export const isLocal = ({ address }: Host): boolean => /^[/@]/.test(address)

function timedOut({ name }: Host): Error {
  return Object.assign(new Error(`timeout: ${name} does not answer`), { code: "ETIMEDOUT" })
}

function closed(): Error {
  return Object.assign(new Error("the server closed the connection"), { code: "ECONNRESET" })
}

function connected(socket: Socket, { address, port }: Host): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once("error", reject)
    socket.once("connect", () => {
      socket.off("error", reject)
      resolve()
    })
    if (/^[/@]/.test(address)) socket.connect(socketIn(address, port))
    else socket.connect(port, address)
  })
}

/** Whether the server agrees to encrypt. */
function agrees(socket: Socket): Promise<boolean> {
  return new Promise((resolve, reject) => {
    socket.once("error", reject)
    socket.once("close", () => reject(closed()))
    socket.once("data", (answer) => {
      socket.pause()
      socket.off("error", reject)
      // More than one byte would have been put in by somebody between.
      if (answer.length === 1 && (answer[0] === 83 || answer[0] === 78)) resolve(answer[0] === 83)
      else reject(new Error("the server answers something else than PostgreSQL does"))
    })
    socket.write(SSL_REQUEST)
  })
}

function encrypted(socket: Socket, { name }: Host, { mode, named, ...options }: TlsOptions): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const servername = named && isIP(name) === 0 ? { servername: name } : {}
    const line = encrypt({ socket, host: name, ...servername, ...options })
    line.on("error", () => {})
    line.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        isOfNetwork(error) ? error : new TlsError(`sslmode=${mode}: ${error.message}`, { cause: error }),
      ),
    )
    socket.once("close", () => reject(socket.errored ?? closed()))
    line.once("secureConnect", () => resolve(line))
  })
}

const isOfNetwork = ({ code = "" }: NodeJS.ErrnoException): boolean =>
  /^E[A-Z]+$/.test(code) && !code.startsWith("ERR_")

/** A driver makes its connection itself, so the socket answers that it has just been made. */
function handedOver(socket: Socket): Socket {
  const connect = () => {
    process.nextTick(() => {
      if (socket.destroyed) {
        socket.emit("error", socket.errored ?? closed())
        socket.emit("close", true)
        return
      }
      socket.resume()
      socket.emit("connect")
    })
    return socket
  }
  return Object.assign(socket, { connect })
}

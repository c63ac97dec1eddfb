/** What is attached to an HTTP server: relays may share one, and a program's own server may have other upgrades too. */

import type { IncomingMessage, Server } from "node:http"
import type { Duplex } from "node:stream"

export interface Attachment {
  /** Whether a request asks for the relay's path. */
  isForRelay(request: IncomingMessage): boolean
  take(request: IncomingMessage, socket: Duplex, head: Buffer): void
}

interface Shared {
  readonly relays: Set<Attachment>
  readonly listener: (request: IncomingMessage, socket: Duplex, head: Buffer) => void
}

/** All relays of a server have one listener, so that one of them takes an upgrade, or answers what is for none. */
const servers = new WeakMap<Server, Shared>()

/** @returns what detaches it. */
export function attachTo(http: Server, attachment: Attachment): () => void {
  const { relays, listener } = servers.get(http) ?? listenTo(http)
  relays.add(attachment)
  return () => {
    relays.delete(attachment)
    if (relays.size > 0) return
    http.off("upgrade", listener)
    servers.delete(http)
  }
}

function listenTo(http: Server): Shared {
  const relays = new Set<Attachment>()
  const shared: Shared = {
    relays,
    listener(request, socket, head) {
      const asked = [...relays].find((relay) => relay.isForRelay(request))
      if (asked !== undefined) return asked.take(request, socket, head)
      const [first] = relays
      if (http.listenerCount("upgrade") === 1) return first?.take(request, socket, head)
      // Another listener may take it. If none does, an error of the socket would end the process.
      socket.on("error", destroy)
    },
  }
  http.on("upgrade", shared.listener)
  servers.set(http, shared)
  return shared
}

/** One for all sockets: a closure would keep what its upgrade brought. */
function destroy(this: Duplex): void {
  this.destroy()
}

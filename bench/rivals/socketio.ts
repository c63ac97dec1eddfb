/** Socket.IO on ws, set up as its documentation does, with the same events. */

import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { Server } from "socket.io"
import { listen } from "./listen.ts"

const http = createServer()
const server = new Server(http, { transports: ["websocket"], serveClient: false })
await listen((payload) => server.emit("voting_update", JSON.parse(payload)))
http.listen(0, "127.0.0.1", 4_096, () => {
  const { port } = http.address() as AddressInfo
  console.log(JSON.stringify({ event: "ready", url: `http://127.0.0.1:${port}` }))
})

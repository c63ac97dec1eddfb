/** What people write by hand: LISTEN on a NOTIFY that carries the row, and ws's send to every client. */

import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { WebSocketServer } from "ws"
import { listen } from "./listen.ts"

const http = createServer()
const server = new WebSocketServer({ server: http, perMessageDeflate: false })
await listen((payload) => {
  for (const client of server.clients) if (client.readyState === client.OPEN) client.send(payload)
})
http.listen(0, "127.0.0.1", 4_096, () => {
  const { port } = http.address() as AddressInfo
  console.log(JSON.stringify({ event: "ready", url: `http://127.0.0.1:${port}` }))
})

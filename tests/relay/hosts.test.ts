/** By which hosts a relay may be asked, where that is set: a page can have its own name point to any address. */

import { request } from "node:http"
import t from "tap"
import { database } from "../helpers/database.ts"
import { startRelay, type TestRelay, token } from "../helpers/relay.ts"

/** fetch sets Host by itself. */
function statusOf(relay: TestRelay, path: string, host: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const asked = request(relay.url + path, { headers: { host }, agent: false }, (response) => {
      response.resume()
      resolve(response.statusCode)
    })
    asked.on("error", reject)
    asked.end()
  })
}

const PATHS = ["/", "/metrics", "/docs/", "/page.json", "/client/client.js", "/nowhere"]

t.test("where hosts are listed, no page of another name reads anything", async (t) => {
  const settings = { ALLOWED_HOSTS: "Relay.example, relay.internal:8080,[::1]" }
  const relay = await startRelay(t, await database(t), settings)
  for (const path of [...PATHS, "/ws", "/api/utils/websocket/health/"])
    for (const host of [
      "evil.example",
      "relay.example.evil.example",
      "relay.internal:81",
      "relay.internal",
      "",
    ])
      t.equal(await statusOf(relay, path, host), 421, `${path} of ${host}`)
  for (const host of ["relay.example", "RELAY.EXAMPLE:8443", "relay.internal:8080", "[::1]", "[::1]:8080"])
    t.equal(await statusOf(relay, "/metrics", host), 200, host)
  for (const path of ["/health/live", "/health/ready"])
    t.equal(await statusOf(relay, path, "10.0.0.7:8080"), 200, "an orchestrator asks by address")
  const upgrade = async (host: string, origin?: string) => {
    const headers = { host, authorization: `Bearer ${token()}`, ...(origin === undefined ? {} : { origin }) }
    return relay.open("/ws", { headers }).then(
      () => 101,
      (error: Error) => Number(/\d{3}$/.exec(error.message)?.[0]),
    )
  }
  t.equal(await upgrade("evil.example", "http://evil.example"), 403, "its own host is not the relay's")
  t.equal(await upgrade("relay.example", "https://relay.example"), 101)
  t.equal(await upgrade("10.0.0.7:8080"), 101, "programs bring a token and no origin")
})

t.test("where none is listed any will do", async (t) => {
  const relay = await startRelay(t, await database(t))
  for (const path of PATHS.slice(0, -1)) t.equal(await statusOf(relay, path, "any.example"), 200, path)
})

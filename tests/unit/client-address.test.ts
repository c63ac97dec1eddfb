/** The client's address: with the meaning that Express gives to "trust proxy", and one key for a host. */

import { createServer, type IncomingMessage, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import express from "express"
import t, { type Test } from "tap"
import { clientOf, fromUntrustedProxy, readTrust } from "../../relay/lib/client-address.ts"

/** Asks a server on the loopback. @returns what it answers. */
async function ask<T>(t: Test, server: Server, forwarded: string | undefined): Promise<T> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const headers = {
    connection: "close",
    ...(forwarded === undefined ? {} : { "x-forwarded-for": forwarded }),
  }
  return (await (await fetch(`http://127.0.0.1:${port}`, { headers })).json()) as T
}

const answering = (answer: (request: IncomingMessage) => unknown) =>
  createServer((request, response) => response.end(JSON.stringify(answer(request))))

const TWO = "198.51.100.1, 203.0.113.9"
const CASES: Array<[trustProxy: string, forwarded: string | undefined, client: string]> = [
  ["false", undefined, "127.0.0.1"],
  ["false", "203.0.113.9", "127.0.0.1"],
  ["true", undefined, "127.0.0.1"],
  ["true", TWO, "198.51.100.1"],
  ["0", TWO, "127.0.0.1"],
  ["1", TWO, "203.0.113.9"],
  ["2", TWO, "198.51.100.1"],
  ["9", TWO, "198.51.100.1"],
  ["loopback", TWO, "203.0.113.9"],
  ["127.0.0.1", TWO, "203.0.113.9"],
  ["10.0.0.0/8", TWO, "127.0.0.1"],
  ["loopback, 203.0.113.0/24", TWO, "198.51.100.1"],
  ["loopback, uniquelocal", "203.0.113.9, 10.1.2.3", "203.0.113.9"],
]

t.test("it is Express's", async (t) => {
  for (const [trustProxy, forwarded, client] of CASES) {
    const app = express()
    const plain = { true: true, false: false }[trustProxy] ?? trustProxy
    app.set("trust proxy", /^\d+$/.test(trustProxy) ? Number(trustProxy) : plain)
    app.get("/", (request, response) => {
      response.json({ theirs: request.ip, ours: clientOf(request, readTrust(trustProxy)) })
    })
    t.same(
      await ask(t, createServer(app), forwarded),
      { theirs: client, ours: client },
      `${trustProxy}: ${forwarded}`,
    )
  }
})

t.test("a host is one address", async (t) => {
  const keys: Array<[forwarded: string, key: string]> = [
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
    ["2001:db8:1:2::9", "2001:db8:1:2::/64"],
    ["2001:0DB8:0001:0002::9", "2001:db8:1:2::/64"],
    ["[2001:db8:1:2::9]:443", "2001:db8:1:2::/64"],
    ["[2001:db8:1:2::9]", "2001:db8:1:2::/64"],
    ["2001:db8:1:3::9", "2001:db8:1:3::/64"],
    ["fe80::1%eth0", "fe80:0:0:0::/64"],
    ["::ffff:203.0.113.9", "203.0.113.9"],
    ["203.0.113.9:4711", "203.0.113.9"],
    ["203.0.113.9", "203.0.113.9"],
    ["unknown", "127.0.0.1"],
    ["_hidden", "127.0.0.1"],
    ["", "127.0.0.1"],
    ["x".repeat(10_000), "127.0.0.1"],
    ["203.0.113.9:x", "127.0.0.1"],
  ]
  for (const [forwarded, key] of keys)
    t.equal(
      await ask(
        t,
        answering((request) => clientOf(request, readTrust("true"))),
        forwarded,
      ),
      key,
      forwarded.slice(0, 40),
    )
})

t.test("a proxy that is not believed is noticed", async (t) => {
  const cases: Array<[trustProxy: string, forwarded: string | undefined, untrusted: boolean]> = [
    ["false", "203.0.113.9", true],
    ["10.0.0.0/8", "203.0.113.9", true],
    ["0", "203.0.113.9", true],
    ["false", undefined, false],
    ["1", "203.0.113.9", false],
    ["loopback", "203.0.113.9", false],
  ]
  for (const [trustProxy, forwarded, untrusted] of cases)
    t.equal(
      await ask(
        t,
        answering((request) => fromUntrustedProxy(request, readTrust(trustProxy))),
        forwarded,
      ),
      untrusted,
      `${trustProxy}: ${forwarded}`,
    )
})

t.test("what is no address is not taken for one", async (t) => {
  for (const text of ["TRUE", "-1", "1.5", "proxy.example", "10.0.0.0/33", "300.1.1.1", "", "loopback,"])
    t.throws(() => readTrust(text), TypeError, text)
})

/** A run that may not be believed shows no figures: what a real load generator reports of a bad server, and what is made of it. */

import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import t, { type Test } from "tap"
import { WebSocketServer } from "ws"
import { type Audience, startAudience } from "../../bench/clients/audience.ts"
import type { Report } from "../../bench/clients/load.ts"
import type { Row } from "../../bench/harness/row.ts"
import { faultOf } from "../../bench/harness/validity.ts"
import { renderMarkdown, renderText } from "../../bench/output/table.ts"
import { until } from "../helpers/wait.ts"

const CLIENTS = 5
const EVENT = '{"type":"event"'

/** A server with clients, and what it does to make a run good or bad. */
async function stand(t: Test): Promise<{
  audience: Audience
  send(texts: string[], to?: (client: number) => boolean): void
  cut(): void
}> {
  const http = createServer()
  const server = new WebSocketServer({ server: http })
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve))
  const { port } = http.address() as AddressInfo
  const audience = startAudience({ host: "127.0.0.1", port, paths: ["/"], headers: {}, event: EVENT })
  t.teardown(async () => {
    await audience.stop()
    for (const client of server.clients) client.terminate()
    server.close()
    http.close()
  })
  await audience.connect(CLIENTS)
  await audience.begin()
  return {
    audience,
    send(texts, to = () => true) {
      for (const [index, client] of [...server.clients].entries())
        if (to(index)) for (const text of texts) client.send(text)
    },
    cut: () => [...server.clients][0]?.terminate(),
  }
}

const event = (n: number) => `${EVENT},"n":${n}}`
/** How fast this machine is does not matter here. */
const idle = (report: Report): Report => ({ ...report, cpuShare: 0.2, loopDelayMs: 1 })

t.test(
  "what came is counted exactly: events, not other frames, and each probe with its number",
  async (t) => {
    const { audience, send } = await stand(t)
    send([event(1), '{"type":"checkpoint"}', `${EVENT},"by":"probe:17"}`, "2", event(3)])
    t.match(await audience.reach(3 * CLIENTS), { reached: true })
    const report = await audience.report()
    t.match(report, { clients: CLIENTS, open: CLIENTS, events: 3 * CLIENTS, least: 3, most: 3 })
    t.same(
      report.probes.map(({ probe }) => probe),
      Array(CLIENTS).fill(17),
    )
    t.equal(faultOf({ reports: [idle(report)], expected: 3, alive: true }), undefined, "the run is valid")
  },
)

t.test("one delivery that is missing makes the run invalid", async (t) => {
  const { audience, send } = await stand(t)
  send([event(1)])
  send([event(2)], (client) => client !== 3)
  await audience.reach(2 * CLIENTS - 1)
  const report = idle(await audience.report())
  t.match(faultOf({ reports: [report], expected: 2, alive: true }), /not everything was delivered.* 1 of 2/)
  t.match(
    faultOf({ reports: [report], expected: undefined, total: 2 * CLIENTS, alive: true }),
    /not everything was delivered.* 9 of 10/,
  )
})

t.test("one delivery too many makes the run invalid", async (t) => {
  const { audience, send } = await stand(t)
  send([event(1)])
  send([event(1)], (client) => client === 3)
  await audience.reach(CLIENTS + 1)
  const report = idle(await audience.report())
  t.match(faultOf({ reports: [report], expected: 1, alive: true }), /more was delivered.* 2 of 1/)
})

t.test("one that is missing is not made up for by one too many", async (t) => {
  const { audience, send } = await stand(t)
  send([event(1)], (client) => client !== 0)
  send([event(1)], (client) => client === 3)
  await audience.reach(CLIENTS)
  const report = idle(await audience.report())
  t.match(faultOf({ reports: [report], expected: 1, alive: true }), /not everything was delivered.* 0 of 1/)
})

t.test("a client that was cut off makes the run invalid", async (t) => {
  const { audience, send, cut } = await stand(t)
  send([event(1)])
  await audience.reach(CLIENTS)
  cut()
  await until("the load generator sees it", async () => (await audience.report()).open < CLIENTS)
  const report = idle(await audience.report())
  t.match(faultOf({ reports: [report], expected: 1, alive: true }), /1 of 5 clients lost/)
})

const GOOD: Report = {
  clients: 1,
  open: 1,
  events: 1,
  least: 1,
  most: 1,
  bytes: 100,
  probes: [],
  cpuShare: 0.5,
  loopDelayMs: 2,
}

t.test("the other reasons", async (t) => {
  const good = { reports: [GOOD, GOOD], expected: 1, alive: true, shortest: 100, punctual: [GOOD] }
  t.equal(faultOf(good), undefined)
  t.match(faultOf({ ...good, alive: false }), /died/)
  t.match(faultOf({ ...good, shortest: -1 }), /clock skew/)
  t.match(faultOf({ ...good, reports: [GOOD, { ...GOOD, cpuShare: 0.97 }] }), /saturated: 97 %/)
  t.match(faultOf({ ...good, punctual: [{ ...GOOD, loopDelayMs: 80 }] }), /late by 80 ms/)
})

t.test("in the place of figures stands the reason", async (t) => {
  const cell = { group: "fanout", name: "1,000 clients", command: "npm run bench -- fanout" }
  const rows: Row[] = [
    {
      ...cell,
      subject: "ours",
      outcome: { kind: "measured", figures: [{ name: "CPU", value: 1.25, unit: "µs" }], ratios: [] },
    },
    { ...cell, subject: "plain ws", outcome: { kind: "invalid", reason: "the server died" } },
    { ...cell, subject: "nchan", outcome: { kind: "absent", reason: "nginx is not installed" } },
  ]
  for (const text of [renderText(rows), renderMarkdown(rows)]) {
    const lineOf = (subject: string) => text.split("\n").find((line) => line.includes(subject)) ?? ""
    t.match(lineOf("ours"), /1\.25/)
    t.match(lineOf("plain ws"), /not valid: the server died/)
    t.match(lineOf("nchan"), /nginx is not installed/)
    t.notMatch(lineOf("plain ws").replace("1,000 clients", ""), /\d/, "no figure")
  }
})

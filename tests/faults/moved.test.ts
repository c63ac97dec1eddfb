/** The database moves to another server while the one before lives: no session of a relay stays behind. */

import t from "tap"
import { execSql, type OwnCluster, ownCluster } from "../helpers/cluster.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const OURS = "datname = current_database() and application_name ~ '^commitcast'"

const sessionsOn = ({ url }: OwnCluster) =>
  execSql<{ application_name: string }>(url, `select application_name from pg_stat_activity where ${OURS}`)

for (const name of ["commitcast feed", "commitcast listener"])
  t.test(`when only the session ${name} is lost, all others follow it`, async (t) => {
    const [before, after] = [await ownCluster(t), await ownCluster(t)]
    const proxy = await startProxy(t, before.port)
    const url = before.url.replace(`:${before.port}/`, `:${proxy.port}/`)
    const relay = await startRelay(t, { url }, { CANARY_SECONDS: "1" })
    proxy.aim(after.port)
    await execSql(
      before.superuserUrl,
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = '${name}'`,
    )
    await until("nobody is on the server before", async () => (await sessionsOn(before)).length === 0)
    await until("feed and listener are on the other", async () => {
      const names = (await sessionsOn(after)).map(({ application_name }) => application_name)
      return names.includes("commitcast feed") && names.includes("commitcast listener")
    })
    await relay.relay.whenReady()
    const client = await relay.connect()
    await execSql(after.url, "insert into vote (votes) values (42)")
    const change = await client.first("a change of the other", ({ type }) => type === "voting_update")
    t.match(change.data, { votes: 42 })
  })

/** The examples as they are, with the package as it is built: what they show is what SQL counts. */

import { cp } from "node:fs/promises"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { build } from "esbuild"
import t, { type Test } from "tap"
import { NO_BROWSER, visit } from "../helpers/browser.ts"
import { buildClient, buildPackage } from "../helpers/build.ts"
import { runScript } from "../helpers/command.ts"
import { type Database, database } from "../helpers/database.ts"
import { startProxy } from "../helpers/proxy.ts"
import { SECRET, startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const EXAMPLES = join(dirname(fileURLToPath(import.meta.resolve("#root/package.json"))), "examples")
const PASSWORD = "a password of the desk"

/** The back end with a page. @returns where it listens. */
async function serve(t: Test, db: Database, relayUrl: string, page: "plain" | "react"): Promise<string> {
  const home = await buildPackage(t)
  await cp(EXAMPLES, join(home, "examples"), { recursive: true })
  await buildClient(join(home, "examples"))
  const directory = join(home, "examples", page)
  if (page === "react") {
    await build({
      absWorkingDir: directory,
      entryPoints: ["main.tsx"],
      bundle: true,
      format: "esm",
      jsx: "automatic",
      outfile: join(directory, "main.js"),
      logLevel: "silent",
    })
  }
  const started = runScript(t, home, [join(home, "examples/backend.ts"), directory], {
    DATABASE_URL: db.url,
    JWT_SECRET: SECRET,
    RELAY_URL: relayUrl,
    DESK_PASSWORD: PASSWORD,
    PORT: "0",
  })
  const [, url = ""] = await started.prints("its address", /open (http:\S+)\//)
  return url
}

for (const name of ["plain", "react"] as const) {
  t.test(`${name}: the total is SQL's, through whatever happens`, { skip: NO_BROWSER }, async (t) => {
    const db = await database(t)
    await db.query("insert into vote (votes) select n from generate_series(1, 20) n")
    // The origin is known only when the back end has its port, which wants to know the relay's: the proxy has one before.
    const proxy = await startProxy(t, [])
    const url = await serve(t, db, `ws://127.0.0.1:${proxy.port}/ws`, name)
    const relay = await startRelay(t, db, { ALLOWED_ORIGINS: url })
    proxy.aim(Number(new URL(relay.url).port))

    const { page, complaints } = await visit(t, url, {
      httpCredentials: { username: "nadia", password: PASSWORD },
    })
    const text = (selector: string) => page.locator(selector).textContent()
    const agrees = async (what: string) => {
      let [is, must] = ["", ""]
      await until(what, async () => {
        const [row] = await db.query<{ it: string }>(
          "select coalesce(sum(votes), 0) || ' in ' || count(*) as it from vote",
        )
        must = row?.it ?? ""
        is = `${await text("#total")} in ${await text("#entries")}`
        return is === must && (await text("#state")) === "live"
      }).catch((error: Error) => {
        throw new Error(`${error.message}: ${is}, not ${must}`)
      })
      t.pass(`${what}: ${is}`)
    }
    await agrees("what was there")
    await db.query("insert into vote (votes) values (500); update vote set votes = votes + 1 where id <= 5")
    await db.query("delete from vote where id = 7; update vote set id = 1007 where id = 8")
    await agrees("what came, and went")
    proxy.refuse()
    proxy.cut()
    await db.query("insert into vote (votes) values (1000); delete from vote where id = 9")
    proxy.heal()
    await agrees("what it missed")
    await db.query(
      "set relay.bulk_load = 'summary'; insert into vote (votes) values (7); reset relay.bulk_load",
    )
    await agrees("a bulk load")
    await db.query("truncate vote")
    await db.query("insert into vote (votes) values (3)")
    await agrees("a truncate, and what came then")
    t.same(
      complaints.filter((complaint) => !complaint.startsWith("asked ws:")),
      [],
    )
    t.equal((await fetch(`${url}/relay-token`)).status, 401, "nobody else is given a token")
    t.equal(
      (await fetch(`${url}/votes`, { headers: { authorization: `Basic ${btoa("nadia:wrong")}` } })).status,
      401,
    )
  })
}

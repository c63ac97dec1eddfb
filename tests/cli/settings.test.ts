/** Settings as a person gives them: from files, checked without starting anything, and shown without secrets. */

import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import fc from "fast-check"
import jwt from "jsonwebtoken"
import t, { type Test } from "tap"
import { shownSettings } from "../../cli/commands/settings.ts"
import { readSettings } from "../../relay/config.ts"
import { finish, run, workDirectory } from "../helpers/command.ts"
import { database } from "../helpers/database.ts"
import { SECRET } from "../helpers/relay.ts"

t.jobs = 2

const URL_OF_A_DATABASE = "postgres://app:pa%24%24word@127.0.0.1:5432/election?password=other"

async function withFile(t: Test, text: string): Promise<{ cwd: string; path: string }> {
  const cwd = await workDirectory(t)
  const path = join(cwd, "secret")
  await writeFile(path, text)
  return { cwd, path }
}

t.test("a secret may lie in a file, with a line break at its end or without", async (t) => {
  for (const end of ["", "\n", "\r\n"]) {
    const { cwd, path } = await withFile(t, SECRET + end)
    const env = { JWT_SECRET_FILE: path, DATABASE_URL: URL_OF_A_DATABASE }
    const { out, err, code } = await finish(t, cwd, ["token", "--user", "7"], env)
    t.equal(code, 0, err)
    t.match(jwt.verify(out.trim(), SECRET, { algorithms: ["HS256"] }), { sub: "7" })
  }
})

t.test("without a secret and an embedded PostgreSQL a token is refused with what to do", async (t) => {
  const { code, out, err } = await finish(t, await workDirectory(t), ["token", "--user", "7"])
  t.equal(code, 2)
  t.equal(out, "")
  t.match(err, /^commitcast: JWT_SECRET is not set, and .*: set it, or run .* start first\n$/)
})

t.test("the file of a later source wins over the value of an earlier one", async (t) => {
  const { cwd, path } = await withFile(t, SECRET)
  await writeFile(join(cwd, ".env"), `JWT_SECRET=${"x".repeat(40)}\nDATABASE_URL=${URL_OF_A_DATABASE}\n`)
  const { out } = await finish(t, cwd, ["config"], { JWT_SECRET_FILE: path })
  t.match(out, `JWT_SECRET=(${SECRET.length} bytes)\n`)
  await writeFile(join(cwd, ".env"), `JWT_SECRET_FILE=${path}\nDATABASE_URL=${URL_OF_A_DATABASE}\n`)
  t.match((await finish(t, cwd, ["config"])).out, `JWT_SECRET=(${SECRET.length} bytes)\n`)
  const flag = await finish(t, cwd, ["config", "--jwt-secret", "y".repeat(50)])
  t.match(flag.out, "JWT_SECRET=(50 bytes)\n")
})

t.test("a file that cannot be used is named, and its text is not told", async (t) => {
  const { cwd, path } = await withFile(t, "too short")
  const nowhere = join(cwd, "nowhere")
  const cases: Array<[env: Record<string, string>, message: RegExp]> = [
    [{ JWT_SECRET_FILE: nowhere }, /^commitcast: JWT_SECRET_FILE: .*nowhere cannot be read \(ENOENT\)\n$/],
    [{ JWT_SECRET_FILE: cwd }, /^commitcast: JWT_SECRET_FILE: .* cannot be read \(EISDIR\)\n$/],
    [
      { JWT_SECRET_FILE: path },
      /^commitcast: JWT_SECRET \(--jwt-secret\) is wrong: must be at least 32 bytes/,
    ],
    [
      { JWT_SECRET_FILE: path, JWT_SECRET: SECRET },
      /^commitcast: JWT_SECRET and JWT_SECRET_FILE are both set: keep one of them\n$/,
    ],
  ]
  for (const [env, message] of cases) {
    const { code, out, err } = await finish(t, cwd, ["config"], env)
    t.equal(code, 2)
    t.match(err, message)
    t.notMatch(out + err, "too short")
  }
  await writeFile(path, "\n")
  t.match(
    (await finish(t, cwd, ["config"], { DATABASE_URL_FILE: path })).err,
    /DATABASE_URL_FILE: .* is empty/,
  )
})

t.test("config checks all settings and prints them, for people and for programs", async (t) => {
  const cwd = await workDirectory(t)
  const env = { DATABASE_URL: URL_OF_A_DATABASE, JWT_SECRET: SECRET, ALLOWED_ORIGINS: "https://a.example" }
  const { out, code } = await finish(t, cwd, ["config", "--port", "9000"], env)
  t.equal(code, 0)
  t.match(out, /^DATABASE_URL=postgres:\/\/app:\*\*\*@127.0.0.1:5432\/election\?password=\*\*\*$/m)
  t.match(out, /^PORT=9000$/m)
  t.match(out, /^ALLOWED_ORIGINS=https:\/\/a.example$/m)
  t.match(JSON.parse((await finish(t, cwd, ["config", "--json"], env)).out), { PORT: 8080, WS_PATH: "/ws" })
  const wrong = await finish(t, cwd, ["config", "--port", "99999"], env)
  t.equal(wrong.code, 2)
  t.match(wrong.err, /^commitcast: PORT \(--port\) is wrong/)
})

t.test("whoever reads no further, as head does, is no error", async (t) => {
  const cwd = await workDirectory(t)
  const config = run(t, cwd, ["config"], { DATABASE_URL: URL_OF_A_DATABASE })
  config.child.stdout?.destroy()
  t.equal(await config.ended, 0)
  t.equal(config.err(), "")
})

t.test("whatever a secret or a password is, it is not shown", async (t) => {
  const text = fc.stringMatching(/^[a-zA-Z0-9!@#%^&*()_+ -]{12,24}$/)
  const property = fc.property(text, text, text, (secret, password, other) => {
    const [first, second] = [`${secret} and long enough to be one`, `${other} and long enough to be one`]
    const settings = readSettings({
      DATABASE_URL: `postgres://app:${encodeURIComponent(password)}@h/d?sslpassword=${encodeURIComponent(password)}`,
      JWT_SECRET: first,
      JWT_SECRET_PREVIOUS: second,
    })
    const shown = JSON.stringify(shownSettings(settings))
    const hidden = [secret, other, password, encodeURIComponent(password)]
    return hidden.every((each) => !shown.includes(each))
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 500 }))
  const others = {
    "postgres://app:secret word@h1:1,h2:2/d": "user=app password=*** host=h1,h2 port=1,2 dbname=d",
    "host=h password='secret word' options='-c a=b'": "host=h password=*** options='-c a=b'",
    "postgres://app:12#word@h/d": "user=app password=*** host=h dbname=d",
    "postgres://app:12?word@h/d": "user=app password=*** host=h dbname=d",
    "postgres://app#1:word@h/d": "user=app#1 password=*** host=h dbname=d",
    "postgres://app:12/word@h/d": "(not shown)",
  }
  for (const [url, shown] of Object.entries(others))
    t.equal(shownSettings(readSettings({ DATABASE_URL: url })).DATABASE_URL, shown)
})

t.test("at the start the settings that were changed are logged, without secrets", async (t) => {
  const db = await database(t)
  const password = new URL(db.url).password
  const { cwd, path } = await withFile(t, SECRET)
  const env = { DATABASE_URL: db.url, JWT_SECRET_FILE: path, PORT: "0" }
  const relay = run(t, cwd, ["start"], env)
  await relay.prints("ready", /"event":"ready"/)
  const line = relay
    .err()
    .split("\n")
    .find((each) => each.includes('"event":"settings"'))
  t.match(JSON.parse(line ?? "{}"), { PORT: 0, JWT_SECRET: `(${SECRET.length} bytes)` })
  t.notOk("WS_PATH" in JSON.parse(line ?? "{}"), "what is as by default is left out")
  t.notMatch(relay.err() + relay.out(), SECRET)
  t.ok(password.length > 0)
  t.notMatch(line, `:${password}@`)
})

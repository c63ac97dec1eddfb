/** The unit fits the program: its settings, its exit codes, its time to stop; and systemd has nothing against it. */

import { execFile } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { mkdir, writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import t, { type Test } from "tap"
import { z } from "zod"
import { Settings } from "../../relay/config.ts"
import { finish, workDirectory } from "../helpers/command.ts"
import { SECRET } from "../helpers/relay.ts"
import { adapted, shipped } from "../helpers/shipped.ts"

const ANALYZE = "/usr/bin/systemd-analyze"
const skip = !existsSync(ANALYZE) && "no systemd on this machine"
/** Of 100, where a unit without any restriction has 96. */
const EXPOSURE = 15

const root = dirname(fileURLToPath(import.meta.resolve("#root/package.json")))
const unit = shipped("systemd/commitcast.service")
const defaults = Settings.parse({})

/** All values of a directive. */
const valuesOf = (name: string): string[] =>
  [...unit.matchAll(new RegExp(`^${name}=(.*)$`, "gm"))].map(([, value]) => value ?? "")

t.test("it runs the built command", async (t) => {
  const Package = z.object({ bin: z.object({ commitcast: z.string() }) })
  const { bin } = Package.parse(JSON.parse(readFileSync(join(root, "package.json"), "utf8")))
  t.strictSame(valuesOf("ExecStart"), [`/usr/bin/node --enable-source-maps ${bin.commitcast} start`])
})

t.test("its credentials are the settings that they are meant for", async (t) => {
  const cwd = await workDirectory(t)
  const texts: Record<string, string> = {
    database_url: "postgres://relay:password@127.0.0.1:5432/election",
    jwt_secret: SECRET,
  }
  const loaded = valuesOf("LoadCredential").map((value) => value.split(":")[0] ?? "")
  t.strictSame(loaded, Object.keys(texts))
  for (const name of loaded) await writeFile(join(cwd, name), texts[name] ?? "")
  const given = valuesOf("Environment").flatMap((value) => value.replaceAll("%d", cwd).split(" "))
  const env = Object.fromEntries(given.map((pair) => pair.split("=")))
  const { out, err, code } = await finish(t, cwd, ["config"], env)
  t.equal(code, 0, err)
  t.match(out, "DATABASE_URL=postgres://relay:***@127.0.0.1:5432/election\n")
  t.match(out, `JWT_SECRET=(${SECRET.length} bytes)\n`)
})

t.test("a wrong setting is not tried again", async (t) => {
  const { code } = await finish(t, await workDirectory(t), ["start"], { PORT: "none" })
  t.strictSame(valuesOf("RestartPreventExitStatus"), [String(code)])
  t.strictSame(valuesOf("Restart"), ["on-failure"])
})

t.test("it may drain before it is killed, and open as many connections as it lets in", async (t) => {
  t.ok(Number(valuesOf("TimeoutStopSec")[0]) > defaults.DRAIN_TIMEOUT_SECONDS + 5)
  t.ok(Number(valuesOf("LimitNOFILE")[0]) > defaults.MAX_CONNECTIONS + 1_000)
})

/** The unit where systemd finds a program of its ExecStart. */
async function placed(t: Test): Promise<string> {
  const folder = join(await workDirectory(t), "units")
  await mkdir(folder)
  const path = join(folder, "commitcast.service")
  await writeFile(path, adapted(unit, { "/usr/bin/node": process.execPath }))
  return path
}

t.test("systemd takes it without a word", { skip }, async (t) => {
  const { stdout, stderr } = await promisify(execFile)(ANALYZE, ["verify", "--man=no", await placed(t)])
  t.strictSame([stdout, stderr], ["", ""])
})

t.test("it may do little", { skip }, async (t) => {
  const args = ["security", "--offline=true", "--no-pager", `--threshold=${EXPOSURE}`, await placed(t)]
  const { stdout } = await promisify(execFile)(ANALYZE, args)
  t.match(stdout, /Overall exposure level/)
})

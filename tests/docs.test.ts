/** The clients in docs/PROTOCOL.md do what is said of them: cut off, they come back and miss nothing. */

import { execFileSync, spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import t, { type Test } from "tap"
import { database } from "./helpers/database.ts"
import { startProxy } from "./helpers/proxy.ts"
import { startRelay, token } from "./helpers/relay.ts"
import { until } from "./helpers/wait.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

/** The largest example of a language. */
function example(language: string): string {
  const text = readFileSync(`${root}/docs/PROTOCOL.md`, "utf8")
  const blocks = [...text.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, "gms"))].map(
    ([, code]) => code ?? "",
  )
  return blocks.sort((a, b) => b.length - a.length)[0] ?? ""
}

/** A Python that has the package, if there is one. */
function python(): string | undefined {
  for (const each of ["/usr/bin/python3", "python3"]) {
    try {
      execFileSync(each, ["-c", "import websockets"], { stdio: "ignore" })
      return each
    } catch {}
  }
  return undefined
}

interface Line {
  load?: string
  id?: string
  votes?: number
}

function follow(t: Test, command: string, args: string[], stdin: string): Line[] {
  const child = spawn(command, args, { cwd: root, stdio: ["pipe", "pipe", "inherit"] })
  child.stdin.end(stdin)
  const lines: Line[] = []
  createInterface({ input: child.stdout }).on("line", (line) => lines.push(JSON.parse(line)))
  t.teardown(() => child.kill("SIGKILL"))
  return lines
}

const CLIENTS: [name: string, missing: string | false, run: (t: Test, url: string) => Line[]][] = [
  [
    "JavaScript",
    false,
    (t, url) =>
      follow(
        t,
        process.execPath,
        ["--input-type=module"],
        `import { WebSocket } from "ws"
         globalThis.WebSocket = WebSocket
         const token = ${JSON.stringify(token())}
         const print = (line) => console.log(JSON.stringify(line))
         const loadState = (load) => print({ load })
         const apply = ({ id, data }) => print({ id, votes: data.votes })
         ${example("js").replaceAll("ws://127.0.0.1:8080", url).replace("\n  socket.onclose", "\n  socket.onerror = () => {}\n  socket.onclose")}`,
      ),
  ],
  [
    "Python",
    python() === undefined && "no Python with the package websockets on this machine",
    (t, url) =>
      follow(
        t,
        python() ?? "",
        ["-"],
        `${example("python")}
async def load_state(reason):
    print(json.dumps({"load": reason}), flush=True)
async def show(message):
    print(json.dumps({"id": message["id"], "votes": message["data"]["votes"]}), flush=True)
asyncio.run(follow("${url}/ws", ${JSON.stringify(token())}, show, load_state))
`,
      ),
  ],
]

for (const [name, missing, run] of CLIENTS) {
  t.test(name, { skip: missing }, async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const proxy = await startProxy(t, Number(new URL(relay.url).port))
    const lines = run(t, `ws://127.0.0.1:${proxy.port}`)
    await until("it is connected", () => lines.length === 1)
    for (let round = 0; round < 3; round++) {
      await db.query("insert into vote (votes) values ($1)", [3 * round])
      await until("live", () => lines.length === 3 * round + 2)
      proxy.refuse()
      proxy.cut()
      await db.query("insert into vote (votes) values ($1), ($1 + 1)", [3 * round + 1])
      proxy.heal()
      await until("what was missed", () => lines.length >= 3 * round + 4)
    }
    t.same(lines[0], { load: "no_cursor" })
    t.same(
      lines.slice(1).map(({ votes }) => votes),
      [0, 1, 2, 3, 4, 5, 6, 7, 8],
    )
    t.equal(new Set(lines.slice(1).map(({ id }) => id)).size, 9)
  })
}

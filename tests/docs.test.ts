/** The clients in docs/PROTOCOL.md do what is said of them: they miss nothing, and their rows are the table. */

import { execFileSync, spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { isDeepStrictEqual } from "node:util"
import t, { type Test } from "tap"
import { type WebSocket, WebSocketServer } from "ws"
import { database } from "./helpers/database.ts"
import { rotate } from "./helpers/log.ts"
import { startProxy } from "./helpers/proxy.ts"
import { closesOf, startRelay, token } from "./helpers/relay.ts"
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

/** What a client has. */
type Rows = Record<string, unknown>[]

interface Line {
  /** Why it was asked to load. */
  load?: string
  /** A change that came, and whether it could be applied. */
  id?: string
  done?: boolean
  /** The code with which it gave up. */
  ended?: number
  /** The rows after it. */
  rows?: Rows
}

function follow(t: Test, command: string, args: string[], stdin: string): Line[] {
  const child = spawn(command, args, { cwd: root, stdio: ["pipe", "pipe", "inherit"] })
  child.stdin.end(stdin)
  const lines: Line[] = []
  createInterface({ input: child.stdout }).on("line", (line) => lines.push(JSON.parse(line)))
  t.teardown(() => child.kill("SIGKILL"))
  return lines
}

/** @param state answers with the pairs of key and row. */
type Run = (t: Test, url: string, state: string) => Line[]

const CLIENTS: [name: string, missing: string | false, run: Run][] = [
  [
    "JavaScript",
    false,
    (t, url, state) =>
      follow(
        t,
        process.execPath,
        ["--input-type=module"],
        `import { WebSocket } from "ws"
         globalThis.WebSocket = WebSocket
         const getToken = async () => (await fetch("${state}token")).text()
         const print = (line) => console.log(JSON.stringify({ ...line, rows: [...rows.values()] }))
         const loadState = async (reason) => {
           print({ load: reason })
           const pairs = await (await fetch("${state}")).json()
           return pairs.map(([key, data]) => ({ key, data }))
         }
         ${example("js").replaceAll("ws://127.0.0.1:8080", url).replace("\n  socket.onclose", "\n  socket.onerror = () => {}\n  socket.onclose")}
         const [applied, loaded] = [apply, load]
         apply = (message) => {
           const done = applied(message)
           print({ id: message.id, done })
           return done
         }
         load = async (reason) => {
           await loaded(reason)
           print({})
         }`,
      ),
  ],
  [
    "Python",
    python() === undefined && "no Python with the package websockets on this machine",
    (t, url, state) =>
      follow(
        t,
        python() ?? "",
        ["-"],
        `${example("python")}
import urllib.request
class Rows(dict):
    def update(self, *loaded):
        super().update(*loaded)
        show()
rows = Rows()
def show(**line):
    print(json.dumps({**line, "rows": list(rows.values())}), flush=True)
def applied(rows, message, apply=apply):
    done = apply(rows, message)
    show(id=message["id"], done=done)
    return done
apply = applied
async def load_state(reason):
    show(load=reason)
    return json.load(urllib.request.urlopen("${state}"))
async def get_token():
    return urllib.request.urlopen("${state}token").read().decode()
show(ended=asyncio.run(follow("${url}/ws", get_token, rows, load_state)))
`,
      ),
  ],
]

const byId = (rows: Rows) => [...rows].sort((one, two) => Number(one.id) - Number(two.id))

/** What a client loads, and its tokens. @returns its address. */
async function serveState(
  t: Test,
  read: () => Promise<Rows> | Rows,
  getToken = () => token(),
): Promise<string> {
  const server = createServer(async (request, response) => {
    if (request.url === "/token") return void response.end(getToken())
    const pairs = (await read()).map((row) => [{ id: String(row.id) }, row])
    response.end(JSON.stringify(pairs))
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  t.teardown(() => server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

for (const [name, missing, run] of CLIENTS) {
  t.test(`${name}: cut off, it comes back and misses nothing`, { skip: missing }, async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const proxy = await startProxy(t, Number(new URL(relay.url).port))
    const table = async () =>
      (
        await db.query<{ row: Record<string, unknown> }>("select to_json(v) as row from vote v order by id")
      ).map(({ row }) => row)
    const lines = run(t, `ws://127.0.0.1:${proxy.port}`, await serveState(t, table))
    const changes = () => lines.filter(({ id }) => id !== undefined)
    await until("it is connected", () => lines.length > 0)
    for (let round = 0; round < 3; round++) {
      await db.query("insert into vote (votes) values ($1)", [3 * round])
      await until("live", () => changes().length === 3 * round + 1)
      proxy.refuse()
      proxy.cut()
      await db.query("insert into vote (votes) values ($1), ($1 + 1)", [3 * round + 1])
      proxy.heal()
      await until("what was missed", () => changes().length >= 3 * round + 3)
    }
    t.equal(lines[0]?.load, "no_cursor")
    t.same(
      changes()
        .at(-1)
        ?.rows?.map(({ votes }) => votes),
      [0, 1, 2, 3, 4, 5, 6, 7, 8],
    )
    t.equal(new Set(changes().map(({ id }) => id)).size, 9)

    const agrees = async (what: string, count: number) => {
      await until(`${what} has come`, () => changes().length >= count && lines.at(-1)?.load === undefined)
      const must = await table()
      await until(what, () => isDeepStrictEqual(byId(lines.at(-1)?.rows ?? []), must))
      t.pass(what)
    }
    await db.query("update vote set id = id + 1000 where votes < 3; delete from vote where votes = 4")
    await agrees("what moved and went", 13)
    await db.query(
      "begin; set local relay.bulk_load = 'summary'; insert into vote (votes) values (9), (10); commit",
    )
    await agrees("a bulk load", 14)
    await db.query("truncate vote; insert into vote (votes) values (11)")
    await agrees("a truncate, and what came then", 16)
    t.same(
      lines.flatMap(({ load }) => load ?? []),
      ["no_cursor", "bulk_load"],
    )
  })

  t.test(`${name}: it survives what ends connections, and the largest rows`, { skip: missing }, async (t) => {
    const db = await database(t)
    await db.query(`
      create table note (id bigint generated always as identity primary key, text text);
      select relay.track('note', type => 'voting_update')`)
    const settings = { MAX_CONNECTIONS_PER_USER: "1", HEARTBEAT_SECONDS: "1" }
    const relay = await startRelay(t, db, settings)
    const proxy = await startProxy(t, Number(new URL(relay.url).port))
    let seconds = 3_600
    const tokens: string[] = []
    const getToken = () => {
      tokens.push(token({}, { expiresIn: seconds }))
      return tokens.at(-1) as string
    }
    const table = () => db.query<Record<string, unknown>>("select id::int, text from note order by id")
    const lines = run(t, `ws://127.0.0.1:${proxy.port}`, await serveState(t, table, getToken))
    const loads = () => lines.flatMap(({ load }) => load ?? [])
    const sizes = (rows: Rows = []) => byId(rows).map(({ text }) => String(text).length)
    const has = (what: string, ...expected: number[]) =>
      until(what, () => {
        const last = lines.at(-1)
        if (last?.ended !== undefined) throw new Error(`it ended with ${last.ended} instead of ${what}`)
        return isDeepStrictEqual(sizes(last?.rows), expected)
      })
    const write = async (length: number) => {
      await db.query("insert into note (text) values (repeat('x', $1))", [length])
    }
    const away = async (act: () => Promise<void>) => {
      proxy.refuse()
      proxy.cut()
      await act()
      proxy.heal()
    }
    await until("it is connected", () => loads().length > 0)
    await write(1)
    await has("live", 1)
    await write(1_200_000)
    await has("a row of 1.2 MB, live", 1, 1_200_000)
    await away(() => write(1_200_001))
    await has("and one that it missed", 1, 1_200_000, 1_200_001)

    await relay.stop()
    await write(2)
    const next = await startRelay(t, db, settings)
    proxy.aim(Number(new URL(next.url).port))
    await has("what a restart of the relay missed", 1, 1_200_000, 1_200_001, 2)
    t.same(loads(), ["no_cursor"], "nothing of it was loaded again")

    seconds = 1
    proxy.cut()
    const before = tokens.length
    await until("a token that ends brings another", () => tokens.length > before + 1)
    seconds = 3_600
    await write(3)
    await has("what came meanwhile", 1, 1_200_000, 1_200_001, 2, 3)

    proxy.silence()
    await write(4)
    proxy.heal()
    await has("behind a line that died without a word", 1, 1_200_000, 1_200_001, 2, 3, 4)
    t.same(loads(), ["no_cursor"], "nothing of it was loaded again")
    t.ok((await closesOf(next)).length > 0)

    await next.stop()
    await write(5)
    for (let n = 0; n < 3; n++) await rotate(db)
    await write(6)
    proxy.aim(Number(new URL((await startRelay(t, db, settings)).url).port))
    await has("what is in the log no more", 1, 1_200_000, 1_200_001, 2, 3, 4, 5, 6)
    t.same(loads(), ["no_cursor", "too_old"])
  })

  t.test(`${name}: it applies each form of a change`, { skip: missing }, async (t) => {
    let stored: Rows = [{ id: 1 }, { id: 2 }, { id: 3 }]
    const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "commitcast.v1" })
    t.teardown(() => {
      for (const client of server.clients) client.terminate()
      server.close()
    })
    await new Promise((resolve) => server.once("listening", resolve))
    const connected = new Promise<WebSocket>((resolve) => server.once("connection", resolve))
    const { port } = server.address() as AddressInfo
    const lines = run(t, `ws://127.0.0.1:${port}`, await serveState(t, () => stored))
    const socket = await connected
    const say = (message: object) => socket.send(JSON.stringify(message))
    say({
      type: "connection_success",
      heartbeat_seconds: 25,
      cursor: "a:1:1:",
      recovered: false,
      reason: "no_cursor",
    })
    let id = 0
    const row = (id: number, text: string) => ({ key: { id: String(id) }, data: { id, text } })
    const lost = (id: number) => ({ key: { id: String(id) }, data: null, oversize: true })
    const steps: [what: string, change: object, rows: Rows, loads?: Rows][] = [
      [
        "a row",
        { action: "create", ...row(4, "new") },
        [{ id: 1 }, { id: 2 }, { id: 3 }, { id: 4, text: "new" }],
      ],
      [
        "one that is there",
        { action: "create", ...row(1, "x") },
        [{ id: 1, text: "x" }, { id: 2 }, { id: 3 }, { id: 4, text: "new" }],
      ],
      [
        "one that was not there",
        { action: "update", ...row(5, "y") },
        [{ id: 1, text: "x" }, { id: 2 }, { id: 3 }, { id: 4, text: "new" }, { id: 5, text: "y" }],
      ],
      [
        "a key that moves onto another",
        { action: "update", ...row(4, "m"), previous_key: { id: "5" } },
        [{ id: 1, text: "x" }, { id: 2 }, { id: 3 }, { id: 4, text: "m" }],
      ],
      [
        "a row that left",
        { action: "leave", key: { id: "3" } },
        [{ id: 1, text: "x" }, { id: 2 }, { id: 4, text: "m" }],
      ],
      [
        "one that is not there",
        { action: "delete", ...row(9, "") },
        [{ id: 1, text: "x" }, { id: 2 }, { id: 4, text: "m" }],
      ],
      ["an oversize one that went", { action: "delete", ...lost(4) }, [{ id: 1, text: "x" }, { id: 2 }]],
      ["an oversize one", { action: "create", ...lost(7) }, [{ id: 7 }], [{ id: 7 }]],
      [
        "an oversize one that moved",
        { action: "update", ...lost(8), previous_key: { id: "7" } },
        [{ id: 8 }],
        [{ id: 8 }],
      ],
      ["a partition", { action: "truncate", partition: "p" }, [{ id: 6 }], [{ id: 6 }]],
      ["a bulk load", { action: "bulk_load" }, [{ id: 1 }, { id: 2 }], [{ id: 1 }, { id: 2 }]],
      ["the table", { action: "truncate" }, []],
    ]
    await until("it has loaded", () => isDeepStrictEqual(byId(lines.at(-1)?.rows ?? []), stored))
    for (const [what, change, rows, loads] of steps) {
      stored = loads ?? [{ id: 99 }]
      const before = lines.length
      say({ type: "voting_update", id: String(++id), table: "vote", ...change })
      const changed = () => lines.slice(before).find((line) => line.id === String(id))
      await until(what, () => changed() !== undefined)
      t.equal(changed()?.done, loads === undefined, `${what}: whether it loads`)
      const last = () => byId(lines.at(-1)?.rows ?? [])
      await until(`the rows after ${what}`, () => isDeepStrictEqual(last(), rows)).catch(() => {})
      t.same(last(), rows, what)
    }
  })
}

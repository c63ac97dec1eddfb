/** The pipe between two processes: messages, questions, and its end. */

import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer, connect as open, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { PassThrough } from "node:stream"
import fc from "fast-check"
import t, { type Test } from "tap"
import { createIpcChannel, type IpcDeps, lineOf } from "../../relay/workers/ipc.ts"

const silent: Omit<IpcDeps, "stream"> = { onMessage() {}, onQuestion: async () => null, onClosed() {} }

/** Two ends of a real socket. */
async function ends(t: Test): Promise<[Socket, Socket]> {
  const path = await mkdtemp(join(tmpdir(), "commitcast-pipe-"))
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(join(path, "pipe"), resolve))
  t.teardown(async () => {
    server.close()
    await rm(path, { recursive: true })
  })
  const there = new Promise<Socket>((resolve) => server.once("connection", resolve))
  const here = open(join(path, "pipe"))
  t.teardown(() => here.destroy())
  return [here, await there]
}

t.test("messages arrive whole and in order, wherever the bytes are cut", async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.jsonValue(), { minLength: 1, maxLength: 8 }),
      fc.array(fc.nat(), { maxLength: 12 }),
      async (messages, cuts) => {
        const bytes = Buffer.concat(messages.map(lineOf))
        const stream = new PassThrough()
        const told: unknown[] = []
        const all = new Promise<void>((resolve) => {
          createIpcChannel({
            ...silent,
            stream,
            onMessage: (message) => {
              if (told.push(message) === messages.length) resolve()
            },
          })
        })
        const at = [...new Set(cuts.map((cut) => cut % bytes.length))].sort((a, b) => a - b)
        let from = 0
        for (const cut of [...at, bytes.length]) {
          stream.write(bytes.subarray(from, cut))
          from = cut
        }
        await all
        t.strictSame(JSON.stringify(told), JSON.stringify(messages))
      },
    ),
    { numRuns: 50 },
  )
})

t.test("either side asks the other, and answers need not come in order", async (t) => {
  const [here, there] = await ends(t)
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const a = createIpcChannel({ ...silent, stream: here, onQuestion: async () => "of a" })
  const b = createIpcChannel({
    ...silent,
    stream: there,
    async onQuestion(question) {
      if (question === "report") await held
      if (question === "hub") throw new Error("no hub here")
      return `${question} of b`
    },
  })
  const late = a.ask("report", 20_000)
  t.equal(await a.ask("metrics", 20_000), "metrics of b")
  t.equal(await a.ask("hub", 20_000), null, "a failure is an answer")
  t.equal(await b.ask("refresh", 20_000), "of a")
  release()
  t.equal(await late, "report of b")
})

t.test("a question that nobody answers fails", async (t) => {
  const [here, there] = await ends(t)
  const a = createIpcChannel({ ...silent, stream: here })
  createIpcChannel({ ...silent, stream: there, onQuestion: () => new Promise(() => {}) })
  await t.rejects(a.ask("report", 1), /no answer to report/)
})

t.test("the end is told once: of the other side, and of one that cannot be understood", async (t) => {
  for (const [what, end] of [
    ["closed", (there: Socket) => there.destroy()],
    ["no JSON", (there: Socket) => there.write("hello\n")],
    ["no envelope", (there: Socket) => there.write('{"say":1}\n')],
  ] as const) {
    const [here, there] = await ends(t)
    there.on("error", () => {})
    const errors: unknown[] = []
    await new Promise<void>((resolve) => {
      const pipe = createIpcChannel({
        ...silent,
        stream: here,
        onClosed(error) {
          errors.push(error?.name)
          resolve()
        },
      })
      end(there)
      here.once("close", () => pipe.close())
    })
    if (!here.closed) await once(here, "close")
    t.equal(errors.length, 1, what)
    t.equal(errors[0] === undefined, what === "closed", what)
  }
})

/**
 * A back end beside the relay. It signs people in, gives their page a token for the relay, and the state that the changes go on from.
 *
 *     DATABASE_URL=... JWT_SECRET=... DESK_PASSWORD=... node --import tsx examples/backend.ts examples/plain
 */

import { createHash, timingSafeEqual } from "node:crypto"
import { fileURLToPath } from "node:url"
import express from "express"
import jwt from "jsonwebtoken"
import pg from "pg"

const { DATABASE_URL, JWT_SECRET, DESK_PASSWORD, RELAY_URL, PORT } = process.env
const [directory] = process.argv.slice(2)
if (!DATABASE_URL || !JWT_SECRET || !DESK_PASSWORD || !directory) {
  console.error(
    "needed: DATABASE_URL, JWT_SECRET (the relay's), DESK_PASSWORD, and the directory of the page",
  )
  process.exit(2)
}

const pool = new pg.Pool({ connectionString: DATABASE_URL })
const app = express()

/** Put here how your application signs people in. This is HTTP Basic, with one password for all. */
app.use((request, response, next) => {
  const [, basic = ""] = /^Basic (.+)$/.exec(request.headers.authorization ?? "") ?? []
  const [, user = "", password = ""] = /^([^:]+):(.*)$/.exec(Buffer.from(basic, "base64").toString()) ?? []
  const digest = (text: string) => createHash("sha256").update(text).digest()
  if (user !== "" && timingSafeEqual(digest(password), digest(DESK_PASSWORD))) {
    response.locals.user = user
    return next()
  }
  response.status(401).set("WWW-Authenticate", 'Basic realm="Votes"').send("Sign in to see the votes.")
})

/** Short, because it is asked for anew before it ends. Claims such as `committees: [7]` narrow what it shows. */
app.get("/relay-token", (_request, response) => {
  const token = jwt.sign({ sub: response.locals.user }, JWT_SECRET, { expiresIn: "10m" })
  response.json({ url: RELAY_URL ?? "ws://127.0.0.1:8080/ws", token })
})

/** The rows and the cursor are of one snapshot, so that no change lies between them. */
app.get("/votes", async (_request, response) => {
  const client = await pool.connect()
  try {
    await client.query("begin isolation level repeatable read read only")
    const position = await client.query<{ cursor: string }>("select relay.cursor() as cursor")
    const { rows } = await client.query(
      "select id::int, candidate_id, committee_id, votes from vote order by id",
    )
    response.json({ cursor: position.rows[0]?.cursor, rows })
  } finally {
    await client.query("rollback").finally(() => client.release())
  }
})

app.use("/commitcast", express.static(fileURLToPath(new URL(".", import.meta.resolve("commitcast-client")))))
app.use(express.static(directory))

const server = app.listen(Number(PORT ?? 3000), "127.0.0.1", () => {
  const address = server.address()
  if (address !== null && typeof address === "object")
    console.log(`open http://127.0.0.1:${address.port}/ (any name, and the password)`)
})

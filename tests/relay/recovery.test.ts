/** Where nothing can be promised the client is told, with the reason, and is live from then on. */

import t from "tap"
import { type Database, database } from "../helpers/database.ts"
import { cursorNow, rotate } from "../helpers/log.ts"
import { startRelay } from "../helpers/relay.ts"

const CURSOR = /^[0-9a-f]{12}:\d+:\d+:[\d,]*$/

const ENDS: [reason: string, what: string, cursor: (db: Database) => Promise<string[]>][] = [
  [
    "malformed",
    "what is no cursor",
    async (db) => {
      const cursor = await cursorNow(db)
      return [
        "x",
        "",
        "%00",
        ":",
        "a:b:c:",
        `${cursor},x`,
        `${cursor}-`,
        cursor.slice(13),
        `X${cursor}`,
        "a:9:3:",
      ]
    },
  ],
  [
    "lineage",
    "another lineage",
    async (db) => [(await cursorNow(db)).replace(/^[0-9a-f]{12}/, "0123456789ab"), "0:3:3:"],
  ],
  [
    "ahead",
    "ahead of the database",
    async (db) => {
      const [lineage] = (await cursorNow(db)).split(":")
      return [`${lineage}:99999999:99999999:`, `${lineage}:18446744073709551615:18446744073709551615:`]
    },
  ],
  [
    "too_old",
    "older than the log",
    async (db) => {
      const [lineage] = (await cursorNow(db)).split(":")
      const cursor = await cursorNow(db)
      await db.query("insert into vote (votes) values (0)")
      for (let i = 0; i < 3; i++) await rotate(db)
      return [cursor, `${lineage}:3:3:`]
    },
  ],
  [
    "too_old",
    "older than a pause of the capture",
    async (db) => {
      const cursor = await cursorNow(db)
      await db.query("select relay.pause()")
      await db.query("insert into vote (votes) values (0)")
      await db.query("select relay.resume()")
      return [cursor]
    },
  ],
]

for (const [reason, what, cursors] of ENDS) {
  t.test(`${reason}: ${what}`, async (t) => {
    const db = await database(t)
    await db.query("select relay.meet_lineage()")
    const all = await cursors(db)
    const relay = await startRelay(t, db)
    let n = 0
    for (const cursor of all) {
      const client = await relay.connect({}, `?cursor=${cursor}`)
      t.match(client.messages[0], { recovered: false, replayed: 0, reason, cursor: CURSOR }, cursor)
      const other = await relay.connect()
      other.send({ type: "subscribe", channels: ["committee:7"], cursor: decodeURIComponent(cursor) })
      const answer = await other.first("the answer", ({ type }) => type === "subscribed")
      t.match(answer, { recovered: false, replayed: 0, reason, cursor: CURSOR }, cursor)
      await db.query("insert into vote (votes) values ($1)", [++n])
      t.match(await client.count(1), [{ data: { votes: n } }])
      t.match(await other.count(1), [{ data: { votes: n } }])
    }
  })
}

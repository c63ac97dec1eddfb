/** The world of the model test: real sessions, relays and clients, and the reference model beside them. */

import { isDeepStrictEqual } from "node:util"
import pg from "pg"
import type { Test } from "tap"
import { contains, parseSnapshot } from "../../relay/change/cursor.ts"
import type { Received } from "./client.ts"
import { copyOf, differences, Ledger, type Reading, type Row } from "./ledger.ts"
import { type Effect, newTransaction, Reference, readMoment, TABLE, type Transaction } from "./reference.ts"
import type { TestRelay } from "./relay.ts"
import { until } from "./wait.ts"

/** What a reader may see: all, or some committees. */
export const CHANNELS = [["election_updates"], ["committee:1"], ["committee:1", "committee:2"]]

const ROW = "row_to_json(vote.*)::text as row, pg_current_xact_id()::text as xid"
const WRITES = {
  insert: `insert into vote (id, committee_id, votes) values ($1, $2, $3) returning ${ROW}`,
  update: `update vote set committee_id = $2, votes = $3 where id = $1 returning ${ROW}`,
  delete: `delete from vote where id = $1 and ($2::int, $3::int) is not null returning ${ROW}`,
}
export type Write = keyof typeof WRITES

const LOCKED = "55P03"
const SERIALIZATION = "40001"
const DUPLICATE = "23505"

/** A database session and the transaction that is open in it. */
export class Session {
  readonly client: pg.Client
  transaction: Transaction | undefined
  constructor(client: pg.Client) {
    this.client = client
  }
}

/** A client of the model test. */
export class Reader {
  readonly ledger = new Ledger({ store: true })
  channels: readonly string[] = CHANNELS[0] as string[]
  reading: { channels: readonly string[]; reading: Reading } | undefined
  stalled = false
  /** The relay that it is connected to. */
  relay = -1
}

/** How a reader connects. */
export type Hop = "fresh" | "kept" | "stored" | "read"

/** Cursors that no relay can continue, and the reason that it must tell. */
export const BOGUS = { malformed: "x", lineage: "0123456789ab:3:3:", ahead: "9000000:9000000:" }

/** Everything real, and the model beside it. */
export class World {
  readonly relays: TestRelay[]
  readonly sessions: Session[]
  readonly control: pg.Client
  readers: Reader[] = []
  reference: Reference
  steps = 0
  #rests = 0
  /** 4011 may come: a reading session was killed. */
  interrupted = false
  readonly start: (n: number) => Promise<TestRelay>

  constructor(
    relays: TestRelay[],
    sessions: Session[],
    control: pg.Client,
    reference: Reference,
    start: World["start"],
    readers: number,
  ) {
    this.relays = relays
    this.sessions = sessions
    this.control = control
    this.reference = reference
    this.start = start
    this.readers = Array.from({ length: readers }, () => new Reader())
  }

  async ask<R extends pg.QueryResultRow>(sql: string, values: unknown[] = []): Promise<R> {
    const result = await this.control.query<R>(sql, values)
    return result.rows[0] as R
  }

  /** The open transactions beside this one. */
  others(own?: Transaction): Transaction[] {
    const open = this.sessions.flatMap(({ transaction }) => transaction ?? [])
    return [...open, ...this.reference.prepared.values()].filter((other) => other !== own)
  }

  /**
   * A statement in a session, in its transaction or one of its own.
   * @param effects what it did, from its rows.
   * @param mayWait whether somebody holds what it needs: else nothing may keep it waiting.
   */
  async statement(
    session: Session,
    sql: string,
    values: unknown[],
    effects: (rows: Row[], transaction: Transaction) => Effect[],
    mayWait: boolean,
  ): Promise<void> {
    const transaction = session.transaction ?? newTransaction()
    try {
      const { rows } = await session.client.query<Row>(sql, values)
      transaction.effects.push(...effects(rows, transaction))
      if (rows[0]?.xid !== undefined) transaction.xid = BigInt(rows[0].xid as string)
      if (session.transaction === undefined) this.reference.commit(transaction)
    } catch (error) {
      const { code } = error as { code?: string }
      const expected =
        (code === LOCKED && mayWait) ||
        code === DUPLICATE ||
        (code === SERIALIZATION && transaction.isolation !== "read committed")
      if (!expected) throw error
      transaction.failed = true
      transaction.effects.length = transaction.savepoints.at(-1) ?? 0
    }
  }

  async write(session: Session, op: Write, key: number, committee: number | null, votes: number) {
    const own = session.transaction
    const mayWait = this.others(own).some(({ effects }) =>
      effects.some((effect) => effect.kind === "truncate" || (effect.kind === "row" && effect.key === key)),
    )
    const effects = (rows: Row[], transaction: Transaction): Effect[] => [
      { kind: "look" },
      ...rows.map(({ row }): Effect => {
        const before = this.reference.current(transaction, key)
        const image = JSON.parse(row as string) as Row
        if (
          (op === "insert") !== (before === undefined) ||
          (op === "delete" && !isDeepStrictEqual(before, image))
        )
          throw new Error(`the model is wrong: ${op} of ${JSON.stringify(before)}`)
        const after = op === "delete" ? undefined : image
        return { kind: "row", key, slot: this.reference.slot, before, after }
      }),
    ]
    await this.statement(session, WRITES[op], [key, committee, votes], effects, mayWait)
  }

  async truncate(session: Session) {
    const mayWait = this.others(session.transaction).some(({ effects }) =>
      effects.some(({ kind }) => kind !== "message"),
    )
    const slot = this.reference.slot
    const sql = "truncate vote"
    await this.statement(session, sql, [], () => [{ kind: "look" }, { kind: "truncate", slot }], mayWait)
    const transaction = session.transaction
    // TRUNCATE returns no row to tell the xid.
    if (transaction !== undefined && !transaction.failed) await this.learnXid(session)
  }

  async learnXid(session: Session) {
    const { rows } = await session.client.query("select pg_current_xact_id_if_assigned()::text as xid")
    const xid = rows[0]?.xid as string | null
    if (session.transaction !== undefined && xid !== null) session.transaction.xid = BigInt(xid)
  }

  async broadcast(session: Session, channel: string, count: number) {
    const { slot } = this.reference
    const sql = `select pg_current_xact_id()::text as xid, n, relay.broadcast($1, to_jsonb(n)) from generate_series(1, $2::int) n`
    const effects = (rows: Row[]) =>
      rows.map(({ n }): Effect => ({ kind: "message", slot, channel, payload: n }))
    await this.statement(session, sql, [channel, count], effects, false)
  }

  async end(session: Session, how: "commit" | "rollback") {
    const transaction = session.transaction
    session.transaction = undefined
    try {
      await session.client.query(how)
      if (how === "commit" && transaction !== undefined && !transaction.failed)
        this.reference.commit(transaction)
    } catch (error) {
      if ((error as { code?: string }).code !== SERIALIZATION) throw error
    }
  }

  async prepare(session: Session, name: string) {
    const transaction = session.transaction as Transaction
    session.transaction = undefined
    try {
      await session.client.query(`prepare transaction '${name}'`)
      if (!transaction.failed) this.reference.prepared.set(name, transaction)
    } catch (error) {
      if ((error as { code?: string }).code !== SERIALIZATION) throw error
    }
  }

  async endPrepared(name: string, how: "commit" | "rollback") {
    const transaction = this.reference.prepared.get(name) as Transaction
    await this.control.query(`${how} prepared '${name}'`)
    this.reference.prepared.delete(name)
    if (how === "commit") this.reference.commit(transaction)
  }

  /** Waits until the relays have read everything that is committed. */
  async settle() {
    const { now } = await this.ask<{ now: string }>(
      `select pg_notify('election_updates', '{"v":1,"table":"","op":"message","rows":1,"xid":"1"}'), pg_current_snapshot()::text as now`,
    )
    const snapshot = parseSnapshot(now)
    if (snapshot === undefined) throw new Error("no snapshot")
    await until("the relays have read everything", () =>
      this.relays.every(({ relay }) => {
        const { feed } = relay.status()
        return feed.kind === "up" && contains(feed.cursor.snapshot, snapshot)
      }),
    )
  }

  /** @param advance false: whoever rotated ends before it has told the writers. */
  async rotate(advance: boolean) {
    await this.settle()
    const next = (this.reference.slot + 1) % 3
    const kept = this.others().some((other) => this.reference.keeps(other, next))
    const { inFlight } = readMoment(
      `:${(await this.ask<{ it: string }>("select pg_current_snapshot()::text as it")).it}`,
    )
    let slot: number | null = null
    const attempt = async () => {
      try {
        slot = (await this.ask<{ slot: number | null }>("select relay.rotate('0 s', 0) as slot")).slot
        return slot !== null
      } catch (error) {
        if ((error as { code?: string }).code !== LOCKED) throw error
        return kept
      }
    }
    await until("a rotation that nobody holds up", attempt).catch(async (error: Error) => {
      const { holders } = await this.ask<{ holders: unknown }>(
        `select json_agg(json_build_object('lock', l.relation::regclass::text || ' ' || l.mode, 'by', a.application_name, 'state', a.state, 'query', a.query)) as holders
         from pg_locks l left join pg_stat_activity a using (pid) where l.relation = any($1::regclass[])`,
        [["relay.change_0", "relay.change_1", "relay.change_2"]],
      )
      throw new Error(`${error.message} of change_${next}: ${JSON.stringify(holders)}`)
    })
    if (slot === null) return
    if (kept) throw new Error("a table was emptied in which somebody still writes")
    this.reference.rotated(next, inFlight)
    if (!advance) return
    await this.control.query("select relay.advance_slot($1::smallint)", [next])
    this.reference.slot = next
  }

  /** Whoever has truncated keeps everybody from reading, so that transaction ends first. */
  async #freeTable() {
    const blocks = (transaction: Transaction | undefined) =>
      transaction?.effects.some(({ kind }) => kind === "truncate") === true
    for (const session of this.sessions) if (blocks(session.transaction)) await this.end(session, "commit")
    for (const [name, transaction] of this.reference.prepared)
      if (blocks(transaction)) await this.endPrepared(name, "commit")
  }

  async read(channels: readonly string[], isolation = "repeatable read"): Promise<Reading> {
    await this.#freeTable()
    await this.control.query(`begin isolation level ${isolation} read only`)
    const { cursor } = await this.ask<{ cursor: string }>("select relay.cursor() as cursor")
    const { rows } = await this.control.query<{ row: Row }>(
      `select row_to_json(vote.*) as row from vote where $1 or committee_id::text = any($2)`,
      [channels.includes("election_updates"), channels.map((channel) => channel.split(":")[1])],
    )
    await this.control.query("commit")
    const copy = copyOf(
      TABLE,
      rows.map(({ row }) => row),
    )
    return { cursor, copy, exact: true }
  }

  async hop(reader: Reader, n: number, how: Hop, channels: readonly string[]) {
    const { ledger } = reader
    reader.stalled = false
    ledger.disconnect()
    if (how === "fresh") {
      reader.channels = channels
      ledger.cursor = undefined
    } else if (how === "read" && reader.reading !== undefined) {
      reader.channels = reader.reading.channels
      ledger.adopt(reader.reading.reading)
    } else if (how === "stored" && ledger.stored !== undefined) ledger.adopt(ledger.stored)
    else if (ledger.unloaded) ledger.cursor = undefined
    await this.connect(reader, n)
  }

  /** Connects with what the ledger has, and checks the answer against the model. */
  async connect(reader: Reader, n: number) {
    const { ledger } = reader
    const { cursor } = ledger
    await this.answered(reader, cursor, await this.#open(reader, n, cursor))
  }

  /** Connects; again where a replay was interrupted because its database session was. */
  async #open(reader: Reader, n: number, cursor: string | undefined): Promise<Received> {
    reader.relay = n
    let success: Received | undefined
    await until("a connection", async () => {
      try {
        success = await reader.ledger.connect((this.relays[n] as TestRelay).url, reader.channels, cursor)
      } catch (error) {
        if (!this.interrupted || reader.ledger.ended?.code !== 4011) throw error
      }
      return success !== undefined
    })
    return success as Received
  }

  async answered(
    reader: Reader,
    cursor: string | undefined,
    answer: { recovered?: unknown; reason?: unknown; cursor?: string },
  ) {
    const { ledger } = reader
    const reason = cursor === undefined ? "no_cursor" : this.reference.holds(cursor) ? null : "too_old"
    const told = { recovered: answer.recovered, reason: answer.reason }
    // What was rotated out may still lie in a relay's memory.
    const mayRecover = reason !== "no_cursor" && answer.recovered === true && answer.reason === null
    if (!mayRecover && !isDeepStrictEqual(told, { recovered: reason === null, reason })) {
      const { xmax, inFlight } = this.reference.horizon
      throw new Error(
        `${cursor}, horizon ${xmax}:${[...inFlight]}, should be ${reason}: ${JSON.stringify(answer)}`,
      )
    }
    if (reason === null && answer.cursor !== cursor)
      throw new Error(`continued at ${answer.cursor}, not at ${cursor}`)
    if (ledger.unloaded) ledger.load((await this.read(reader.channels, "read committed")).copy)
  }

  /** With a cursor that nobody can continue. */
  async stray(reader: Reader, n: number, reason: keyof typeof BOGUS) {
    const { ledger } = reader
    reader.stalled = false
    const lineage = (await this.ask<{ it: string }>("select relay.present_lineage() as it")).it
    const cursor = reason === "ahead" ? `${lineage}:${BOGUS.ahead}` : BOGUS[reason]
    const answer = await this.#open(reader, n, cursor)
    if (answer.recovered !== false || answer.reason !== reason)
      throw new Error(`${cursor} should be ${reason}: ${JSON.stringify(answer)}`)
    ledger.load((await this.read(reader.channels, "read committed")).copy)
  }

  /** Ends what the relays read the log with. */
  async cutDatabase() {
    this.interrupted = true
    await this.control.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'commitcast feed'",
    )
  }

  /** A relay that is stopped, and another in its place that remembers nothing. */
  async restart(n: number) {
    const stopped = (this.relays[n] as TestRelay).stop()
    await this.#closed(4000, ({ relay }) => relay === n)
    await stopped
    this.relays[n] = await this.start(n)
  }

  /** Nothing of what is written in between is captured, and everybody is told to begin anew. */
  async pause() {
    const session = this.sessions[0] as Session
    await this.control.query("select relay.pause()")
    // Behind the log's back: an update that a client cannot know of.
    const { rows } = await session.client.query<{ row: string }>(
      `update vote set entered_by = 'paused' where id = any($1) returning row_to_json(vote.*)::text as row`,
      [[...this.reference.rows.keys()].slice(0, 2)],
    )
    for (const { row } of rows) {
      const image = JSON.parse(row) as Row
      this.reference.rows.set(image.id as number, image)
    }
    await this.control.query("select relay.resume()")
    const { h } = await this.ask<{ h: string }>("select h::text as h from relay.horizon")
    this.reference.horizon = readMoment(`:${h}`)
    await this.settle()
    await this.#closed(4010, () => true)
  }

  /** Waits until those who are connected have been closed, with this code. */
  async #closed(code: number, concerned: (reader: Reader) => boolean) {
    for (const reader of this.readers.filter(concerned)) {
      const { ledger } = reader
      if (ledger.ended?.code === 0) continue
      ledger.unstall()
      reader.stalled = false
      await until(`closed with ${code}`, () => ledger.ended !== undefined)
      if (ledger.ended?.code !== code) this.checkEnd(reader)
      ledger.ended = { code: 0, reason: "as it should" }
    }
  }

  async subscribe(reader: Reader, how: "mark" | "own" | "read" | "widen") {
    const { ledger, channels, reading } = reader
    if (ledger.ended !== undefined || reader.stalled) return
    if (how === "mark") {
      await ledger.subscribe(channels, {})
    } else if (how === "own") {
      const { cursor } = ledger
      const answer = await ledger.subscribe(channels, { own: true })
      if (answer !== undefined) await this.answered(reader, cursor, answer)
    } else if (how === "widen") {
      const answer = await ledger.subscribe(["committee:2"], { widens: true })
      if (answer === undefined) return
      reader.channels = [...new Set([...channels, "committee:2"])]
      ledger.load((await this.read(reader.channels, "read committed")).copy)
    } else if (reading !== undefined && channels.every((channel) => reading.channels.includes(channel))) {
      // What was read is what all channels show from now on.
      const answer = await ledger.subscribe(reading.channels, { reading: reading.reading })
      if (answer === undefined) return
      reader.channels = reading.channels
      await this.answered(reader, reading.reading.cursor, answer)
    }
  }

  /** Everybody who is connected has everything that is committed, and all of it is as the model says. */
  async rest() {
    const n = ++this.#rests
    const payload = { rest: n }
    const { xid } = await this.ask<{ xid: string }>(
      "select pg_current_xact_id()::text as xid, relay.send_to_user('7', $1)",
      [JSON.stringify(payload)],
    )
    const told = newTransaction()
    told.xid = BigInt(xid)
    told.effects.push({ kind: "message", slot: this.reference.slot, channel: "user:7", payload })
    this.reference.commit(told)
    for (const reader of this.readers) {
      const { ledger } = reader
      if (ledger.ended?.code === 0) continue
      ledger.unstall()
      reader.stalled = false
      await this.#resting(reader, n)
      this.checkEnd(reader)
      if (ledger.ended === undefined) continue
      await this.hop(reader, reader.relay, "kept", reader.channels)
      await this.#resting(reader, n)
    }
    for (const reader of this.readers) if (reader.ledger.ended === undefined) this.check(reader)
  }

  async #resting(reader: Reader, n: number) {
    const { ledger } = reader
    const there = () => ledger.ended !== undefined || this.#hasRest(ledger, n)
    await until(`rest ${n}`, there).catch((error: Error) => this.fail(reader, [error.message]))
  }

  /** Whether the last message is there, its transaction closed, and no replay runs. */
  #hasRest(ledger: Ledger, n: number): boolean {
    const { trail } = ledger
    const end = trail.findLastIndex(
      (step) => step.kind === "change" && isDeepStrictEqual(step.message.payload, { rest: n }),
    )
    const told = trail[end]
    if (told?.kind !== "change") return false
    const replay = trail.findLastIndex(({ kind }) => kind === "resumed")
    const ended = trail.findLastIndex((step) => step.kind === "mark" && step.replayed !== undefined)
    if (replay > ended) return false
    return told.message.tx?.last === true || trail.slice(end).some(({ kind }) => kind === "mark")
  }

  checkEnd({ ledger }: Reader) {
    const code = ledger.ended?.code
    if (code === undefined || (code === 4011 && this.interrupted)) return
    throw new Error(`a client was closed with ${code} ${ledger.ended?.reason}`)
  }

  check(reader: Reader) {
    const { ledger, channels } = reader
    const shown = new Set(channels)
    const faults = [
      ...this.reference.faults(ledger, shown),
      ...differences(ledger.copy, this.reference.table(shown)),
    ]
    if (faults.length > 0) this.fail(reader, faults)
  }

  fail({ ledger, channels }: Reader, faults: string[]): never {
    const trail = ledger.trail.slice(-40).map((step) => JSON.stringify(step))
    throw new Error(
      `${faults.slice(0, 10).join("\n")}\nbase ${ledger.base} in ${channels}\n${trail.join("\n")}`,
    )
  }

  /** After the last command: all transactions end, all readers come back with the cursor that they kept. */
  async finish() {
    await this.rest()
    for (const [n, session] of this.sessions.entries())
      if (session.transaction !== undefined) await this.end(session, n % 2 === 0 ? "commit" : "rollback")
    for (const name of [...this.reference.prepared.keys()]) await this.endPrepared(name, "commit")
    for (const [n, reader] of this.readers.entries())
      if (reader.ledger.ended !== undefined && reader.ledger.cursor !== undefined)
        await this.hop(reader, n % this.relays.length, "kept", reader.channels)
    await this.rest()
    const table = await this.read(["election_updates"])
    const wrong = differences(table.copy, this.reference.table(new Set(["election_updates"])))
    if (wrong.length > 0) throw new Error(`the model is wrong: ${wrong.join("\n")}`)
  }

  /** Whatever happened. */
  async clear() {
    for (const reader of this.readers) reader.ledger.disconnect()
    for (const { client } of this.sessions) await client.query("rollback").catch(() => {})
    await this.control.query("rollback").catch(() => {})
    const { rows } = await this.control.query<{ gid: string }>("select gid from pg_prepared_xacts")
    for (const { gid } of rows) await this.control.query(`rollback prepared '${gid}'`)
  }
}

/** A session that is closed with the test; rows in it are as the relay sends them. */
export async function openSession(t: Test, url: string, setup: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on("error", () => {})
  await client.connect()
  await client.query(`set timezone = 'UTC'; ${setup}`)
  t.teardown(() => client.end())
  return client
}

/** The model of the log as it is: runs follow each other on one database. */
export async function readReference(control: pg.Client): Promise<Reference> {
  const { rows } = await control.query<{ slot: number; h: string; rows: Row[]; last: Array<string | null> }>(
    `select relay.slot()::int as slot, h::text as h,
            (select json_agg(row_to_json(vote)) from vote) as rows,
            array[(select max(xid)::text from relay.change_0), (select max(xid)::text from relay.change_1),
                  (select max(xid)::text from relay.change_2)] as last
     from relay.horizon`,
  )
  const found = rows[0] as (typeof rows)[0]
  const last = found.last.map((xid) => (xid === null ? undefined : BigInt(xid)))
  const reference = new Reference(found.slot, last, readMoment(`:${found.h}`))
  for (const row of found.rows) reference.rows.set(row.id as number, row)
  return reference
}

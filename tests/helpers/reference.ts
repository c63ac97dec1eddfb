/**
 * The reference model: transactions as PostgreSQL acknowledged them, what they committed in which order, and what was
 * rotated out. From it follows what each client must have been sent. Pure, and knows nothing of the relay's code.
 */

import { isDeepStrictEqual } from "node:util"
import type { Received } from "./client.ts"
import type { Copy, Ledger, Row } from "./ledger.ts"
import { copyOf } from "./ledger.ts"

export const TABLE = "public.vote"

/** What one statement did. */
export type Effect =
  | { kind: "row"; key: number; slot: number; before: Row | undefined; after: Row | undefined }
  | { kind: "truncate"; slot: number }
  | { kind: "message"; slot: number; channel: string; payload: unknown }
  /** Locks the table and changes nothing. */
  | { kind: "look" }

export interface Transaction {
  isolation: string
  xid: bigint | undefined
  effects: Effect[]
  /** How many effects there were at each savepoint. */
  savepoints: number[]
  failed: boolean
}

export const newTransaction = (isolation = "read committed"): Transaction => ({
  isolation,
  xid: undefined,
  effects: [],
  savepoints: [],
  failed: false,
})

/** pg_snapshot, read once more so that the relay's reading is not trusted. */
export interface Moment {
  lineage: string
  xmax: bigint
  inFlight: ReadonlySet<bigint>
}

/** Reads a cursor, or a snapshot behind an empty lineage. */
export function readMoment(cursor: string): Moment {
  const [lineage = "", , xmax = "0", inFlight = ""] = cursor.split(":")
  return {
    lineage,
    xmax: BigInt(xmax),
    inFlight: new Set(inFlight === "" ? [] : inFlight.split(",").map(BigInt)),
  }
}

const decided = (moment: Moment, xid: bigint) => xid < moment.xmax && !moment.inFlight.has(xid)

/** A change as a client must see it. */
interface Expected {
  xid: string
  /** The row's key; undefined where it concerns all rows or none. */
  key: number | undefined
  message: Partial<Received>
}

/** Whether it is told. An update that changes nothing is not, though it is in the log. */
const changes = (effect: Effect) =>
  effect.kind === "row"
    ? !isDeepStrictEqual(effect.before, effect.after)
    : effect.kind === "truncate" || effect.kind === "message"

export class Reference {
  rows = new Map<number, Row>()
  slot: number
  readonly commits: Array<{ xid: bigint; effects: Effect[] }> = []
  readonly prepared = new Map<string, Transaction>()
  /** What a cursor must have seen: everything below xmax but what was in flight when it was thrown away. */
  horizon: Moment
  /** The last committed transaction in each partition. */
  readonly #last: Array<bigint | undefined>

  constructor(slot: number, last: Array<bigint | undefined>, horizon: Moment) {
    this.slot = slot
    this.#last = last
    this.horizon = horizon
  }

  /** The row as a transaction sees it that has just written it: it holds the lock, so nobody else has since. */
  current(transaction: Transaction, key: number): Row | undefined {
    for (const effect of [...transaction.effects].reverse()) {
      if (effect.kind === "truncate") return undefined
      if (effect.kind === "row" && effect.key === key) return effect.after
    }
    return this.rows.get(key)
  }

  commit(transaction: Transaction): void {
    const { xid } = transaction
    if (xid === undefined) return
    for (const effect of transaction.effects) {
      if (effect.kind === "look") continue
      const last = this.#last[effect.slot]
      if (last === undefined || last < xid) this.#last[effect.slot] = xid
    }
    const effects = transaction.effects.filter(changes)
    if (effects.length === 0) return
    this.commits.push({ xid, effects })
    for (const effect of effects) {
      if (effect.kind === "truncate") this.rows.clear()
      if (effect.kind !== "row") continue
      if (effect.after === undefined) this.rows.delete(effect.key)
      else this.rows.set(effect.key, effect.after)
    }
  }

  /** Whether a transaction that is open keeps the partition from being emptied. */
  keeps(transaction: Transaction, slot: number): boolean {
    return transaction.effects.some((effect) => effect.kind !== "look" && effect.slot === slot)
  }

  /** The partition was emptied while those were in flight. */
  rotated(slot: number, inFlight: ReadonlySet<bigint>): void {
    const last = this.#last[slot]
    this.#last[slot] = undefined
    if (last === undefined) return
    const { xmax } = this.horizon
    const known = (xid: bigint) => xid >= xmax || this.horizon.inFlight.has(xid)
    const reach = last + 1n > xmax ? last + 1n : xmax
    this.horizon = {
      lineage: "",
      xmax: reach,
      inFlight: new Set([...inFlight].filter((xid) => xid < reach && known(xid))),
    }
  }

  /** Nothing before the capture was resumed can be continued. */
  resumed(fence: bigint): void {
    this.horizon = { lineage: "", xmax: fence, inFlight: new Set() }
  }

  /** Whether a cursor can be continued. */
  holds(cursor: string): boolean {
    const moment = readMoment(cursor)
    if (moment.xmax < this.horizon.xmax) return false
    return [...moment.inFlight].every((xid) => xid >= this.horizon.xmax || this.horizon.inFlight.has(xid))
  }

  /** The table as these channels show it. */
  table(channels: ReadonlySet<string>): Copy {
    return copyOf(
      TABLE,
      [...this.rows.values()].filter((row) => shows(channels, row)),
    )
  }

  /** What must come after the cursor, in the order of commits. */
  #after(cursor: string, channels: ReadonlySet<string>): Expected[] {
    const moment = readMoment(cursor)
    return this.commits
      .filter(({ xid }) => !decided(moment, xid))
      .flatMap(({ xid, effects }) => effects.flatMap((effect) => expect(String(xid), effect, channels)))
  }

  /** What is wrong with what a ledger was told, in words. It must be at rest, all commits received. */
  faults(ledger: Ledger, channels: ReadonlySet<string>): string[] {
    const expected = this.#after(ledger.base, channels)
    // A batch is read in pages of a thousand, and only then may a transaction be left for a checkpoint to close.
    const paged = this.commits.some(({ effects }) => effects.length >= 900)
    return [
      ...ledger.misfits,
      ...this.#faultsOfPlace(ledger, expected),
      ...faultsOfContent(ledger, expected, paged),
    ]
  }

  /** Each mark must hold, and nothing may come that is known to have been sent. */
  #faultsOfPlace(ledger: Ledger, expected: Expected[]): string[] {
    const faults: string[] = []
    const received = new Set<string>()
    const wanted = new Map<string, number>()
    for (const { xid } of expected) wanted.set(xid, (wanted.get(xid) ?? 0) + 1)
    const had = new Map<string, number>()
    let floor = readMoment(ledger.base)
    /** Of the connection that there is. */
    let here: string[] = []
    let replay: { announced: number | undefined; count: number } | undefined
    for (const step of ledger.trail) {
      if (step.kind === "resumed") {
        floor = readMoment(step.cursor)
        here = []
        replay = { announced: step.announced, count: 0 }
      } else if (step.kind === "mark") {
        const moment = readMoment(step.cursor)
        for (const [xid, count] of wanted)
          if (decided(moment, BigInt(xid)) && had.get(xid) !== count)
            faults.push(
              `${step.cursor} came when ${had.get(xid) ?? 0} of ${count} changes of ${xid} had come`,
            )
        for (const xid of here)
          if (!decided(moment, BigInt(xid)))
            faults.push(`${step.cursor} came after ${xid}, which it does not cover`)
        if (step.replayed !== undefined) {
          if (replay?.count !== step.replayed)
            faults.push(`${step.replayed} said to be replayed, ${replay?.count} were`)
          if (replay?.announced !== undefined && replay.announced !== step.replayed)
            faults.push(`${replay.announced} announced, ${step.replayed} replayed`)
          replay = undefined
        }
        floor = moment
        here = []
      } else {
        const xid = String(step.message.tx?.id)
        if (decided(floor, BigInt(xid)))
          faults.push(`sent although the cursor covers it: ${JSON.stringify(step)}`)
        if (received.has(step.message.id as string) !== step.repeat)
          faults.push(`came twice, with a checkpoint in between: ${JSON.stringify(step)}`)
        received.add(step.message.id as string)
        if (!step.repeat) had.set(xid, (had.get(xid) ?? 0) + 1)
        here.push(xid)
        if (replay !== undefined) replay.count++
      }
    }
    if (replay !== undefined) faults.push("a replay was not ended by its checkpoint")
    return faults
  }
}

/** Each transaction whole, in order and as committed, and the changes of each row in the order of commits. */
function faultsOfContent(ledger: Ledger, expected: Expected[], paged: boolean): string[] {
  const faults: string[] = []
  const firsts = ledger.trail.flatMap((step) =>
    step.kind === "change" && !step.repeat ? [step.message] : [],
  )
  const got = grouped(firsts, (message) => String(message.tx?.id))
  const wanted = grouped(expected, ({ xid }) => xid)
  const places = new Map<Received, Expected>()
  for (const [xid, list] of wanted) {
    const came = got.get(xid) ?? []
    if (came.length !== list.length) faults.push(`${came.length} of ${list.length} changes of ${xid} came`)
    came.forEach((message, n) => {
      const want = list[n]
      if (want === undefined) return
      places.set(message, want)
      for (const [field, value] of Object.entries(want.message))
        if (!isDeepStrictEqual(message[field], value))
          faults.push(`${field} should be ${JSON.stringify(value)}: ${JSON.stringify(message)}`)
      const last = n === list.length - 1
      if (message.tx?.last !== last && !(last && paged && closedLater(ledger, message)))
        faults.push(`last should be ${last}: ${JSON.stringify(message)}`)
    })
  }
  for (const xid of got.keys()) if (!wanted.has(xid)) faults.push(`nothing of ${xid} should have come`)
  const keys = new Set(expected.flatMap(({ key }) => (key === undefined ? [] : [key])))
  const concerns = (key: number, want: Expected | undefined) =>
    want !== undefined && (want.key === key || want.message.action === "truncate")
  for (const key of keys) {
    const order = firsts.map((message) => places.get(message)).filter((want) => concerns(key, want))
    const right = expected.filter((want) => concerns(key, want))
    if (order.length === right.length && order.some((want, n) => want !== right[n]))
      faults.push(`the changes of row ${key} came in another order than they happened`)
  }
  return faults
}

/** Whether a checkpoint that covers the change came after it, or the connection ended before. */
function closedLater(ledger: Ledger, message: Received): boolean {
  const xid = BigInt(message.tx?.id ?? 0)
  const index = ledger.trail.findIndex((step) => step.kind === "change" && step.message === message)
  return ledger.trail
    .slice(index)
    .some(
      (step) => step.kind === "resumed" || (step.kind === "mark" && decided(readMoment(step.cursor), xid)),
    )
}

function grouped<T>(items: readonly T[], by: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const item of items) {
    const group = groups.get(by(item))
    if (group === undefined) groups.set(by(item), [item])
    else group.push(item)
  }
  return groups
}

const shows = (channels: ReadonlySet<string>, row: Row | undefined) =>
  row !== undefined && (channels.has("election_updates") || channels.has(`committee:${row.committee_id}`))

function expect(xid: string, effect: Effect, channels: ReadonlySet<string>): Expected[] {
  const one = (key: number | undefined, message: Partial<Received>) => [{ xid, key, message }]
  if (effect.kind === "look") return []
  if (effect.kind === "message") {
    const { channel, payload } = effect
    const heard = channel === "user:7" || channels.has(channel)
    return heard ? one(undefined, { type: "message", channel, payload } as Partial<Received>) : []
  }
  if (effect.kind === "truncate") return one(undefined, { action: "truncate", table: TABLE })
  const { key, before, after } = effect
  const [had, has] = [shows(channels, before), shows(channels, after)]
  if (!had && !has) return []
  const head = { type: "voting_update", table: TABLE, key: { id: String(key) } }
  if (had && has && before !== undefined && after !== undefined) {
    const changed = Object.keys(after).filter((name) => !isDeepStrictEqual(before[name], after[name]))
    const old = Object.fromEntries(changed.map((name) => [name, before[name]]))
    return one(key, { ...head, action: "update", data: after, changed, before: old })
  }
  if (has) return one(key, { ...head, action: "create", data: after as Row })
  if (after === undefined) return one(key, { ...head, action: "delete", data: before as Row })
  return one(key, { ...head, action: "leave" })
}

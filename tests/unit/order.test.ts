/**
 * The order of a transaction's changes: whatever statements were nested in others, a client that applies what is sent one
 * after another ends with what the table holds, or is told to load it.
 */

import fc from "fast-check"
import t from "tap"
import type { Change, RowChange } from "../../relay/change/change.ts"
import { TransactionOrder } from "../../relay/change/order.ts"
import {
  NestedTable,
  type StatementPlan,
  type StoredRow,
  statements,
  type TableOptions,
} from "../helpers/nested-statements.ts"

const RUNS = 1_000

/** A client that sees the rows with some values, and applies one change after another. */
class Follower {
  readonly rows = new Map<string, string>()
  loads = 0
  readonly #sees: (text: string) => boolean
  readonly #table: NestedTable
  readonly #ids = new Set<string>()

  constructor(start: readonly StoredRow[], table: NestedTable, sees: (text: string) => boolean) {
    this.#sees = sees
    this.#table = table
    this.#fill(start)
  }

  apply(changes: readonly Change[]): void {
    for (const change of changes) {
      if (this.#ids.has(change.id)) continue
      this.#ids.add(change.id)
      if (change.kind === "row") this.#applyRow(change)
      else if (change.kind === "table")
        this.#applyTable(change.op === "truncate" && change.meta.partition === undefined)
    }
  }

  #applyTable(emptied: boolean): void {
    if (emptied) return this.rows.clear()
    this.loads++
    this.#fill(this.#table.rows)
  }

  #applyRow({ before, after, oversize }: RowChange): void {
    const shown = after !== undefined && (oversize || this.#sees(after.text))
    const shownBefore = before !== undefined && (oversize || this.#sees(before.text))
    if (before !== undefined && shownBefore) this.rows.delete(keyOf(before.text))
    if (after !== undefined && shown) this.rows.set(keyOf(after.text), oversize ? "?" : after.text)
  }

  #fill(rows: readonly StoredRow[]): void {
    this.rows.clear()
    for (const row of rows) if (this.#sees(textOf(row))) this.rows.set(String(row.key), textOf(row))
  }
}

const keyOf = (text: string): string => String((JSON.parse(text) as { id: number }).id)
const textOf = ({ key, value }: StoredRow): string => `{"id":${key},"value":${value}}`
const seesAll = () => true
const seesSome = (text: string) => !text.includes('"value":1')

/** Whether the client has what is in the table. */
function holds(follower: Follower, table: NestedTable, sees: (text: string) => boolean): boolean {
  const texts = table.rows.map(textOf).filter(sees)
  const keys = new Set(texts.map(keyOf))
  if (keys.size !== follower.rows.size) return false
  for (const [key, text] of follower.rows)
    if (text === "?" ? !keys.has(key) : !texts.includes(text)) return false
  return true
}

const startRows: readonly StoredRow[] = [0, 1, 2].map((key) => ({ version: `(9,${key})`, key, value: key }))

function runAll(plans: readonly StatementPlan[], options: TableOptions): NestedTable {
  const table = new NestedTable(startRows, options)
  for (const plan of plans) table.run(plan)
  return table
}

/** The log in pages that end after these places. */
function inPages(
  log: readonly Change[],
  ends: readonly number[],
  order = new TransactionOrder(),
): Change[][] {
  const cuts = [...new Set(ends.filter((end) => end < log.length))].sort((a, b) => a - b)
  const pages = [...cuts, log.length].map((end, i) => log.slice(i === 0 ? 0 : cuts[i - 1], end))
  return pages.map((page, i) => [...order.page(page, i === pages.length - 1)])
}

const plans = fc.array(statements, { minLength: 1, maxLength: 5 })
const options = fc.record<TableOptions>({
  deferred: fc.boolean(),
  byStatement: fc.boolean(),
  savepoints: fc.boolean(),
})
const ends = fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 3 })
const sees = fc.constantFrom(seesAll, seesSome)

/** Clients that see less than all are sent the key of an oversize row in any case and load it. */
const fits = (plan: StatementPlan): boolean =>
  plan.rows.every((row) => !row.oversize && [...row.within, ...row.before, ...row.after].every(fits))

for (const byStatement of [false, true]) {
  const how = byStatement ? "by statement" : "by row"
  t.test(`captured ${how}, a client ends with what the table holds`, async () => {
    const property = fc.property(plans, options, sees, (plans, options, sees) => {
      fc.pre(sees === seesAll || plans.every(fits))
      const table = runAll(plans, { ...options, byStatement })
      fc.pre(table.isUnique)
      const follower = new Follower(startRows, table, sees)
      follower.apply(new TransactionOrder().page(table.log, true))
      return holds(follower, table, sees)
    })
    fc.assert(property, { numRuns: RUNS })
  })

  t.test(`captured ${how} and read in pages, a client ends with what the table holds`, async () => {
    const property = fc.property(plans, options, sees, ends, (plans, options, sees, ends) => {
      fc.pre(sees === seesAll || plans.every(fits))
      const table = runAll(plans, { ...options, byStatement })
      fc.pre(table.isUnique)
      const follower = new Follower(startRows, table, sees)
      for (const page of inPages(table.log, ends)) follower.apply(page)
      return holds(follower, table, sees)
    })
    fc.assert(property, { numRuns: RUNS })
  })
}

const keepingKeys = ({ rows }: StatementPlan): StatementPlan => ({
  rows: rows.map((row) => ({
    ...row,
    key: row.op === "update" ? undefined : row.key,
    within: row.within.map(keepingKeys),
    before: row.before.map(keepingKeys),
    after: row.after.map(keepingKeys),
  })),
})

t.test("where rows keep their keys and are captured one by one they are seldom loaded again", async (t) => {
  let ordered = 0
  let loaded = 0
  const property = fc.property(plans, (plans) => {
    const table = runAll(plans.map(keepingKeys), { deferred: false })
    const changes = new TransactionOrder().page(table.log, true)
    if (changes.some(({ id }) => id.endsWith(".ordered"))) ordered++
    if (changes.some(({ kind }) => kind === "table")) loaded++
  })
  fc.assert(property, { numRuns: RUNS })
  t.ok(loaded < ordered, `${loaded} loads`)
  t.ok(ordered > RUNS / 50, `${ordered} logs in another order`)
})

t.test("a client that was cut off anywhere and reads it again in another way ends the same", async () => {
  const reads = fc.array(fc.option(ends, { nil: undefined }), { minLength: 2, maxLength: 2 })
  const property = fc.property(plans, options, reads, fc.nat(20), (plans, options, reads, cut) => {
    const table = runAll(plans, options)
    fc.pre(table.isUnique)
    const follower = new Follower(startRows, table, seesAll)
    for (const [i, ends] of reads.entries()) {
      const changes =
        ends === undefined ? new TransactionOrder().page(table.log, true) : inPages(table.log, ends).flat()
      follower.apply(i === reads.length - 1 ? changes : changes.slice(0, cut))
    }
    return holds(follower, table, seesAll)
  })
  fc.assert(property, { numRuns: RUNS })
})

t.test("a read that goes on where another was cut ends the same", async () => {
  const property = fc.property(plans, options, fc.boolean(), ends, (plans, options, known, ends) => {
    const table = runAll(plans, options)
    fc.pre(table.isUnique)
    const follower = new Follower(startRows, table, seesAll)
    const cut = Math.min(...ends)
    fc.pre(cut < table.log.length)
    const first = new TransactionOrder()
    follower.apply(first.page(table.log.slice(0, cut), false))
    const second = known ? first.rest() : new TransactionOrder({ unknown: true })
    // What the first read has meanwhile is none of the second's.
    first.page(table.log.slice(cut), true)
    for (const page of inPages(table.log.slice(cut), ends, second)) follower.apply(page)
    return holds(follower, table, seesAll)
  })
  fc.assert(property, { numRuns: RUNS })
})

t.test("truncations of all and of a part between the statements", async () => {
  const steps = fc.array(
    fc.oneof({ weight: 4, arbitrary: statements }, { weight: 1, arbitrary: fc.constantFrom("all", "part") }),
    { minLength: 2, maxLength: 6 },
  )
  const paged = fc.option(ends, { nil: undefined })
  const property = fc.property(steps, options, paged, (steps, options, ends) => {
    const table = new NestedTable(startRows, options)
    for (const step of steps) {
      if (step === "all") table.truncate()
      else if (step === "part") table.truncate("public.t_1")
      else table.run(step as StatementPlan)
    }
    fc.pre(table.isUnique)
    const follower = new Follower(startRows, table, seesAll)
    const pages =
      ends === undefined ? [new TransactionOrder().page(table.log, true)] : inPages(table.log, ends)
    for (const page of pages) follower.apply(page)
    return holds(follower, table, seesAll)
  })
  fc.assert(property, { numRuns: RUNS })
})
